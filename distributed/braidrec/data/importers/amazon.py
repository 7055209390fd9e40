"""Amazon review dumps (https://amazon-reviews-2023.github.io and its forerunners of 2014 and 2018)."""

from braidrec.config.prepare import AmazonSourceConfig, ColumnsConfig
from braidrec.data.catalogue import AMAZON_LAYOUT, Catalogue
from braidrec.data.errors import DatasetError
from braidrec.data.importers.raw import RawData
from braidrec.data.importers.tables import log_file
from braidrec.data.readers import column_types, table_files

EDITIONS = {
    "2014 and 2018": ColumnsConfig(
        user="reviewerID", item="asin", rating="overall", timestamp="unixReviewTime", timestamp_unit="s"
    ),
    "2023": ColumnsConfig(
        user="user_id", item="parent_asin", rating="rating", timestamp="timestamp", timestamp_unit="ms"
    ),
}


def import_amazon(source: AmazonSourceConfig) -> RawData:
    """Reviews as interactions with rating and time; metadata as titles, texts and image addresses."""
    files = table_files(source.reviews, "jsonl")
    if not files:
        raise DatasetError("source.reviews is empty: name at least one review file")
    present = column_types(files[0])
    for columns in EDITIONS.values():
        if columns.user in present and columns.item in present:
            break
    else:
        wanted = {edition: [columns.user, columns.item] for edition, columns in EDITIONS.items()}
        raise DatasetError(
            f"{files[0].location.uri}: its fields {list(present)} are of no known edition, which have {wanted}; "
            "for other JSON lines use source.kind=table"
        )
    metadata = table_files(source.metadata, "jsonl")
    return RawData(
        logs=tuple(log_file(file, number, columns) for number, file in enumerate(files)),
        has_given_split=False,
        catalogue=Catalogue(files=tuple(metadata), layout=AMAZON_LAYOUT) if metadata else None,
    )
