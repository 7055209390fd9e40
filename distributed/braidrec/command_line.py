"""What all jobs have in common on the command line. Light to import: the rest follows when the arguments are right."""

import argparse
import json
import sys
from collections.abc import Callable
from typing import NoReturn

from braidrec.errors import RunError, Stopped
from braidrec.interpreter import continue_with_rays_python


def job_parser(description: str | None) -> argparse.ArgumentParser:
    """`--config FILE` and `--set a.b=c`, each as often as wanted."""
    parser = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--config", action="append", default=[], metavar="FILE", help="YAML file; later ones win")
    parser.add_argument(
        "--set", action="append", default=[], metavar="a.b=c", dest="overrides", help="override one key"
    )
    return parser


def modality_share(text: str) -> str:
    """The override that `--drop-modality NAME=SHARE` stands for.

    Raises:
        ArgumentTypeError: something else than a name and a number.
    """
    name, _, share = text.rpartition("=")
    try:
        return f"drop_modality={json.dumps({name: float(share)})}" if name else _not_a_share(text)
    except ValueError:
        return _not_a_share(text)


def _not_a_share(text: str) -> NoReturn:
    raise argparse.ArgumentTypeError(f"{text!r}: expected NAME=SHARE, as in image=0.5")


def run_job(main: Callable[[], None]) -> None:
    """Run a job and exit: what goes wrong for a reason of its own is one message at the end, without a traceback.

    Exit status: 0 done; 1 a run that failed; 2 refused before any work; 128 + n ended by signal n.
    """
    continue_with_rays_python()
    from braidrec.config.load import ConfigError
    from braidrec.data.errors import DatasetError

    try:
        main()
    except (ConfigError, DatasetError) as error:
        _exit(str(error), 2)
    except RunError as error:
        _exit(f"the run failed: {error}", 1)
    except Stopped as stop:
        _exit(str(stop), 128 + stop.signal)


def _exit(message: str, status: int) -> None:
    sys.stdout.flush()
    print(message, file=sys.stderr, flush=True)
    sys.exit(status)
