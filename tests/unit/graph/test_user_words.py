"""Users' TF-IDF against scikit-learn on one text a user, put together from those of his items."""

import numpy as np
import pytest
import scipy.sparse
import torch
from sklearn.feature_extraction.text import CountVectorizer, TfidfVectorizer

from braidrec.graph import user_words
from braidrec.graph.build import build_interactions
from braidrec.graph.histories import Histories
from braidrec.graph.user_words import UserWords

TEXTS = ["red red shoe", "blue shoe", "", "green hat hat", "red hat", "coat"]
USERS = np.array([0, 0, 1, 1, 2, 4, 4, 4])
ITEMS = np.array([0, 1, 3, 0, 2, 4, 3, 1])
"""User 2 has an item without a text, user 3 has nothing; nobody has the coat."""


def make() -> tuple[UserWords, CountVectorizer]:
    vectorizer = CountVectorizer().fit(TEXTS)
    histories = Histories(build_interactions(USERS, ITEMS, 5, 6), 5)
    words = vectorizer.get_feature_names_out().tolist()
    return UserWords(histories, vectorizer.transform(TEXTS).tocsr(), words), vectorizer


@pytest.mark.parametrize("at_once", [2, 100])
def test_like_one_text_a_user(monkeypatch: pytest.MonkeyPatch, at_once: int) -> None:
    monkeypatch.setattr(user_words, "USERS_AT_ONCE", at_once)
    words, vectorizer = make()
    joined = [" ".join(TEXTS[item] for item in ITEMS[user == USERS]) for user in (0, 1, 2, 4)]
    expected = TfidfVectorizer(vocabulary=vectorizer.vocabulary_).fit(joined)
    np.testing.assert_allclose(words.idf, expected.idf_)
    for users in (None, torch.tensor([4, 3, 0, 2])):
        found = words.rows(users)
        asked = range(5) if users is None else users.tolist()
        matrix = scipy.sparse.csr_matrix(
            (found.weights.numpy(), found.columns.numpy(), found.offsets.numpy()), shape=(len(asked), words.num_words)
        )
        documents = [" ".join(TEXTS[item] for item in ITEMS[user == USERS]) for user in asked]
        np.testing.assert_allclose(matrix.toarray(), expected.transform(documents).toarray(), rtol=1e-6)
        assert matrix[list(asked).index(2)].nnz == matrix[list(asked).index(3)].nnz == 0
    assert words.vocabulary == ("blue", "coat", "green", "hat", "red", "shoe")
