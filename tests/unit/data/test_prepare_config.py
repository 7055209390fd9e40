"""Wishes that contradict each other are refused by the configuration itself, with the mend."""

import pytest

from braidrec.config.load import ConfigError, load_config
from braidrec.config.prepare import MMRecSourceConfig, PrepareConfig

MINIMAL = ["output=set", "source={kind: table, paths: [log.csv]}"]


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["source.paths=[]"], "paths is empty: name at least one file"),
        (["source.colums={user: u}"], r"colums: unknown key\. Did you mean '?columns'?\?"),
        (["split={kind: cold_users}"], r"cold_users holds users out of train.*set unknown_users=keep"),
        (["split={kind: random_ratio, valid: 0.5, test: 0.5}"], r"valid=0\.5 and test=0\.5 leave nothing to train on"),
        (["split={kind: random, valid: 0.2}"], "valid: unknown key"),
        (["split={kind: global_moment, valid_from: 5, test_from: 3}"], "valid_from=5 is after test_from=3"),
        (["features.text={vectors: f.npy}"], r"a \.npy has no ids; name a file with the id of each row in `ids`"),
        (["features.text={vectors: f.parquet, ids: i.txt}"], "a Parquet file brings its ids in `id_column`"),
        (["features.text={vectors: f.pt}"], r"must end in \.npy or \.parquet"),
        (["source={kind: given_files, train: [a.csv], test: []}"], "train and test need at least one file each"),
        (
            ["source={kind: given_files, train: [a.csv], test: [b.csv], columns: {split: s}}"],
            r"columns\.split='s': the files already say the split",
        ),
        (["core.users=0"], r"core\.users: .*greater than 0"),
        (["seed='7'"], r"seed: .*integer"),
    ],
)
def test_contradictions_are_refused(overrides, message):
    base = ["output=set"] if overrides[0].startswith("source={") else MINIMAL
    with pytest.raises(ConfigError, match=message):
        load_config(PrepareConfig, [], [*base, *overrides])


def test_mmrec_columns_can_be_overridden_one_by_one():
    source = load_config(
        PrepareConfig, [], ["output=set", "source={kind: mmrec, path: x, columns: {rating: stars}}"]
    ).source
    assert isinstance(source, MMRecSourceConfig)
    assert (source.columns.user, source.columns.item, source.columns.rating) == ("userID", "itemID", "stars")


def test_names_of_folders_lead_nowhere_else():
    for key in ("features", "user_features", "media"):
        with pytest.raises(ConfigError, match=rf"{key}\.\.\./x: '\.\./x' becomes a folder: letters"):
            load_config(PrepareConfig, [], [f"{key}={{../x: {{}}}}", "output=/tmp/x"])
