"""Manifests: texts joined from fields, rows joined to items, and what is done already."""

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from braidrec.config.extract import ExtractConfig, LimitsConfig, TextFieldsConfig
from braidrec.config.load import ConfigError, validate
from braidrec.data.description import ProtocolDescription
from braidrec.data.errors import DatasetError
from braidrec.data.folder import DatasetFolder
from braidrec.data.storage import Location
from braidrec.data.writer import DatasetWriter, write_table
from braidrec.features.extract.columns import media_columns, media_of, vector_column
from braidrec.features.extract.ledger import (
    LEDGER_SCHEMA,
    Ledger,
    ledger_name,
    limits_text,
    next_generation,
    read_ledger,
    work_name,
)
from braidrec.features.extract.manifest import Manifest, open_manifest, plan_rows

LIMITS = LimitsConfig()


@pytest.fixture
def folder(tmp_path):
    writer = DatasetWriter.begin(str(tmp_path / "set"), seed=1)
    writer.write_users(pa.array(["u"]))
    writer.write_items(pa.array(["1", "2", "10", "x"]), {"title": pa.array(["a", None, "c", "d"])})
    for split in ("train", "valid", "test"):
        writer.write_split(split, {"user": np.zeros(1, np.int32), "item": np.zeros(1, np.int32)})
    writer.finish(name="tiny", protocol=ProtocolDescription(kind="given", seed=1), options={})
    return DatasetFolder.open(str(tmp_path / "set"))


def configured(folder, /, **source):
    plain = {"data": folder.path, "modality": "m", "encoder": {"kind": "tfidf"}, "source": source}
    return validate(ExtractConfig, plain, "test")


TABLE = {"title": ["x", " ", None, "y", None], "brand": ["p", "q", "", None, "\t"], "plot": ["1", "2", "3", "4", None]}


def naive_join(row, fields, settings):
    """One row in plain Python."""
    for name in fields:
        if name in settings.required and not (row[name] or "").strip():
            return None, f"empty field {name}"
    parts = []
    for name in fields:
        text = (row[name] or "").strip() or settings.fill or ""
        if text:
            parts.append(settings.prefixes.get(name, "") + text)
    joined = settings.separator.join(parts)
    return (joined, None) if joined.strip() else (None, "empty text")


@pytest.mark.parametrize(
    "settings",
    [
        TextFieldsConfig(),
        TextFieldsConfig(separator=" | ", prefixes={"brand": "by "}),
        TextFieldsConfig(fill="unknown", prefixes={"title": "T: "}),
        TextFieldsConfig(required=("plot",)),
        TextFieldsConfig(required=("title", "brand"), fill="?"),
    ],
)
@pytest.mark.parametrize("fields", [("title", "brand", "plot"), ("brand",), ("plot", "title")])
def test_fields_are_joined_as_a_loop_joins_them(settings, fields):
    manifest = Manifest(files=(), id_column="id", by_index=False, form="text", columns=fields, text=settings)
    for table in (pa.table(TABLE), pa.table(TABLE).slice(1, 3)):
        found = list(zip(*(column.to_pylist() for column in manifest.values(table)), strict=True))
        assert found == [naive_join(row, fields, settings) for row in table.to_pylist()]


def test_rows_are_joined_by_id_and_the_first_row_of_an_item_counts(folder, tmp_path):
    (tmp_path / "a.csv").write_text("item_id,text\n10,c\nstranger,s\n1,a\n10,again\n")
    (tmp_path / "b.csv").write_text("item_id,text\n1,later\nx,d\n")
    paths = [str(tmp_path / "a.csv"), str(tmp_path / "b.csv")]
    manifest = open_manifest(configured(folder, kind="manifest", paths=paths, text=["text"]), folder)
    plan = plan_rows(manifest, folder)
    assert [rows.tolist() for rows in plan.items] == [[2, -1, 0, -1], [-1, 3]]
    assert plan.unknown == 1
    assert [item for item, _ in plan.duplicates] == [2, 0]
    assert plan.duplicates[0][1].endswith("a.csv, line 5")
    assert plan.wanted.tolist() == [0, 2, 3]


