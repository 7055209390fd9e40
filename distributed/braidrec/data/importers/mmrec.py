"""Folders as MMRec (https://github.com/enoche/MMRec) reads them."""

from braidrec.config.prepare import ColumnsConfig, MMRecSourceConfig
from braidrec.data.errors import DatasetError
from braidrec.data.importers.raw import RawData
from braidrec.data.importers.tables import log_file
from braidrec.data.readers import column_types, table_files
from braidrec.data.storage import Location
from braidrec.data.vectors import matrix_source

FEATURE_SUFFIX = "_feat.npy"
USUAL_NAMES = {"rating": "rating", "timestamp": "timestamp", "split": "x_label"}


def import_mmrec(source: MMRecSourceConfig) -> RawData:
    """`<name>.inter` with `userID itemID [rating] [timestamp] [x_label]`, and `<modality>_feat.npy`, row = itemID."""
    folder = Location.of(source.path)
    if not folder.is_folder():
        raise DatasetError(f"{folder.uri}: no such folder; name the MMRec folder in source.path")
    names = [name for name in folder.files() if "/" not in name]
    (file,) = table_files([folder.child(_interactions_name(source, folder, names)).uri], "tsv")
    present = column_types(file)
    usual = {
        name: column
        for name, column in USUAL_NAMES.items()
        if getattr(source.columns, name) is None and column in present
    }
    columns = ColumnsConfig.model_validate(source.columns.model_dump() | usual)
    modalities = source.modalities
    if modalities is None:
        found = sorted(name for name in names if name.endswith(FEATURE_SUFFIX))
        modalities = {name.removesuffix(FEATURE_SUFFIX): name for name in found}
    return RawData(
        logs=(log_file(file, 0, columns),),
        has_given_split=columns.split is not None,
        vectors={name: matrix_source(name, folder.child(path).uri) for name, path in modalities.items()},
    )


def _interactions_name(source: MMRecSourceConfig, folder: Location, names: list[str]) -> str:
    if source.interactions is not None:
        return source.interactions
    found = sorted(name for name in names if name.endswith(".inter"))
    if len(found) != 1:
        raise DatasetError(
            f"{folder.uri}: {len(found)} .inter files {found}; name the right one in source.interactions"
        )
    return found[0]
