"""Weights from the hub, its cache, and torchvision: what is whole, what is damaged, what is missing."""

import hashlib
import json

import huggingface_hub
import pytest
import torch

from braidrec.config.base import ConfigError
from braidrec.features.extract import weights

torchvision = pytest.importorskip("torchvision", reason="the extra `extract` is not installed")


class Hub:
    """What `snapshot_download` gives from the cache, and from the network."""

    def __init__(self, cached, online):
        self.cached, self.online, self.asked = cached, online, []

    def __call__(self, name, *, allow_patterns, local_files_only=False):
        assert not any(pattern.endswith((".bin", ".pt", ".pkl")) for pattern in allow_patterns)
        self.asked.append(local_files_only)
        found = self.cached if local_files_only else self.online
        if found is None:
            raise OSError("there is no network")
        return str(found)


def repository(folder, *, config=True, shards=("model.safetensors",), index=None, modules=None):
    folder.mkdir()
    for name in shards:
        (folder / name).write_bytes(b"weights")
    if config:
        (folder / "config.json").write_text("{}")
    if index is not None:
        weight_map = {f"w{number}": name for number, name in enumerate(index)}
        (folder / "model.safetensors.index.json").write_text(json.dumps({"weight_map": weight_map}))
    if modules is not None:
        (folder / "modules.json").write_text(json.dumps(modules))
    return folder


TWO = ("model-1.safetensors", "model-2.safetensors")
POOLED = [
    {"path": "", "type": "x.models.Transformer"}, {"path": "1_Pooling", "type": "x.models.Pooling"},
    {"path": "2_Normalize", "type": "x.models.Normalize"},
]  # fmt: skip


@pytest.mark.parametrize(
    "parts", [{}, {"shards": TWO, "index": TWO}, {"modules": POOLED[:1]}], ids=["one file", "two files", "modules"]
)
def test_a_whole_model_in_the_cache_asks_nobody(monkeypatch, tmp_path, parts):
    hub = Hub(repository(tmp_path / "cached", **parts), None)
    monkeypatch.setattr(huggingface_hub, "snapshot_download", hub)
    assert weights.model_folder("some/model").path == tmp_path / "cached"
    assert hub.asked == [True]


@pytest.mark.parametrize(
    "parts",
    [{"config": False}, {"shards": ()}, {"shards": TWO[:1], "index": TWO}, {"modules": POOLED}],
    ids=["no settings", "no weights", "a part is missing", "a module is missing"],
)
def test_half_a_model_in_the_cache_is_fetched(monkeypatch, tmp_path, parts):
    hub = Hub(repository(tmp_path / "cached", **parts), repository(tmp_path / "online"))
    monkeypatch.setattr(huggingface_hub, "snapshot_download", hub)
    assert weights.model_folder("some/model").path == tmp_path / "online"
    hub.online = None
    with pytest.raises(
        ConfigError, match=r"nor to be downloaded .*there is no network.*encoder.weights=/path/to/model"
    ):
        weights.model_folder("some/model")


def test_a_repository_without_safetensors_is_refused(monkeypatch, tmp_path):
    monkeypatch.setattr(huggingface_hub, "snapshot_download", Hub(None, repository(tmp_path / "online", shards=())))
    with pytest.raises(ConfigError, match=r"no \.safetensors; pickled weights are not read"):
        weights.model_folder("some/model")


def published(monkeypatch, tmp_path, content, promised):
    """torchvision's cache with a file whose name promises a hash."""
    url = f"https://example.org/net-{promised}.pth"
    entry = type("Entry", (), {"url": url})
    monkeypatch.setattr(torchvision.models, "get_weight", lambda name: entry)
    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path))
    if content is not None:
        (tmp_path / "checkpoints").mkdir()
        (tmp_path / "checkpoints" / f"net-{promised}.pth").write_bytes(content)


def test_published_weights_must_have_the_hash_that_their_name_promises(monkeypatch, tmp_path):
    promised = hashlib.sha256(b"whole").hexdigest()[:8]
    published(monkeypatch, tmp_path, b"whole", promised)
    assert weights.torchvision_weights("Net_Weights.V1").sha256.startswith(promised)
    (tmp_path / "checkpoints" / f"net-{promised}.pth").write_bytes(b"cut")
    with pytest.raises(ConfigError, match=r"its name promises .* damaged: delete it"):
        weights.torchvision_weights("Net_Weights.V1")


def test_a_download_is_checked(monkeypatch, tmp_path):
    published(monkeypatch, tmp_path, None, "0" * 8)
    asked = []

    def download(url, file, hash_prefix, progress):
        asked.append(hash_prefix)
        raise RuntimeError('invalid hash value (expected "00000000", got "12345678")')

    monkeypatch.setattr(torch.hub, "download_url_to_file", download)
    with pytest.raises(ConfigError, match=r"not to be downloaded .*invalid hash value"):
        weights.torchvision_weights("Net_Weights.V1")
    assert asked == ["0" * 8]