def test_whole_numbers_as_ids_meet_the_ids_of_the_log(folder, tmp_path):
    write_table(Location.of(tmp_path / "m.parquet"), pa.table({"item_id": [10, 2], "text": ["a", "b"]}))
    source = {"kind": "manifest", "paths": [str(tmp_path / "m.parquet")], "text": ["text"]}
    plan = plan_rows(open_manifest(configured(folder, **source), folder), folder)
    assert plan.items[0].tolist() == [2, 1]


def test_manifests_that_cannot_be_used_are_refused(folder, tmp_path):
    (tmp_path / "m.csv").write_text("item_id,text\nnobody,c\n")
    source = {"kind": "manifest", "paths": [str(tmp_path / "m.csv")], "text": ["text"]}
    with pytest.raises(DatasetError, match=r"none of its rows \(such as item_id='nobody'\).*such as '1'"):
        plan_rows(open_manifest(configured(folder, **source), folder), folder)
    with pytest.raises(DatasetError, match=r"no column 'txt'\. Did you mean 'text'"):
        open_manifest(configured(folder, **{**source, "text": ["txt"]}), folder)
    (tmp_path / "m.csv").write_text("item_id,text\n1,a\n,b\n")
    with pytest.raises(DatasetError, match=r"m\.csv, line 3: no item id"):
        plan_rows(open_manifest(configured(folder, **source), folder), folder)
    with pytest.raises(ConfigError, match="name exactly one of uri, bytes and text"):
        configured(folder, **source, uri="file")
    with pytest.raises(ConfigError, match="'titel' is none of the columns"):
        validate(
            ExtractConfig,
            {
                "data": "d", "modality": "m", "encoder": {"kind": "tfidf"}, "source": source,
                "text": {"required": ["titel"]},
            },
            "test",
        )  # fmt: skip


def test_relative_addresses_start_beside_their_own_manifest(folder, tmp_path):
    for name, item in (("one", "1"), ("two", "x")):
        (tmp_path / name).mkdir()
        (tmp_path / name / "m.csv").write_text(f"item_id,file\n{item},a.png\n")
    paths = [str(tmp_path / name / "m.csv") for name in ("one", "two")]
    source = {"kind": "manifest", "paths": paths, "uri": "file"}
    bases = open_manifest(configured(folder, **source), folder).bases
    assert [base.path for base in bases] == [str(tmp_path / "one"), str(tmp_path / "two")]
    bases = open_manifest(configured(folder, **source, folder=str(tmp_path)), folder).bases
    assert [base.path for base in bases] == [str(tmp_path)] * 2


def joined(table, fields):
    manifest = Manifest(files=(), id_column="id", by_index=False, form="text", columns=fields, text=TextFieldsConfig())
    return list(zip(*(column.to_pylist() for column in manifest.values(table)), strict=True))


@pytest.mark.parametrize("kind", [pa.list_(pa.string()), pa.large_list(pa.string())])
def test_a_list_loses_its_nulls_and_nothing_else(kind):
    lists = pa.array([["x"], ["a", None, "b"], None, [], [None], ["c"]], kind)
    for start in (0, 1):
        found = joined(pa.table({"tags": lists}).slice(start), ("tags",))
        nothing = (None, "empty text")
        assert found == [("x", None), ("a, b", None), nothing, nothing, nothing, ("c", None)][start:]


