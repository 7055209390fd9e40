"""A run's own folder: its name, its stored configuration, and what it remembers of its start."""

import hashlib
import json
import secrets
import socket
from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any

import yaml

from braidrec.config.base import Strict
from braidrec.config.dotted import is_among, leaves
from braidrec.config.load import ConfigError, to_yaml, validate
from braidrec.config.run import RunConfig
from braidrec.data.storage import Location

MAY_CHANGE = (
    "storage",
    "cache",
    "name",
    "data.path",
    "training.epochs",
    "training.tables",
    "training.prepare_ahead",
    "evaluation.inference",
    "model.encoder.max_failed",
    "workers",
    "tracking",
)
"""Keys that may differ when a run is resumed: who computes, how long, and where things are."""


class Folder:
    """A folder that belongs to one run or sweep, of whose name it is, and keeps small JSON files.

    Args:
        location: of it.
    """

    def __init__(self, location: Location) -> None:
        self.location = location

    @property
    def name(self) -> str:
        return self.location.name

    @property
    def uri(self) -> str:
        return self.location.uri

    def write_json(self, file: str, content: Any) -> None:
        """Store a small JSON file."""
        self.location.child(file).write_bytes(json.dumps(content, indent=1).encode())

    def read_json(self, file: str) -> Any:
        """What a small JSON file holds, or None if there is none."""
        location = self.location.child(file)
        return json.loads(location.read_bytes()) if location.is_file() else None


class RunFolder(Folder):
    """`<storage>/<name>/`.

    config.yaml and run.json (of the start: a random key, the data's digest), lease.json while it is being written,
    mlflow.json (which MLflow run it is), checkpoints/, metrics.jsonl, curves.html, per_user/, ray/ (Ray's own
    bookkeeping); result.json once it has finished; evaluations/ and recommendations/ by the jobs of that name.
    """

    @property
    def checkpoints(self) -> Location:
        return self.location.child("checkpoints")

    @classmethod
    def new(cls, config: RunConfig) -> "RunFolder":
        """An empty folder for a run, or one that turns out to be taken when the run wants to `begin`.

        Raises:
            ConfigError: not a name.
        """
        name = config.name or _made_up_name(config)
        check_name(name)
        folder = cls(Location.of(config.storage).child(name))
        folder.location.filesystem.create_dir(folder.location.path, recursive=True)
        return folder

    def begin(self, config: RunConfig) -> None:
        """Store what the run starts with. Call it with the lease in hand: of several starts of one name, one has it.

        Raises:
            ConfigError: the name is taken.
        """
        if self.location.child("config.yaml").is_file():
            raise ConfigError(
                f"name: a run {self.name!r} exists in {Location.of(config.storage).uri}; "
                f"continue it with --resume {self.name}, or choose another name"
            )
        self.write_json("run.json", {"key": secrets.token_hex(16)})
        self.location.child("config.yaml").write_bytes(to_yaml(config).encode())

    @classmethod
    def existing(cls, storage: str, name: str) -> "RunFolder":
        """A run that was started before.

        Raises:
            ConfigError: there is none of that name; the message lists those that are there.
        """
        folder = cls(Location.of(storage).child(name))
        if not _is_name(name) or not folder.location.child("config.yaml").is_file():
            files = Location.of(storage).files()
            names = sorted(
                {path.partition("/")[0] for path in files if path.count("/") == 1 and path.endswith("/config.yaml")}
            )
            raise ConfigError(f"no run {name!r} in {Location.of(storage).uri}; there are {names or 'none'}")
        return folder

    def check_reachable(self) -> None:
        """On every worker: is this the folder that the driver made, or an empty one of the same name on another disk?

        Raises:
            ConfigError: the run's configuration is not there.
        """
        if not self.location.child("config.yaml").is_file():
            raise ConfigError(
                f"storage: {self.uri} is not the run's folder on node {socket.gethostname()}: set storage to a place "
                "that all nodes reach (s3://…, gs://…, or a mounted network folder given as file:///…)"
            )

    def config(self) -> RunConfig:
        """The configuration that the run was started with."""
        file = self.location.child("config.yaml")
        return validate(RunConfig, yaml.safe_load(file.read_bytes()), file.uri)

    def check_resumable(self, config: RunConfig) -> None:
        """Refuse to continue with a configuration that would make it another run.

        Raises:
            ConfigError: keys beside `MAY_CHANGE` differ, all of which are named with both values; or the number of
                epochs changes where the epochs that are over depended on it.
        """
        started = self.config()
        _check_epochs(self.name, started, config)
        changed = changed_keys(started.to_plain(), config.to_plain(), MAY_CHANGE)
        if changed:
            raise ConfigError(
                f"--resume {self.name}: the configuration differs from the one the run was started with:\n  "
                + "\n  ".join(changed)
                + f"\n  only {', '.join(MAY_CHANGE)} may change; start a new run for anything else"
            )

    @property
    def key(self) -> str:
        """What no other run has, also none that takes this one's place later."""
        return str((self.read_json("run.json") or {}).get("key", self.uri))

    def check_same_data(self, digest: str) -> None:
        """Remember the data set of a new run; refuse to continue an old one on another.

        Raises:
            ConfigError: the content of the data set is not that of the run's start.
        """
        known = self.remembered("dataset", digest)
        if known != digest:
            raise ConfigError(
                f"data.path: run {self.name!r} was started on data with digest {known[:12]}…, this data set has "
                f"{digest[:12]}…: point data.path at the same data, or start a new run"
            )

    def remembered(self, what: str, now: str) -> str:
        """What the run's start decided on `what`; if this is the start, that is `now`."""
        content = self.read_json("run.json") or {}
        if what not in content:
            content[what] = now
            self.write_json("run.json", content)
        return str(content[what])


