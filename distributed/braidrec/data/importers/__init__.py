"""One importer a kind of source. A new one needs a config type in config/prepare.py and a line here."""

from collections.abc import Callable
from typing import Any

from braidrec.data.importers.amazon import import_amazon
from braidrec.data.importers.mmrec import import_mmrec
from braidrec.data.importers.raw import RawData
from braidrec.data.importers.tables import import_given_files, import_table

IMPORTERS: dict[str, Callable[[Any], RawData]] = {
    "table": import_table,
    "given_files": import_given_files,
    "mmrec": import_mmrec,
    "amazon": import_amazon,
}
"""By `source.kind`. Each looks at headers only and refuses what cannot be read."""
