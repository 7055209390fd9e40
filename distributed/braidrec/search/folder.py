"""A sweep's own folder: its configuration, its trials, their runs, the winner."""

import secrets
from collections.abc import Sequence
from datetime import datetime
from typing import Any

from braidrec.config.load import ConfigError, merged, read_plain, to_yaml, validate, with_overrides
from braidrec.config.sweep import SweepConfig
from braidrec.config.yaml_text import parse_yaml
from braidrec.data.storage import Location
from braidrec.places import absolute_place
from braidrec.training.run_folder import Folder, changed_keys, check_name

MAY_CHANGE = (
    "name",
    "budget",
    "concurrency",
    "finalists",
    "worker_failures",
    "best_on_test",
    "run.workers",
    "run.tracking",
    "run.storage",
    "run.cache",
    "run.data.path",
)
"""Keys that may differ when a sweep goes on: how much, how fast, and where things are."""


class SweepFolder(Folder):
    """`<run.storage>/<name>/`.

    config.yaml (with the base written into it), search_space.json, trials.json, seconds.json, sweep.json (a random key,
    the data's digest), winner.yaml, report.html; runs/ with a folder for every training; tune/ while one is going on.
    """

    @property
    def runs(self) -> Location:
        return self.location.child("runs")

    @classmethod
    def new(cls, storage: str, name: str | None) -> "SweepFolder":
        """The folder of a sweep that is about to begin.

        Raises:
            ConfigError: not a name, or one that is taken.
        """
        name = name or f"sweep-{datetime.now():%Y%m%d-%H%M%S}-{secrets.token_hex(2)}"
        check_name(name)
        folder = cls(Location.of(storage).child(name))
        if folder.location.child("config.yaml").is_file():
            what = "sweep" if folder.location.child("sweep.json").is_file() else "run"
            mend = f"continue it with --resume {name}, or " if what == "sweep" else ""
            raise ConfigError(
                f"name: a {what} {name!r} exists in {Location.of(storage).uri}; {mend}choose another name"
            )
        return folder

    @classmethod
    def existing(cls, name: str, storage: str) -> "SweepFolder":
        """A sweep that was begun, by its name in `storage`, or by the path or URI of its folder.

        Raises:
            ConfigError: there is none.
        """
        places = [Location.of(absolute_place(storage)).child(name), Location.of(absolute_place(name))]
        for place in places:
            if place.child("sweep.json").is_file():
                return cls(place)
        raise ConfigError(f"--resume {name}: there is no sweep at {places[0].uri}, nor at {places[1].uri}")

    def begin(self, sweep: SweepConfig, space: dict[str, Any], digest: str) -> None:
        """Write down what is searched."""
        self.write_json("search_space.json", space)
        self.go_on_with(sweep)
        self.write_json("sweep.json", {"key": secrets.token_hex(16), "dataset": digest})

    def go_on_with(self, sweep: SweepConfig) -> None:
        """Write down what a sweep that goes on is changed to, so that the next --resume knows it too."""
        self.location.child("config.yaml").write_bytes(to_yaml(sweep).encode())

    def config(self) -> SweepConfig:
        """What the sweep was begun with."""
        file = self.location.child("config.yaml")
        return validate(SweepConfig, parse_yaml(file.read_bytes().decode()), file.uri)

    @property
    def key(self) -> str:
        """What no other sweep has."""
        return str(self.read_json("sweep.json")["key"])

    def check_resumable(self, sweep: SweepConfig, digest: str) -> None:
        """Refuse to go on with something else.

        Raises:
            ConfigError: other keys than `MAY_CHANGE` differ, all of which are named, or the data set is another one.
        """
        changed = changed_keys(self.config().to_plain(), sweep.to_plain(), MAY_CHANGE)
        if changed:
            raise ConfigError(
                f"--resume {self.name}: the configuration differs from the one the sweep was begun with:\n  "
                + "\n  ".join(changed)
                + f"\n  only {', '.join(MAY_CHANGE)} may change; begin a new sweep for anything else"
            )
        known = str(self.read_json("sweep.json")["dataset"])
        if known != digest:
            raise ConfigError(
                f"--resume {self.name}: the sweep was begun on data with digest {known[:12]}…, this data set has "
                f"{digest[:12]}…: its trials could not be compared; point run.data.path at the same data"
            )


def base_of(sweep: SweepConfig) -> dict[str, Any]:
    """The run that a sweep varies, as far as it was written down.

    Raises:
        ConfigError: a file that cannot be read.
    """
    return merged(read_plain(sweep.base), dict(sweep.run))


def stored_config(name: str, overrides: Sequence[str] = ()) -> SweepConfig:
    """What a sweep was begun with, changed by overrides; by its name in `runs/`, or the path or URI of its folder.

    Raises:
        ConfigError: there is none, or an override that is not one.
    """
    plain = SweepFolder.existing(name, "runs").config().to_plain()
    return validate(SweepConfig, with_overrides(plain, overrides), f"--resume {name}")
