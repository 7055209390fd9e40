"""The raw texts of a data set as the words of its users."""

import numpy as np
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


def words_of_users(config: ADDVAEConfig, folder: DatasetFolder, interactions: Relation) -> UserWords:
    """The vocabulary of train items' texts, and the counts of its words in all items' texts.

    Raises:
        ConfigError: no word is in as many items as is wanted.
        DatasetError: a damaged file.
    """
    texts = _texts(config.text, folder)
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
    return UserWords(Histories(interactions, folder.num_users), counts, vectorizer.get_feature_names_out().tolist())


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
