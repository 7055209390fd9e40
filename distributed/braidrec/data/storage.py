"""Files by path or URI: the few operations that the data package needs, on any pyarrow filesystem."""

import hashlib
import os
import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.fs as pafs
import pyarrow.parquet as pq

from braidrec.data.errors import DatasetError

HASH_CHUNK_BYTES = 1 << 22


@dataclass(frozen=True, kw_only=True)
class Location:
    """A file or folder on a pyarrow filesystem. Picklable, so that Ray tasks can be given one."""

    uri: str
    """As the user wrote it, a local path made absolute."""
    filesystem: Any
    path: str
    """The path as `filesystem` wants it."""

    @classmethod
    def of(cls, path_or_uri: str | Path) -> "Location":
        """Resolve a local path (`~` allowed) or a URI such as `s3://bucket/folder` or `file:///data`.

        Raises:
            DatasetError: pyarrow knows no such kind of URI.
        """
        text = str(path_or_uri)
        if "://" not in text:
            absolute = str(Path(text).expanduser().absolute())
            return cls(uri=absolute, filesystem=pafs.LocalFileSystem(), path=absolute)
        try:
            filesystem, path = pafs.FileSystem.from_uri(text)
        except (pa.ArrowException, ValueError) as error:
            raise DatasetError(
                f"{text}: {error}; give a local path or a URI that pyarrow reads (file://, s3://, gs://, hdfs://)"
            ) from None
        return cls(uri=text.rstrip("/"), filesystem=filesystem, path=path.rstrip("/"))

    def child(self, relative: str) -> "Location":
        """The file or folder `relative` (parts separated by `/`) inside this folder."""
        return Location(uri=f"{self.uri}/{relative}", filesystem=self.filesystem, path=f"{self.path}/{relative}")

    def sibling(self, name: str) -> "Location":
        """The file or folder `name` beside this one."""
        return Location(
            uri=f"{self.uri.rpartition('/')[0]}/{name}",
            filesystem=self.filesystem,
            path=f"{self.path.rpartition('/')[0]}/{name}",
        )

    def parent(self) -> "Location":
        """The folder that this file or folder is in."""
        return Location(uri=self.uri.rpartition("/")[0], filesystem=self.filesystem, path=self.path.rpartition("/")[0])

    @property
    def is_local(self) -> bool:
        return isinstance(self.filesystem, pafs.LocalFileSystem)

    @property
    def name(self) -> str:
        return self.path.rpartition("/")[2]

    def is_file(self) -> bool:
        return bool(self.filesystem.get_file_info(self.path).type == pafs.FileType.File)

    def is_folder(self) -> bool:
        return bool(self.filesystem.get_file_info(self.path).type == pafs.FileType.Directory)

    def size(self) -> int:
        return int(self.filesystem.get_file_info(self.path).size or 0)

    def files(self) -> dict[str, int]:
        """Size in bytes of every file below this folder, by relative path, in sorted order."""
        selector = pafs.FileSelector(self.path, recursive=True, allow_not_found=True)
        found = [info for info in self.filesystem.get_file_info(selector) if info.type == pafs.FileType.File]
        prefix = len(self.path) + 1
        return dict(sorted((info.path[prefix:], int(info.size)) for info in found))

    def read_bytes(self) -> bytes:
        with self.filesystem.open_input_stream(self.path, compression=None) as stream:
            return bytes(stream.read())

    def write_bytes(self, content: Any) -> None:
        """Write a whole file, making its folder where the filesystem has folders.

        It appears complete or not at all, whoever reads it meanwhile or kills this process: on local disks by a
        rename, on object stores because that is how an upload ends.
        """
        folder, _, name = self.path.rpartition("/")
        self.filesystem.create_dir(folder, recursive=True)
        if not self.is_local:
            self._write(self.path, content)
            return
        temporary = f"{folder}/.{name}-{secrets.token_hex(4)}"
        try:
            self._write(temporary, content)
            os.replace(temporary, self.path)
        finally:
            Path(temporary).unlink(missing_ok=True)

    def _write(self, path: str, content: Any) -> None:
        with self.filesystem.open_output_stream(path, compression=None) as stream:
            stream.write(content)

    def remove(self) -> None:
        """Delete this file, or this folder with all that is in it; nothing there is no error."""
        kind = self.filesystem.get_file_info(self.path).type
        if kind == pafs.FileType.Directory:
            self.filesystem.delete_dir(self.path)
        elif kind == pafs.FileType.File:
            self.filesystem.delete_file(self.path)

    def rename(self, target: "Location") -> None:
        """Move this folder to where nothing is yet, on the same local disk."""
        self.filesystem.move(self.path, target.path)

    def sha256(self) -> str:
        digest = hashlib.sha256()
        with self.filesystem.open_input_stream(self.path, compression=None) as stream:
            while chunk := stream.read(HASH_CHUNK_BYTES):
                digest.update(chunk)
        return digest.hexdigest()


def refuse_repeated_folders(top: Location) -> None:
    """
    Raises:
        DatasetError: a folder below is reached twice, over a symbolic link, so that its files would count twice.
    """
    if not top.is_local:
        return
    seen: dict[str, str] = {}
    for folder, _, _ in os.walk(top.path, followlinks=True):
        real = os.path.realpath(folder)
        if real in seen:
            raise DatasetError(f"{folder}: a symbolic link to {seen[real]}, which is read already: remove it")
        seen[real] = folder


def read_parquet(location: Location, columns: list[str] | None = None) -> Any:
    """One Parquet file as a table.

    Raises:
        DatasetError: no such file, truncated or not Parquet, or a column that is not in it.
    """
    with _parquet(location, columns) as parquet:
        return parquet.read(columns=columns)


def read_parquet_batches(location: Location, columns: list[str], rows: int) -> Iterator[Any]:
    """One Parquet file as record batches of at most `rows` rows, of which one is held at a time.

    Raises:
        DatasetError: as `read_parquet`.
    """
    with _parquet(location, columns) as parquet:
        yield from parquet.iter_batches(batch_size=rows, columns=columns)


@contextmanager
def _parquet(location: Location, columns: list[str] | None) -> Iterator[Any]:
    """The opened file, which has the columns."""
    try:
        with location.filesystem.open_input_file(location.path) as source:
            parquet = pq.ParquetFile(source)
            names = parquet.schema_arrow.names
            missing = [name for name in columns or [] if name not in names]
            if missing:
                raise DatasetError(f"{location.uri}: no column {missing[0]!r}; it has {names}")
            yield parquet
    except FileNotFoundError:
        raise DatasetError(f"{location.uri}: no such file") from None
    except (pa.ArrowException, OSError) as error:
        raise DatasetError(
            f"{location.uri}: not readable as Parquet ({error}); the file is truncated or damaged: make it anew"
        ) from None
