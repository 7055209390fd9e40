"""Text encoders: each against a calculation of its own, and the contract that all share."""

import gzip

import numpy as np
import pytest
import tiny_models
import torch
from encoder_checks import TEXTS, check_contract, make, ready

from braidrec.config.base import ConfigError
from braidrec.config.extract import LimitsConfig
from braidrec.features.extract.media import MediaError
from braidrec.features.extract.texts import words_of

pytest.importorskip("gensim", reason="the extra `extract` is not installed")
pytest.importorskip("sentence_transformers", reason="the extra `extract` is not installed")

FITTED = {
    "tfidf": {"kind": "tfidf", "dim": 3, "min_items": 1},
    "word2vec": {"kind": "word2vec", "dim": 12, "min_count": 1, "epochs": 3},
    "word2vec sif": {
        "kind": "word2vec", "dim": 12, "min_count": 1, "algorithm": "cbow", "weighting": "sif", "remove_components": 1,
    },
    "pv_dm": {"kind": "doc2vec", "dim": 12, "min_count": 1, "algorithm": "pv_dm"},
    "pv_dbow": {"kind": "doc2vec", "dim": 12, "min_count": 1},
    "gru autoencoder": {"kind": "gru_text", "dim": 12, "word_dim": 8, "batch": 3, "epochs": 2},
    "gru next token": {"kind": "gru_text", "dim": 12, "word_dim": 8, "objective": "next_token", "epochs": 2},
}  # fmt: skip


@pytest.mark.parametrize("settings", FITTED.values(), ids=FITTED)
def test_fitted_encoders_keep_the_contract(settings):
    check_contract(lambda: make(**settings), TEXTS, settings["dim"])


@pytest.mark.parametrize("settings", FITTED.values(), ids=FITTED)
def test_texts_without_a_known_word_are_zeros(settings):
    encoder, _ = ready(make(**settings), TEXTS)
    vectors = encoder.encode(["zebra xylophone", TEXTS[0], "!!! ???"])
    assert not vectors[0].any() and not vectors[2].any()
    assert vectors[1].any()


@pytest.mark.parametrize("settings", FITTED.values(), ids=FITTED)
def test_a_corpus_from_which_nothing_can_be_learnt_is_refused(settings):
    encoder = make(**{**settings, **({"min_count": 50} if "min_count" in settings else {})})
    with pytest.raises(ConfigError, match=r"encoder\.(kind|min_count|dim)"):
        encoder.fit(["!!!", "???"])


def test_bert_by_cls_and_mean_is_what_the_model_says(tmp_path):
    from transformers import AutoModel, AutoTokenizer

    folder = tiny_models.bert(tmp_path)
    model, tokenizer = AutoModel.from_pretrained(folder).eval(), AutoTokenizer.from_pretrained(folder)
    for pooling in ("cls", "mean"):
        found = check_contract(
            lambda pooling=pooling: make(kind="transformers_text", weights=str(folder), pooling=pooling, batch=3),
            TEXTS[:2] + TEXTS[4:7], 16,
        )  # fmt: skip
        for row, text in zip(found, TEXTS[:2] + TEXTS[4:7], strict=True):
            with torch.no_grad():
                states = model(
                    **tokenizer(text, return_tensors="pt", truncation=True, max_length=32)
                ).last_hidden_state[0]
            expected = states[0] if pooling == "cls" else states.mean(0)
            np.testing.assert_allclose(row, expected.numpy(), atol=1e-5)


def test_sentence_transformers_pools_as_its_folder_says(tmp_path):
    folder = tiny_models.sentence_model(tmp_path)
    texts = TEXTS[:2] + TEXTS[4:7]
    found = check_contract(lambda: make(kind="sentence_transformers", weights=str(folder), batch=2), texts, 16)
    mean, _ = ready(make(kind="transformers_text", weights=str(folder), pooling="mean"), texts)
    np.testing.assert_allclose(found, mean.encode(texts), atol=1e-5)


def test_tfidf_without_svd_is_the_formula():
    texts = ["red boat", "red red train", "green train"]
    encoder, prepared = ready(make(kind="tfidf", dim=None, max_words=100, min_items=1, sublinear=False, batch=2), texts)
    words = sorted(set(" ".join(texts).split()))
    expected = np.zeros((3, len(words)))
    for row, text in enumerate(texts):
        for column, word in enumerate(words):
            frequency = sum(word in other.split() for other in texts)
            expected[row, column] = text.split().count(word) * (1 + np.log((1 + 3) / (1 + frequency)))
        expected[row] /= np.linalg.norm(expected[row])
    np.testing.assert_allclose(encoder.encode(prepared), expected, rtol=1e-6)