@pytest.mark.parametrize("kind", [pa.string(), pa.binary(), pa.large_string()])
def test_bytes_that_are_not_utf8_reject_their_own_row(kind):
    raw = pa.array([b"good", b"caf\xe9", None, "\u0437\u0432\u0443\u043a".encode()], pa.binary())
    column = raw if kind == pa.binary() else pa.Array.from_buffers(pa.string(), 4, raw.buffers()).cast(kind)
    table = pa.table({"text": column, "brand": pa.array(["p", "q", "r", "s"])})
    expected = [("good\np", None), (None, "not UTF-8"), ("r", None), ("\u0437\u0432\u0443\u043a\ns", None)]
    assert joined(table, ("text", "brand")) == expected
    if kind == pa.string():
        lists = pa.ListArray.from_arrays(pa.array([0, 1, 3], pa.int32()), column.slice(0, 3))
        assert joined(pa.table({"tags": lists}), ("tags",)) == [("good", None), (None, "not UTF-8")]
    addresses = Manifest(
        files=(), id_column="id", by_index=False, form="uri", columns=("text",), text=TextFieldsConfig()
    )
    found = [column.to_pylist() for column in addresses.values(table)]
    assert found[0] == ["good", None, None, "\u0437\u0432\u0443\u043a"]
    assert found[1] == [None, "not UTF-8", "no medium", None]


def test_lists_in_json_lines_are_joined(folder, tmp_path):
    lines = ['{"item_id": "1", "tags": ["a", "b"]}', '{"item_id": "x", "tags": []}', '{"item_id": "2", "tags": null}']
    (tmp_path / "m.jsonl").write_text("\n".join(lines) + "\n")
    source = {"kind": "manifest", "paths": [str(tmp_path / "m.jsonl")], "text": ["tags"]}
    manifest = open_manifest(configured(folder, **source), folder)
    ((_, table),) = manifest.batches(0, 10)
    assert manifest.values(table)[0].to_pylist() == ["a, b", None, None]


def test_only_stretches_of_a_file_with_wanted_rows_are_read(folder, tmp_path):
    table = pa.table({"item_id": [str(row) for row in range(40)], "content": [b"x"] * 40})
    pq.write_table(table, tmp_path / "m.parquet", row_group_size=10)
    source = {"kind": "manifest", "paths": [str(tmp_path / "m.parquet")], "bytes": "content"}
    manifest = open_manifest(configured(folder, **source), folder)
    batches = list(manifest.batches(0, 5, np.array([12, 31])))
    assert [(first, table.num_rows) for first, table in batches] == [(10, 5), (15, 5), (30, 5), (35, 5)]
    assert batches[2][1].column("item_id").to_pylist() == ["30", "31", "32", "33", "34"]
    assert sum(table.num_rows for _, table in manifest.batches(0, 7)) == 40


def rows(items, sources, reasons, limits=None):
    judged = [limits_text(limits or LIMITS)] * len(items)
    return pa.table([items, sources, reasons, [None] * len(items), judged], schema=LEDGER_SCHEMA)


def test_the_latest_part_of_an_item_counts_and_other_keys_do_not(tmp_path):
    home, key = Location.of(tmp_path), "k" * 64
    hashes = [bytes([number]) * 15 + b"\0" for number in range(5)]
    write_table(home.child(ledger_name("t")), rows([0, 1, 2], hashes[:3], [None, "too small", None]))
    write_table(
        home.child(f"{work_name(key)}/00001-b.parquet"), rows([1, 3], [hashes[3], None], [None, "missing file"])
    )
    write_table(home.child(f"{work_name(key)}/00002-a.parquet"), rows([1], [hashes[4]], ["corrupt image"]))
    ledger = read_ledger(home, key, {"key": key, "token": "t"})
    assert ledger.items.tolist() == [0, 1, 2, 3]
    assert ledger.part.tolist() == [-1, 1, -1, 0]
    assert ledger.failed() == {"corrupt image": 1, "missing file": 1}
    assert next_generation(ledger.files) == 3
    current = ledger.current(LIMITS)
    assert current.status(0, hashes[0]) == "kept"
    assert current.status(0, hashes[0][:15] + b"\1") is None
    assert current.status(1, hashes[4]) == "kept reject"
    assert current.status(3, hashes[3]) is None, "what could not be read is tried anew"
    assert current.status(9, hashes[0]) is None
    assert read_ledger(home, "z" * 64, {"key": key, "token": "t"}).items.tolist() == []