def config_hash(config: RunConfig) -> str:
    """Identity of everything that determines the numbers of a run (not of who computes them, or where they go).

    What is at its default counts for nothing, so that a key that is new leaves the hash of runs begun before it.
    """
    given = leaves(_given(config, config.to_plain()))
    kept = {key: value for key, value in given if not is_among(key, MAY_CHANGE)}
    return hashlib.sha256(json.dumps(kept, sort_keys=True).encode()).hexdigest()


def changed_keys(before: dict[str, Any], after: dict[str, Any], may_change: Sequence[str]) -> list[str]:
    """The keys beside those of `may_change` in which two plain configurations differ, with both values."""
    then, now = dict(leaves(before)), dict(leaves(after))
    return [
        f"{key}: {then.get(key)!r} then, {now.get(key)!r} now"
        for key in sorted(then.keys() | now.keys())
        if then.get(key) != now.get(key) and not is_among(key, may_change)
    ]


def _check_epochs(name: str, started: RunConfig, now: RunConfig) -> None:
    """More or fewer epochs make another run of one whose learning rate follows the course of all epochs, and of one
    that was validated at its last epoch out of turn."""
    before, after = started.training.epochs, now.training.epochs
    if before == after:
        return
    if started.training.optimizer.schedule != "constant":
        raise ConfigError(
            f"--resume {name}: training.epochs={after}, but the run was started with {before} and its schedule "
            f"{started.training.optimizer.schedule!r} stretches over all epochs: keep {before}, or start a new run"
        )
    if min(before, after) % now.evaluation.every:
        raise ConfigError(
            f"--resume {name}: training.epochs changes from {before} to {after}, and epoch {min(before, after)} would "
            f"be validated in one case only (evaluation.every={now.evaluation.every}): choose multiples of it"
        )


def _made_up_name(config: RunConfig) -> str:
    data = Location.of(config.data.path).name
    stamp = datetime.now().strftime("%Y%m%d-%H%M%S")
    return f"{config.model.encoder.kind}-{data}-{stamp}-{secrets.token_hex(2)}"


def _is_name(name: str) -> bool:
    allowed = all(character.isalnum() or character in "-_." for character in name)
    return allowed and name != "" and not name.startswith(".")


def check_name(name: str) -> None:
    """Refuse what cannot be the name of a folder.

    Raises:
        ConfigError: saying what can.
    """
    if not _is_name(name):
        raise ConfigError(f"name: {name!r} must consist of letters, digits, '-', '_' and '.', and not start with a '.'")


def _given(value: Any, plain: Any) -> Any:
    """Of a plain value the keys whose defaults are others, and `kind` everywhere, which says whose keys they are.

    Args:
        value: the same as it was validated.
    """
    if isinstance(value, Strict):
        fields = type(value).model_fields.items()
        kept = [
            name
            for name, field in fields
            if name == "kind" or getattr(value, name) != field.get_default(call_default_factory=True)
        ]
        return {name: _given(getattr(value, name), plain[name]) for name in kept}
    if isinstance(value, Mapping):
        return {name: _given(inner, plain[name]) for name, inner in value.items()}
    if isinstance(value, tuple | list):
        return [_given(inner, of_inner) for inner, of_inner in zip(value, plain, strict=True)]
    return plain
