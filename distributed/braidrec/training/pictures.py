"""The raw images of a data set, decoded once a node."""

import os
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from braidrec.config.extract import DatasetSourceConfig, ExtractSourceConfig, ManifestSourceConfig, TextFieldsConfig
from braidrec.config.load import ConfigError
from braidrec.config.systems.dvbpr import DVBPRConfig
from braidrec.data.folder import DatasetFolder
from braidrec.training.context import Collectives
from braidrec.training.together import Tell, built_beside

if TYPE_CHECKING:
    from braidrec.features.extract.pictures import PictureTable

WANTED_EXTRA = "model.encoder.kind=dvbpr reads images, for which Pillow and torchvision are wanted"


def pictures_of_items(
    config: DVBPRConfig, folder: DatasetFolder, context: Collectives, cache: Path, tell: Tell
) -> "PictureTable":
    """The items' images as squares, one copy a node, made by its first worker while the others wait.

    Args:
        context: this worker.
        cache: the node's cache folder.
        tell: is told how far it is.
    Raises:
        DatasetError: no such images, too many broken ones, or no room for them.
    """
    from braidrec.features.extract.manifest import open_source, plan_rows
    from braidrec.features.extract.pictures import Squares, picture_table

    manifest = open_source(within(config.images, folder), folder, name="image", text=TextFieldsConfig())
    make = partial(
        picture_table,
        manifest,
        plan_rows(manifest, folder),
        folder.num_items,
        Squares(side=config.side + config.margin, fit=config.fit, limits=config.limits),
        cache=cache,
        max_failed=config.max_failed,
        threads=len(os.sched_getaffinity(0)),
        use_ray=context.uses_ray,
        tell=tell,
    )
    return built_beside(make, context)


def within(source: ExtractSourceConfig, folder: DatasetFolder) -> ExtractSourceConfig:
    """The source with relative paths made those of the data set's folder, which all workers reach alike."""
    if isinstance(source, DatasetSourceConfig):
        return source

    def placed(path: str) -> str:
        return path if "://" in path or path.startswith(("/", "~")) else folder.location.child(path).uri

    moved = {"paths": tuple(placed(path) for path in source.paths)}
    return source.model_copy(update=moved | ({} if source.folder is None else {"folder": placed(source.folder)}))


def check_pictures(config: DVBPRConfig, folder: DatasetFolder) -> None:
    """Refuse what could not be read, before any work.

    Raises:
        ConfigError: naming the key, its value and the mend.
        DatasetError: a table of images that is not there, or without the columns.
    """
    source = config.images
    if isinstance(source, DatasetSourceConfig):
        known = folder.description.media
        images = sorted(name for name, medium in known.items() if medium.column in ("uri", "bytes"))
        name = source.media or "image"
        if source.text or name not in images:
            wanted = f"text={list(source.text)}" if source.text else f"media={name}"
            raise ConfigError(
                f"model.encoder.images: {wanted}, but the data set {folder.path} has images in {images}. "
                "jobs/prepare.py keeps them (its key media.image.folder), or give a table, "
                "model.encoder.images={kind: manifest, paths: […], uri: COLUMN}"
            )
    elif source.text:
        raise ConfigError(f"model.encoder.images.text={list(source.text)}: texts are no images; name the column in uri")
    try:
        import PIL
        import torchvision  # noqa: F401
    except ImportError as error:
        raise ConfigError(f"{WANTED_EXTRA} ({error}): pip install 'braidrec[extract]'") from None
    assert PIL
    if isinstance(source, ManifestSourceConfig):
        from braidrec.features.extract.manifest import open_source

        open_source(within(source, folder), folder, name="image", text=TextFieldsConfig())
