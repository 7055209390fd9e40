"""The raw texts of a data set as the words of its users."""

from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import scipy.sparse
from sklearn.feature_extraction.text import CountVectorizer

from braidrec.config.load import ConfigError
from braidrec.config.systems.addvae import ADDVAEConfig
from braidrec.data.errors import DatasetError
from braidrec.data.folder import PREPARE_AGAIN, DatasetFolder
from braidrec.data.storage import read_parquet
from braidrec.features.extract.texts import words_of
from braidrec.graph.histories import Histories
from braidrec.graph.relation import Relation
from braidrec.graph.user_words import UserWords
from braidrec.mapped import DamagedError, Draft, Mapped, once_per_node, shared_arrays
from braidrec.training.context import Collectives

FORMAT = "braidrec-words-1"
MANIFEST = "words.json"
COUNTS = ("indptr", "indices", "data")
"""The arrays of the counts, `[num_items, num_words]` by rows."""


def words_of_users(
    config: ADDVAEConfig, folder: DatasetFolder, interactions: Relation, context: Collectives, cache: Path
) -> UserWords:
    """The vocabulary of train items' texts, and the counts of its words in all items' texts, one copy a node.

    Args:
        context: this worker; the first of a node reads the texts.
        cache: the node's cache folder.
    Raises:
        ConfigError: no word is in as many items as is wanted.
        DatasetError: a damaged file.
    Warns:
        UserWarning: stored words are damaged. They are made again.
    """
    histories = Histories(interactions, folder.num_users)
    key = f"{FORMAT}:{config.max_words}:{config.min_items}:{folder.digest}:{config.text}"
    make = partial(
        shared_arrays,
        cache,
        key,
        lambda draft: _store(draft, _counted(config, folder, histories)),
        lambda mapped: _words_of(mapped, histories, folder.num_items),
        manifest=MANIFEST,
        what="table of words",
    )
    return once_per_node(make, local_rank=context.local_rank, barrier=context.barrier)


def _store(draft: Draft, words: UserWords) -> Mapping[str, Any]:
    for name in COUNTS:
        draft.save(f"{name}.npy", getattr(words.counts, name))
    draft.save("idf.npy", words.idf)
    return {"vocabulary": words.vocabulary}


def _words_of(mapped: Mapped, histories: Histories, num_items: int) -> UserWords:
    try:
        vocabulary, idf = mapped.facts["vocabulary"], np.asarray(mapped.arrays["idf.npy"])
        indptr, indices, data = (np.asarray(mapped.arrays[f"{name}.npy"]) for name in COUNTS)
    except KeyError as error:
        raise DamagedError(f"{mapped.folder} is damaged ({error})") from error
    if len(indptr) != num_items + 1 or not indptr[-1] == len(indices) == len(data) or len(idf) != len(vocabulary):
        raise DamagedError(f"{mapped.folder}: its files do not belong together")
    counts = scipy.sparse.csr_matrix((data, indices, indptr), shape=(num_items, len(vocabulary)))
    return UserWords(histories, counts, vocabulary, idf=idf)


def _counted(config: ADDVAEConfig, folder: DatasetFolder, histories: Histories) -> UserWords:
    texts = _texts(config.text, folder)
    interactions = histories.interactions
    in_train = (interactions.in_degree[folder.num_users :] > 0).numpy()
    vectorizer = CountVectorizer(
        tokenizer=words_of, token_pattern=None, lowercase=False, max_features=config.max_words, min_df=config.min_items
    )
    learnt_from = [text for text, trained in zip(texts, in_train, strict=True) if trained and text]
    try:
        vectorizer.fit(learnt_from)
    except ValueError as error:
        raise ConfigError(
            f"model.encoder.text={config.text!r}: {len(learnt_from):,} texts of train items have no word in common "
            f"({error}); lower model.encoder.min_items={config.min_items}"
        ) from None
    counts = vectorizer.transform(texts).tocsr()
    return UserWords(histories, counts, vectorizer.get_feature_names_out().tolist())


def _texts(name: str, folder: DatasetFolder) -> list[str]:
    """The text of every item, empty where there is none."""
    file = folder.location.child(f"media/{name}.parquet")
    table = read_parquet(file, ["item", "text"])
    items = table.column("item").to_numpy()
    if len(items) and not 0 <= items.min() <= items.max() < folder.num_items:
        raise DatasetError(f"{file.uri}: item {int(items.max())} is outside 0…{folder.num_items - 1}; {PREPARE_AGAIN}")
    texts = np.full(folder.num_items, "", dtype=object)
    texts[items] = [text or "" for text in table.column("text").to_pylist()]
    return list(texts)
