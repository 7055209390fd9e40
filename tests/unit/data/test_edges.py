"""Relations between items or users come by their own ids, and what does not fit is counted or refused."""

import numpy as np
import pyarrow as pa
import pytest

from braidrec.config.load import ConfigError, load_config
from braidrec.config.prepare import PrepareConfig, RelationConfig
from braidrec.data.description import SPLITS, ProtocolDescription
from braidrec.data.edges import configured_edges, write_edges
from braidrec.data.errors import DatasetError
from braidrec.data.folder import DatasetFolder
from braidrec.data.writer import DatasetWriter

ITEMS = ["7", "12", "a", "b"]


def imported(folder, text, *, name="also_viewed", file="edges.csv", **options):
    """The relation as the data set has it, in ids, and what was left out."""
    path = folder / file
    path.write_text(text)
    writer = DatasetWriter.begin(str(folder / "set"), seed=1)
    writer.write_users(pa.array(["u", "v"]))
    writer.write_items(pa.array(ITEMS))
    for split in SPLITS:
        writer.write_split(split, {"user": np.zeros(1, np.int32), "item": np.zeros(1, np.int32)})
    config = RelationConfig(paths=(str(path),), **options)
    ids = pa.array(ITEMS if config.between == "items" else ["u", "v"])
    dropped = write_edges(configured_edges(name, config), ids, writer)
    writer.finish(name="tiny", protocol=ProtocolDescription(kind="given", seed=1), options={})
    opened = DatasetFolder.open(str(folder / "set"))
    opened.verify()
    sources, destinations, weights = opened.relation(name)
    named = ids.to_pylist()
    edges = [(named[source], named[destination]) for source, destination in zip(sources, destinations, strict=True)]
    return edges, weights, {entry.reason: entry.count for entry in dropped}


def test_ends_are_joined_by_id_in_the_order_of_the_file(tmp_path):
    edges, weights, dropped = imported(tmp_path, "dst,other,src\n12,x,7\n7,x,b\nb,x,12\n")
    assert edges == [("7", "12"), ("b", "7"), ("12", "b")]
    assert weights is None and dropped == {}


def test_what_does_not_belong_is_left_out_and_counted(tmp_path):
    lines = "src,dst\n7,12\n7,gone\ngone,7\na,a\n7,12\n12,7\n"
    edges, _, dropped = imported(tmp_path, lines)
    assert edges == [("7", "12"), ("12", "7")]
    assert dropped == {
        "also_viewed: an end is not among the items of the data set": 2,
        "also_viewed: from a thing to itself": 1,
        "also_viewed: given more than once": 1,
    }


def test_weights_and_users_and_other_names(tmp_path):
    lines = '{"from": "u", "to": "v", "w": 1}\n{"from": "v", "to": "u", "w": 2.5}\n'
    options = {"source": "from", "destination": "to", "weight": "w", "between": "users"}
    edges, weights, _ = imported(tmp_path, lines, name="friends", file="edges.jsonl", **options)
    assert edges == [("u", "v"), ("v", "u")]
    assert weights.tolist() == [1.0, 2.5]
    assert DatasetFolder.open(str(tmp_path / "set")).description.relations["friends"].between == "users"


def test_no_edge_is_left(tmp_path):
    edges, _, dropped = imported(tmp_path, "src,dst\nx,y\n")
    assert edges == [] and sum(dropped.values()) == 1


@pytest.mark.parametrize(
    ("text", "options", "message"),
    [
        ("src,to\n7,12\n", {}, r"edges\.csv: no column 'dst'"),
        ("src,dst\n7,12\n,7\n", {}, r"edges\.csv, line 3: no id in column 'src'"),
        ("src,dst,w\n7,12,1\n12,7,-1\n", {"weight": "w"}, r"line 3: w='-1' is no finite number of at least 0"),
        ("src,dst,w\n7,12,nan\n", {"weight": "w"}, r"line 2: w='nan' is no finite"),
        ("src,dst,w\n7,12,much\n", {"weight": "w"}, r"line 2: w='much' is no finite"),
    ],
)
def test_damage_is_refused(tmp_path, text, options, message):
    with pytest.raises(DatasetError, match=message):
        imported(tmp_path, text, **options)


def test_a_relation_needs_files_and_a_name_that_is_a_folder():
    for settings, message in (("{views: {paths: []}}", "views.paths"), ("{a/b: {paths: [x.csv]}}", "becomes a folder")):
        with pytest.raises(ConfigError, match=message):
            load_config(
                PrepareConfig, [], ["source={kind: table, paths: [a.csv]}", f"relations={settings}", "output=/tmp/x"]
            )