@pytest.mark.parametrize("reason", ["encoder failed", "unreadable"])
def test_a_failure_that_may_pass_is_tried_again(tmp_path, reason):
    """Memory that ran out, a disk that did not answer: the medium itself may be whole."""
    home, key, source = Location.of(tmp_path), "k" * 64, b"s" * 16
    table = rows([0, 1, 2], [source] * 3, [reason, "corrupt image", None])
    write_table(home.child(f"{work_name(key)}/00001-a.parquet"), table)
    current = read_ledger(home, key, {}).current(LIMITS)
    assert [current.status(item, source) for item in range(3)] == [None, "kept reject", "kept"]


@pytest.mark.parametrize(
    ("limits", "good", "rejected"),
    [
        ({}, "kept", "kept reject"),
        ({"min_side": 3}, "kept", None),
        ({"min_side": 5}, None, None),
        ({"max_pixels": 5_000}, "kept", None),
        ({"max_pixels": 3_000}, None, None),
        ({"silence_dbfs": -90.0}, "kept", None),
        ({"silence_dbfs": -70.0}, None, None),
        ({"min_side": 3, "max_pixels": 3_000}, None, None),
    ],
)
def test_other_limits_are_another_judgement(tmp_path, limits, good, rejected):
    """Who was rejected is judged again; who was let in as well, unless all limits are as wide as they were."""
    home, key, source = Location.of(tmp_path), "k" * 64, b"s" * 16
    before = LimitsConfig(min_side=4, max_pixels=4_000)
    table = rows([0, 1], [source] * 2, [None, "too small"], before)
    write_table(home.child(f"{work_name(key)}/00001-a.parquet"), table)
    current = read_ledger(home, key, {}).current(LimitsConfig(**{"min_side": 4, "max_pixels": 4_000, **limits}))
    assert [current.status(item, source) for item in range(2)] == [good, rejected]


def test_the_digest_of_a_ledger_knows_every_change():
    hashes = [bytes([number]) * 16 for number in range(3)]
    part = np.zeros(3, np.int32)

    def digest(items, sources, reasons, key="k"):
        table = rows(items, sources, reasons)
        return Ledger(table=table, part=part, files=()).digest(key)

    base = ([0, 1, 2], [hashes[0], None, hashes[2]], [None, "missing file", None])
    others = [
        ([0, 1, 3], *base[1:]), (base[0], [None, hashes[0], hashes[2]], base[2]),
        (base[0], base[1], [None, None, "missing file"]), (*base[:2], [None, "unreadable", None]),
        (base[0], [hashes[1], None, hashes[2]], base[2]),
    ]  # fmt: skip
    assert len({digest(*one) for one in [base, *others]} | {digest(*base, key="z")}) == 7
    assert digest(*base) == digest(*base)
    sliced = rows([9, *base[0]], [hashes[0], *base[1]], [None, *base[2]]).slice(1)
    assert Ledger(table=sliced, part=part, files=()).digest("k") == digest(*base)


def test_media_and_vectors_come_out_of_their_columns_as_they_went_in():
    media = [np.arange(6, dtype=np.uint8).reshape(2, 3), "звук", np.float32([1.5, -2.0]), np.zeros((1, 2, 2), ">f8")]
    found = media_of(pa.table(media_columns(media)))
    for before, after in zip(media, found, strict=True):
        assert after == before if isinstance(before, str) else np.array_equal(after, before)
        assert isinstance(before, str) or after.dtype == before.dtype
    assert media_columns([None])["data"].null_count == 1
    lists = vector_column([np.float32([1, 2]), None, np.float32([3])])
    assert lists.to_pylist() == [[1.0, 2.0], None, [3.0]]