def test_word_vectors_are_averaged_and_the_principal_direction_is_taken_out(tmp_path):
    random = np.random.default_rng(1)
    table = {
        word: random.standard_normal(5).astype(np.float32) for word in ("train", "bridge", "green", "the", "поезда")
    }
    file = tmp_path / "vectors.txt"
    file.write_text("".join(f"{word} {' '.join(map(str, vector))}\n" for word, vector in table.items()))
    texts = ["the green train", "the bridge bridge", "ПОЕЗДА!", "green"]
    known = [[table[word] for word in words_of(text)] for text in texts]
    expected = np.stack([np.mean(vectors, 0) for vectors in known])
    plain = check_contract(lambda: make(kind="word_vectors", weights=str(file)), texts, 5)
    np.testing.assert_allclose(plain, expected, rtol=1e-5)
    encoder, prepared = ready(make(kind="word_vectors", weights=str(file), remove_components=1), texts)
    first = np.linalg.svd(expected)[2][0]
    np.testing.assert_allclose(encoder.encode(prepared), expected - np.outer(expected @ first, first), atol=1e-5)


def test_sif_weighs_by_frequency(tmp_path):
    file = tmp_path / "vectors.txt"
    file.write_text("the 1 0\ntrain 0 1\n")
    texts = ["the the the train"]
    encoder, prepared = ready(make(kind="word_vectors", weights=str(file), weighting="sif"), texts)
    weights = {word: 1e-3 / (1e-3 + share) for word, share in (("the", 0.75), ("train", 0.25))}
    np.testing.assert_allclose(encoder.encode(prepared)[0], [3 * weights["the"] / 4, weights["train"] / 4], rtol=1e-5)


def test_text_and_binary_files_and_gzip_give_the_same_vectors(tmp_path):
    from gensim.models import KeyedVectors

    from braidrec.features.extract.encoders.text_vectors import read_word_vectors

    vectors = KeyedVectors(4)
    rows = np.random.default_rng(0).standard_normal((3, 4)).astype(np.float32)
    vectors.add_vectors(["boat", "Zug", "поезд"], rows)
    vectors.save_word2vec_format(tmp_path / "v.bin", binary=True)
    vectors.save_word2vec_format(tmp_path / "v.vec", binary=False)
    with gzip.open(tmp_path / "v.vec.gz", "wb") as stream:
        stream.write((tmp_path / "v.vec").read_bytes())
    for name in ("v.bin", "v.vec", "v.vec.gz"):
        found = dict(read_word_vectors(tmp_path / name))
        assert list(found) == ["boat", "zug", "поезд"]
        np.testing.assert_allclose(np.stack(list(found.values())), rows, rtol=1e-5)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"a 1 2\nb 1\n", "line 2: no word with 2 numbers"),
        (b"a 1 x\n", "line 1"),
        (b"a 1 nan\n", "line 1"),
        (b"", "no word"),
    ],
)
def test_broken_word_vector_files_are_refused_with_the_line(tmp_path, content, message):
    file = tmp_path / "v.txt"
    file.write_bytes(content)
    with pytest.raises(ConfigError, match=message):
        make(kind="word_vectors", weights=str(file)).fit(["a b"])


def test_a_truncated_binary_file_is_refused(tmp_path):
    file = tmp_path / "v.bin"
    file.write_bytes(b"2 3\nboat " + np.ones(3, "<f4").tobytes() + b"\ntrain \x00\x00")
    with pytest.raises(ConfigError, match="ends at word 1 of 2"):
        make(kind="word_vectors", weights=str(file)).fit(["boat"])


@pytest.mark.parametrize(
    ("raw", "reason"),
    [("", "empty text"), (" \t\n ", "empty text"), (b"\xff\xfe\x00", "not UTF-8"), ("x" * 200_001, "text too long")],
)
def test_odd_texts_are_rejected_with_their_reason(raw, reason):
    with pytest.raises(MediaError) as refused:
        make(kind="tfidf").prepare(raw)
    assert refused.value.reason == reason
    assert make(LimitsConfig(max_characters=10**6), kind="tfidf").prepare("x" * 10**6)


def test_a_long_text_costs_a_model_no_more_than_it_can_read(tmp_path):
    folder = tiny_models.bert(tmp_path)
    encoder, prepared = ready(make(kind="transformers_text", weights=str(folder)), ["green train " * 10_000, "the"])
    np.testing.assert_allclose(encoder.encode(prepared)[0], encoder.encode(["green train " * 40])[0], atol=1e-6)
