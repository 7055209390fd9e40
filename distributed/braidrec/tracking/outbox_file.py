"""What could not be sent, as JSON lines: first the run's identity, then one message a line."""

import os
from collections.abc import Sequence
from pathlib import Path

from pydantic import ValidationError

from braidrec.tracking.messages import UNSENT, RunIdentity, Unsent
from braidrec.tracking.naming import redact


def free_path(wanted: Path) -> Path:
    """`wanted`, or the first of `name-2`, `name-3`, … that does not exist: what an earlier attempt kept stays."""
    number = 2
    path = wanted
    while path.exists():
        path = wanted.with_name(f"{wanted.stem}-{number}{wanted.suffix}")
        number += 1
    return path


def write_outbox(path: Path, identity: RunIdentity, unsent: Sequence[Unsent]) -> None:
    """Written beside and renamed, so that a file of that name is whole. A password in the URI is not written."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    with temporary.open("w", encoding="utf-8") as file:
        file.write(identity.model_copy(update={"uri": redact(identity.uri)}).model_dump_json() + "\n")
        for entry in unsent:
            file.write(entry.model_dump_json() + "\n")
        file.flush()
        os.fsync(file.fileno())
    temporary.replace(path)


def read_outbox(path: Path) -> tuple[RunIdentity, list[Unsent]]:
    """The inverse of `write_outbox`.

    Raises:
        ValueError: no such file, not such a file, or a broken line; names file and line.
    """
    if not path.is_file():
        raise ValueError(f"{path}: no such file")
    identity: RunIdentity | None = None
    entries = []
    with path.open(encoding="utf-8") as file:
        for number, line in enumerate(file, start=1):
            try:
                if identity is None:
                    identity = RunIdentity.model_validate_json(line)
                else:
                    entries.append(UNSENT.validate_json(line))
            except ValidationError as error:
                detail = error.errors(include_url=False)[0]
                place = ".".join(str(part) for part in detail["loc"]) or "the line"
                raise ValueError(
                    f"{path}:{number}: not an outbox written by BraidRec: {place}: {detail['msg']}"
                ) from None
    if identity is None:
        raise ValueError(f"{path}: empty; the first line of an outbox names its run")
    return identity, entries
