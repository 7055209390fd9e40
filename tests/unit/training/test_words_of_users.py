"""The words of a data set's users: read from the texts once a node, and by everybody else from what was stored."""

from pathlib import Path

import numpy as np
import pytest
import torch
from history_world import write_history_folder
from sklearn.feature_extraction.text import TfidfVectorizer

from braidrec.config.load import ConfigError
from braidrec.config.systems.addvae import ADDVAEConfig
from braidrec.data.folder import DatasetFolder
from braidrec.data.storage import read_parquet
from braidrec.graph.user_words import UserWords
from braidrec.training import words as words_module
from braidrec.training.context import SingleProcess
from braidrec.training.words import words_of_users
from braidrec.training.world import load_interactions

CONFIG = ADDVAEConfig(max_words=30)


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> DatasetFolder:
    return write_history_folder(tmp_path_factory.mktemp("words") / "data", users=40, interactions=400).folder


def words(data: DatasetFolder, cache: Path, config: ADDVAEConfig = CONFIG) -> UserWords:
    context = SingleProcess()
    return words_of_users(config, data, load_interactions(data, context, cache), context, cache)


def dense(found: UserWords) -> np.ndarray:
    rows = found.rows(None)
    matrix = np.zeros((rows.num_rows, found.num_words))
    matrix[rows.rows.numpy(), rows.columns.numpy()] = rows.weights.numpy()
    return matrix


def test_stored_words_are_those_of_the_texts(
    data: DatasetFolder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = words(data, tmp_path)
    table = read_parquet(data.location.child("media/text.parquet"), ["item", "text"])
    texts = dict(zip(table.column("item").to_pylist(), table.column("text").to_pylist(), strict=True))
    users, items = data.edges("train")
    documents = [" ".join(texts.get(item) or "" for item in items[users == user]) for user in range(data.num_users)]
    by_sklearn = TfidfVectorizer(vocabulary=list(first.vocabulary), token_pattern=r"\S+").fit(
        [document for user, document in enumerate(documents) if (users == user).any()]
    )
    np.testing.assert_allclose(dense(first), by_sklearn.transform(documents).toarray(), atol=1e-6)
    assert first.num_words == 30 and dense(first).any()

    monkeypatch.setattr(words_module, "_texts", lambda name, folder: pytest.fail("the texts were read again"))
    second = words(data, tmp_path)
    assert second.vocabulary == first.vocabulary
    np.testing.assert_array_equal(second.idf, first.idf)
    np.testing.assert_array_equal(dense(second), dense(first))
    some = torch.tensor([7, 0, 3])
    assert torch.equal(second.rows(some).weights, first.rows(some).weights)


def test_other_settings_have_words_of_their_own(data: DatasetFolder, tmp_path: Path) -> None:
    assert words(data, tmp_path).num_words == 30
    assert words(data, tmp_path, ADDVAEConfig(max_words=20)).num_words == 20
    for _ in range(2):  # nothing is left of the first attempt
        with pytest.raises(ConfigError, match="have no word in common"):
            words(data, tmp_path, ADDVAEConfig(min_items=10_000))


@pytest.mark.parametrize("file", ["idf.npy", "indices.npy"])
def test_damaged_words_are_made_again(data: DatasetFolder, tmp_path: Path, file: str) -> None:
    whole = dense(words(data, tmp_path))
    (folder,) = [manifest.parent for manifest in tmp_path.glob("*/words.json")]
    (folder / file).write_bytes((folder / file).read_bytes()[:-8])
    with pytest.warns(UserWarning, match="bytes, .* were written; the table of words is built again"):
        again = words(data, tmp_path)
    np.testing.assert_array_equal(dense(again), whole)
