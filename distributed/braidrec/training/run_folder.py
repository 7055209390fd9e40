"""A run's own folder: its name, its stored configuration, and the lease that keeps a second process out."""

import hashlib
import json
import os
import secrets
import socket
import threading
import time
from datetime import datetime
from typing import Any

import psutil
import yaml

from braidrec.config.load import ConfigError, to_yaml, validate
from braidrec.config.run import RunConfig
from braidrec.data.storage import Location

MAY_CHANGE = (
    "storage",
    "cache",
    "name",
    "data.path",
    "data.delivery",
    "data.memory_limit_mb",
    "training.epochs",
    "workers",
    "tracking",
)
"""Keys that may differ when a run is resumed: who computes, how long, and where things are."""

HEARTBEAT_SECONDS = 5.0
LEASE_SECONDS = 60.0


class RunFolder:
    """`<storage>/<name>/` with config.yaml, lease.json, checkpoints/, metrics.jsonl, per_user/, result.json."""

    def __init__(self, location: Location) -> None:
        self.location = location

    @property
    def name(self) -> str:
        return self.location.name

    @property
    def uri(self) -> str:
        return self.location.uri

    @property
    def checkpoints(self) -> Location:
        return self.location.child("checkpoints")

    @classmethod
    def create(cls, config: RunConfig) -> "RunFolder":
        """A new run.

        Raises:
            ConfigError: the name is taken.
        """
        name = config.name or _made_up_name(config)
        _check_name(name)
        folder = cls(Location.of(config.storage).child(name))
        if folder.location.child("config.yaml").is_file():
            raise ConfigError(
                f"name: a run {name!r} exists in {Location.of(config.storage).uri}; "
                f"continue it with --resume {name}, or choose another name"
            )
        folder.location.child("config.yaml").write_bytes(to_yaml(config).encode())
        return folder

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

    def config(self) -> RunConfig:
        """The configuration that the run was started with."""
        file = self.location.child("config.yaml")
        return validate(RunConfig, yaml.safe_load(file.read_bytes()), file.uri)

    def check_resumable(self, config: RunConfig) -> None:
        """Refuse to continue with a configuration that would make it another run.

        Raises:
            ConfigError: keys beside `MAY_CHANGE` differ; all of them are named with both values.
        """
        before, after = _flat(self.config().to_plain()), _flat(config.to_plain())
        changed = [
            f"{key}: {before.get(key)!r} then, {after.get(key)!r} now"
            for key in sorted(before.keys() | after.keys())
            if before.get(key) != after.get(key)
            and not any(key == may or key.startswith(f"{may}.") for may in MAY_CHANGE)
        ]
        if changed:
            raise ConfigError(
                f"--resume {self.name}: the configuration differs from the one the run was started with:\n  "
                + "\n  ".join(changed)
                + f"\n  only {', '.join(MAY_CHANGE)} may change; start a new run for anything else"
            )

    def check_same_data(self, digest: str) -> None:
        """Remember the data set of a new run; refuse to continue an old one on another.

        Raises:
            ConfigError: the content of the data set is not that of the run's start.
        """
        known = self.read_json("dataset.json")
        if known is None:
            self.write_json("dataset.json", {"digest": digest})
        elif known["digest"] != digest:
            raise ConfigError(
                f"data.path: run {self.name!r} was started on data with digest {known['digest'][:12]}…, this "
                f"data set has {digest[:12]}…: point data.path at the same data, or start a new run"
            )

    def write_json(self, file: str, content: dict[str, Any]) -> None:
        """Store a small JSON file."""
        self.location.child(file).write_bytes(json.dumps(content, indent=1).encode())

    def read_json(self, file: str) -> dict[str, Any] | None:
        """A small JSON file, or None if there is none."""
        location = self.location.child(file)
        if not location.is_file():
            return None
        content: dict[str, Any] = json.loads(location.read_bytes())
        return content


class Lease:
    """Only one process writes a run. The owner renews a heartbeat; who finds an old one takes over.

    An owner on the same host counts as gone as soon as its process is; one on another host when its heartbeat is more
    than `LEASE_SECONDS` old.
    """

    def __init__(self, folder: RunFolder) -> None:
        self._file = folder.location.child("lease.json")
        self._name = folder.name
        self._token = secrets.token_hex(8)
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._beat, name="run-lease", daemon=True)

    def __enter__(self) -> "Lease":
        owner = self._living_owner()
        if owner is not None:
            raise ConfigError(
                f"run {self._name!r} is being written by process {owner['pid']} on {owner['host']} "
                f"(heartbeat {time.time() - owner['heartbeat']:.0f} s ago); wait for it, stop it, or use another name"
            )
        self._write()
        holder = json.loads(self._file.read_bytes())
        if holder["token"] != self._token:
            raise ConfigError(f"run {self._name!r} was taken by another process at the same moment; use another name")
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join()
        self._file.remove()

    def _beat(self) -> None:
        while not self._stop.wait(HEARTBEAT_SECONDS):
            self._write()

    def _write(self) -> None:
        content = {
            "token": self._token,
            "host": socket.gethostname(),
            "pid": os.getpid(),
            "process_started": psutil.Process().create_time(),
            "heartbeat": time.time(),
        }
        self._file.write_bytes(json.dumps(content).encode())

    def _living_owner(self) -> dict[str, Any] | None:
        if not self._file.is_file():
            return None
        try:
            owner: dict[str, Any] = json.loads(self._file.read_bytes())
        except ValueError:
            return None  # cut off while it was written: its owner died
        if owner["host"] == socket.gethostname():
            return owner if _is_alive(owner["pid"], owner["process_started"]) else None
        return owner if time.time() - owner["heartbeat"] < LEASE_SECONDS else None


def config_hash(config: RunConfig) -> str:
    """Identity of everything that determines the numbers of a run (not of who computes them, or where they go)."""
    flat = _flat(config.to_plain())
    kept = {k: v for k, v in flat.items() if not any(k == may or k.startswith(f"{may}.") for may in MAY_CHANGE)}
    return hashlib.sha256(json.dumps(kept, sort_keys=True).encode()).hexdigest()


def _is_alive(pid: int, started: float) -> bool:
    try:
        return abs(psutil.Process(pid).create_time() - started) < 1.0
    except psutil.Error:
        return False


def _made_up_name(config: RunConfig) -> str:
    data = Location.of(config.data.path).name
    stamp = datetime.now().strftime("%Y%m%d-%H%M%S")
    return f"{config.model.encoder.kind}-{data}-{stamp}-{secrets.token_hex(2)}"


def _is_name(name: str) -> bool:
    allowed = all(character.isalnum() or character in "-_." for character in name)
    return allowed and name != "" and not name.startswith(".")


def _check_name(name: str) -> None:
    if not _is_name(name):
        raise ConfigError(f"name: {name!r} must consist of letters, digits, '-', '_' and '.', and not start with a '.'")


def _flat(value: Any, key: str = "") -> dict[str, Any]:
    if isinstance(value, dict) and value:
        return {
            k: v for name, inner in value.items() for k, v in _flat(inner, f"{key}.{name}" if key else name).items()
        }
    return {key: value}
