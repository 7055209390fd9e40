"""Reading media, and what can be wrong with them."""

import os
from functools import lru_cache
from urllib.parse import unquote

import pyarrow as pa
import pyarrow.fs as pafs

from braidrec.data.errors import DatasetError
from braidrec.data.storage import Location


class MediaError(ValueError):
    """A medium that cannot be used. `reason` is what it is counted by, the message says more about this one."""

    def __init__(self, reason: str, message: str) -> None:
        super().__init__(message)
        self.reason = reason


def read_medium(uri: str, base: Location | None, max_bytes: int) -> bytes:
    """The content of a file.

    Args:
        uri: absolute path, URI, or path that starts at `base` (and may lead out of it by `..`).
    Raises:
        MediaError: missing, no file, not readable, empty, or longer than `max_bytes`.
    """
    filesystem, path = _place(uri, base)
    try:
        info = filesystem.get_file_info(path)
        if info.type == pafs.FileType.NotFound:
            raise MediaError("missing file", f"{path}: no such file")
        if info.type == pafs.FileType.Directory:
            raise MediaError("unreadable", f"{path}: is a folder")
        if info.type != pafs.FileType.File:  # a device or a pipe, which may never end
            raise MediaError("unreadable", f"{path}: is no file")
        if info.size is not None and info.size > max_bytes:
            raise MediaError("too large", f"{path}: {info.size:,} bytes; limits.max_bytes is {max_bytes:,}")
        with filesystem.open_input_stream(path, compression=None) as stream:
            content = bytes(stream.read(max_bytes + 1))  # a file may grow
    except (pa.ArrowException, OSError) as error:
        raise MediaError("unreadable", f"{path}: {str(error).splitlines()[0]}") from None
    return checked_size(content, max_bytes)


def stamp_of(uri: str, base: Location | None) -> str:
    """Size and time of a file on this machine, "" for one that is not there or lies elsewhere. Arguments as for
    `read_medium`."""
    try:
        filesystem, path = _place(uri, base)
        found = os.stat(path) if isinstance(filesystem, pafs.LocalFileSystem) else None
    except (MediaError, OSError, ValueError):
        return ""
    return "" if found is None else f"{found.st_size}:{found.st_mtime_ns}"


def checked_size(content: bytes, max_bytes: int) -> bytes:
    """The content, if it is neither empty nor too long.

    Raises:
        MediaError: it is.
    """
    if not content:
        raise MediaError("zero bytes", "the file is empty")
    if len(content) > max_bytes:
        raise MediaError("too large", f"{len(content):,} bytes; limits.max_bytes is {max_bytes:,}")
    return content


def _place(uri: str, base: Location | None) -> tuple[pafs.FileSystem, str]:
    if "://" in uri:
        scheme, _, rest = uri.partition("://")
        bucket, slash, path = rest.partition("/")
        try:
            root = _root(f"{scheme}://{bucket}{slash}")
        except DatasetError as error:
            raise MediaError("unreadable", str(error)) from None
        path = unquote(path) if scheme == "file" else path
        return root.filesystem, f"{root.path}/{path}" if root.path else f"{'/' if root.is_local else ''}{path}"
    if uri.startswith("/") or base is None:
        return _local(), uri
    return base.filesystem, f"{base.path}/{uri}"


@lru_cache(maxsize=64)
def _root(uri: str) -> Location:
    """A connection is made once a bucket, not once a file."""
    return Location.of(uri)


@lru_cache(maxsize=1)
def _local() -> pafs.FileSystem:
    return pafs.LocalFileSystem()
