"""What makes an extraction another one, and settings that say nothing."""

import pytest

from braidrec.config.base import ConfigError
from braidrec.config.extract import ExtractConfig
from braidrec.config.load import validate
from braidrec.features.extract.encoders import build_encoder
from braidrec.features.extract.provenance import key_of, provenance

pytest.importorskip("gensim", reason="the extra `extract` is not installed")
pytest.importorskip("torchvision", reason="the extra `extract` is not installed")
FITTED = {"split": "train", "items": 3, "sha256": "0"}


def configured(**plain) -> ExtractConfig:
    base = {"data": "d", "modality": "m", "encoder": {"kind": "tfidf"}, "source": {"kind": "dataset"}}
    return validate(ExtractConfig, {**base, **plain}, "test")


def key(fitted_on=None, **plain) -> str:
    config = configured(**plain)
    facts = provenance(config, build_encoder(config.encoder, config.limits))
    return key_of({**facts, "fitted_on": fitted_on})


@pytest.mark.parametrize("kind", ["gru_text", "recurrent_audio"])
def test_the_size_of_a_training_step_is_part_of_what_was_learnt(kind):
    base = key(encoder={"kind": kind})
    assert key(encoder={"kind": kind, "train_batch": 7}) != base
    assert key(encoder={"kind": kind, "batch": 7}) == base, "how many are encoded together changes no vector"


def test_weights_count_by_their_content_not_by_their_name(tmp_path):
    (tmp_path / "a.txt").write_text("boat 1 2\n")
    (tmp_path / "b.txt").write_text("boat 1 2\n")
    (tmp_path / "c.txt").write_text("boat 1 3\n")
    keys = [key(encoder={"kind": "word_vectors", "weights": str(tmp_path / f"{name}.txt")}) for name in "abc"]
    assert keys[0] == keys[1] != keys[2]


def test_of_the_limits_only_what_changes_a_vector_makes_another_key():
    image = {"encoder": {"kind": "torchvision", "model": "resnet18"}}
    assert key(**image, limits={"min_side": 9, "max_seconds": 3}) == key(**image)
    sound = {"encoder": {"kind": "log_mel"}}
    assert key(**sound, limits={"min_side": 9}) == key(**sound) != key(**sound, limits={"max_seconds": 3})
    # what an encoder learns from depends on what is broken
    assert key(FITTED, limits={"min_side": 9}) != key(FITTED)


@pytest.mark.parametrize(
    ("plain", "message"),
    [
        ({"source": {"kind": "dataset", "media": "a", "text": ["b"]}}, "media=a and text=.* name one of them"),
        (
            {"source": {"kind": "manifest", "paths": ["m.csv"], "text": ["t"], "folder": "f"}},
            "folder=f is where the addresses in uri start",
        ),
        ({"text": {"separator": " "}}, "source.text names none; remove text"),
        ({"text": {"fill": "?"}}, "source.text names none; remove text"),
    ],
)
def test_settings_without_effect_are_refused(plain, message):
    with pytest.raises(ConfigError, match=message):
        configured(**plain)
