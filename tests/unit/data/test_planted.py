"""The planted data set has the structure that it promises."""

import numpy as np
import pytest

from braidrec.data.planted import generate_planted


def recall(folder, scores, split="test", k=20):
    """Mean over users of hits in the top k / held-out items, train items taken out; plain loops."""
    seen = {}
    for user, item in zip(*folder.edges("train"), strict=True):
        seen.setdefault(int(user), set()).add(int(item))
    held_out = {}
    for user, item in zip(*folder.edges(split), strict=True):
        held_out.setdefault(int(user), set()).add(int(item))
    values = []
    for user, wanted in held_out.items():
        ranked = [item for item in np.argsort(-scores[user], kind="stable") if item not in seen.get(user, set())]
        values.append(len(wanted & set(ranked[:k])) / len(wanted))
    return float(np.mean(values))


def popularity(folder):
    return np.tile(np.bincount(folder.edges("train")[1], minlength=folder.num_items), (folder.num_users, 1))


@pytest.fixture(scope="module")
def planted(tmp_path_factory):
    return generate_planted(str(tmp_path_factory.mktemp("planted") / "set"))


def test_knowing_the_topics_beats_popularity_clearly(planted):
    folder = planted.folder
    popular = popularity(folder)
    oracle = planted.user_likes[:, planted.item_topics] + popular / (popular.max() + 1)
    assert recall(folder, oracle) > 3 * recall(folder, popular) > 0


def test_sizes_ids_and_columns(planted):
    folder = planted.folder
    folder.verify()
    assert (folder.num_users, folder.num_items) == (600, 400)
    assert folder.user_ids()[7].as_py() == "user-007"
    assert folder.item_ids()[42].as_py() == "item-042"
    rows = [folder.num_rows(split) for split in ("train", "valid", "test")]
    assert 11_000 < sum(rows) <= 12_000
    assert 0.07 < rows[2] / sum(rows) < 0.13
    pairs = [set(zip(*folder.edges(split), strict=True)) for split in ("train", "valid", "test")]
    assert sum(map(len, pairs)) == len(set.union(*pairs)) == sum(rows)
    assert set(np.unique(folder.column("train", "rating"))) == {1, 2, 3, 4, 5}
    assert folder.column("train", "timestamp").min() > 1_500_000_000
    trained = set(folder.edges("train")[0].tolist())
    assert set(folder.edges("test")[0].tolist()) <= trained


def test_ratings_tell_liked_from_not(planted):
    users, items = planted.folder.edges("train")
    liked = planted.user_likes[users, planted.item_topics[items]]
    ratings = planted.folder.column("train", "rating")
    assert ratings[liked].mean() - ratings[~liked].mean() > 1.5
    assert 0.85 < liked.mean() < 0.97


def nearest_centre_accuracy(planted, modality):
    """Share of items whose vector is closest to their topic's mean, the mean taken without the item."""
    items, vectors = planted.folder.features(modality)
    topics = planted.item_topics[items]
    correct = 0
    for row in range(len(items)):
        others = np.arange(len(items)) != row
        centres = [vectors[others & (topics == topic)].mean(0) for topic in range(planted.user_likes.shape[1])]
        correct += int(np.argmin([np.linalg.norm(vectors[row] - centre) for centre in centres]) == topics[row])
    return correct / len(items)


def test_only_informative_modalities_reveal_topics(planted, tmp_path):
    assert nearest_centre_accuracy(planted, "image") > 0.9
    one = generate_planted(str(tmp_path / "one"), modalities={"image": 32, "sound": 16}, informative=("sound",))
    assert nearest_centre_accuracy(one, "sound") > 0.9
    assert nearest_centre_accuracy(one, "image") < 0.3  # chance is 1 in 8
    assert one.folder.description.modalities["image"].provenance["informative"] is False


def test_some_items_lack_a_modality(planted):
    image, text = (set(planted.folder.features(name)[0].tolist()) for name in ("image", "text"))
    assert len(image) == len(text) == 360
    assert image != text
    assert planted.folder.description.modalities["text"].coverage == 0.9


def test_cold_items_are_never_in_train_and_only_topics_rank_them(tmp_path):
    planted = generate_planted(str(tmp_path / "cold"), cold_items=0.2)
    folder = planted.folder
    train, valid, test = (set(folder.edges(split)[1].tolist()) for split in ("train", "valid", "test"))
    assert not train & (valid | test)
    assert not valid & test
    assert abs(len(valid) - 40) <= 2
    assert recall(folder, popularity(folder)) < 0.1
    assert recall(folder, planted.user_likes[:, planted.item_topics].astype(float), k=100) > 0.5


def test_the_seed_decides_everything(tmp_path):
    digests = [
        generate_planted(str(tmp_path / name), seed=seed, num_users=50, num_interactions=600).folder.digest
        for name, seed in (("a", 3), ("b", 3), ("c", 4))
    ]
    assert digests[0] == digests[1] != digests[2]


def test_wrong_wishes_are_refused(tmp_path):
    with pytest.raises(ValueError, match=r"informative=\['smell'\]: not among the modalities"):
        generate_planted(str(tmp_path / "a"), informative=("smell",))
    with pytest.raises(ValueError, match=r"num_topics=9: must be from 2 to num_items \(8\)"):
        generate_planted(str(tmp_path / "a"), num_items=8, num_topics=9)
