"""Send what a training could not send: `python -m braidrec.tracking.replay FILE`.

The file is renamed to FILE.sent once all of it has arrived; otherwise it is rewritten with what has not.
"""

import argparse
import sys
import time
from collections.abc import Sequence
from pathlib import Path

from braidrec.tracking.messages import RunIdentity, Unsent
from braidrec.tracking.naming import first_line, redact
from braidrec.tracking.outbox_file import read_outbox, write_outbox
from braidrec.tracking.sender import RefusedError, Sender
from braidrec.tracking.store import absolute_tracking_uri

_TRIES = 4


def main(arguments: Sequence[str] | None = None) -> int:
    """The exit status: 0 when all has arrived, 1 otherwise, 2 for a wrong call."""
    parser = argparse.ArgumentParser(prog="python -m braidrec.tracking.replay", description=__doc__)
    parser.add_argument("file", type=Path, help="outbox file written at the end of a training")
    parser.add_argument("--uri", help="tracking URI, if it has changed or contains a password")
    options = parser.parse_args(arguments)
    try:
        identity, entries = read_outbox(options.file)
        identity = identity.model_copy(update={"uri": _uri(identity, options.uri)})
    except ValueError as error:
        parser.error(str(error))
    try:
        remaining, run_id = send_all(identity, entries)
    except Exception as error:  # a command's last word is a sentence
        print(f"MLflow at {redact(identity.uri)} cannot be used: {redact(first_line(error))}; nothing was sent")
        return 1
    if remaining:
        write_outbox(options.file, identity.model_copy(update={"run_id": run_id}), remaining)
        reasons = sorted({entry.reason or "not sent" for entry in remaining})
        print(f"{len(entries) - len(remaining)} of {len(entries)} messages sent to run {run_id}; the others stay in")
        print(f"{options.file}: {'; '.join(reasons)}")
        return 1
    options.file.rename(options.file.with_name(f"{options.file.name}.sent"))
    print(f"{len(entries)} messages sent to run {run_id} at {redact(identity.uri)}")
    return 0


def send_all(identity: RunIdentity, entries: Sequence[Unsent]) -> tuple[list[Unsent], str]:
    """Send everything in order; returns what did not arrive, with reasons, and the run's id.

    What one message is refused for does not hold up the others.
    """
    sender = Sender(identity, inform=print)
    run_id = sender.open()
    remaining = []
    for entry in entries:
        reason = _send(sender, entry)
        if reason is not None:
            remaining.append(Unsent(message=entry.message, reason=reason))
    return remaining, run_id


def _send(sender: Sender, entry: Unsent) -> str | None:
    """None once it has arrived, else why it has not."""
    for attempt in range(_TRIES):
        try:
            sender.send(entry.message)
        except RefusedError as refusal:
            return redact(str(refusal))
        except Exception as error:  # whatever the client throws when the server is away
            reason = redact(first_line(error))
            if attempt + 1 < _TRIES:
                time.sleep(2.0**attempt / 2)
        else:
            return None
    return reason


def _uri(identity: RunIdentity, given: str | None) -> str:
    uri = given or identity.uri
    if given is None and "***@" in uri:
        raise ValueError(f"the tracking URI {uri} had a password, which is not kept: pass it whole with --uri")
    return absolute_tracking_uri(uri)


if __name__ == "__main__":
    sys.exit(main())
