"""Every format is read alike, and every kind of damage is refused with its place and mend."""

import gzip
import io
import json

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from braidrec.data.errors import DatasetError
from braidrec.data.readers import read_rows, table_files
from braidrec.data.rows import LogFile, normalise

COLUMNS = {"user": "u", "item": "i", "rating": "r", "timestamp": "t"}
ROWS = [("007", "x", 4.5, 100), ("8", "y,z", 3.0, 90), ("8", "ü", 1.0, 0)]
CSV = 'u,i,r,t\n007,x,4.5,100\n8,"y,z",3,90\n8,ü,1.0,0\n'.encode()
JSONL = "".join(json.dumps(dict(zip("uirt", row, strict=True)) | {"more": {"a": [1]}}) + "\n" for row in ROWS).encode()


def parquet_bytes(**columns):
    sink = io.BytesIO()
    pq.write_table(pa.table(columns), sink, row_group_size=2)
    return sink.getvalue()


def read(path, *, columns=COLUMNS, unit="auto", quarantine=False, **options):
    (file,) = table_files([str(path)], **options)
    log = LogFile(file=file, number=0, columns=columns, timestamp_unit=unit)
    stretches = read_rows(file, list(columns.values()), numbers=["r", "t"], set_broken_lines_aside=quarantine)
    checked = [normalise(rows, log, quarantine=quarantine) for rows in stretches]
    return (
        pa.concat_tables([part.good for part in checked]),
        pa.concat_tables([part.bad for part in checked]),
        {unit: row for part in checked for unit, row in part.unit_examples.items()},
    )


def write(folder, name, content):
    path = folder / name
    path.write_bytes(content)
    return path


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("a.csv", CSV),
        ("bom.csv", b"\xef\xbb\xbf" + CSV),
        ("crlf.csv", CSV.replace(b"\n", b"\r\n")),
        ("blank.csv", CSV.replace(b"\n", b"\n\n")),
        ("a.csv.gz", gzip.compress(CSV, mtime=0)),
        ("a.tsv", b'u\ti\tr\tt\n007\tx\t4.5\t100\n8\ty,z\t3\t90\n8\t\xc3\xbc\t1\t0\n'),
        ("a.jsonl", JSONL),
        ("a.jsonl.gz", gzip.compress(JSONL, mtime=0)),
        (
            "a.parquet",
            parquet_bytes(
                u=["007", "8", "8"], i=pa.array(["x", "y,z", "ü"]).dictionary_encode(), r=[4.5, 3, 1], t=[100, 90, 0]
            ),
        ),
    ],
)  # fmt: skip
def test_formats_agree(tmp_path, name, content):
    good, bad, units = read(write(tmp_path, name, content))
    assert list(zip(*(good.column(c).to_pylist() for c in ("user", "item", "rating")), strict=True)) == [
        row[:3] for row in ROWS
    ]
    assert good.column("timestamp").to_pylist() == [100_000, 90_000, 0]
    assert good.column("position").to_pylist() == [0, 1, 2]
    assert bad.num_rows == 0
    assert list(units) == ["seconds"]


def test_a_csv_without_header(tmp_path):
    path = write(tmp_path, "u.data", b"196\t242\t3\t881250949\n186\t302\t3\t891717742\n")
    good, _, _ = read(path, named_format="tsv", names=["u", "i", "r", "t"])
    assert good.column("user").to_pylist() == ["196", "186"]
    with pytest.raises(DatasetError, match="4 columns in its first line, column_names has 2"):
        read(path, named_format="tsv", names=["u", "i"])


def test_a_folder_is_all_its_files_by_name(tmp_path):
    for name in ("b.csv", "a.csv", ".hidden.csv"):
        write(tmp_path, name, CSV)
    assert [file.location.name for file in table_files([str(tmp_path)])] == ["a.csv", "b.csv"]


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("a.csv", CSV.replace(b"u,i", b"user,i"), r"a\.csv: no column 'u'.* columns are \['user', 'i', 'r', 't'\]"),
        ("a.csv", CSV.replace(b",r,", b",rr,"), r"no column 'r'\. Did you mean 'rr'\?"),
        ("a.csv", CSV + b"9,z\n", r"a\.csv, line 5: 2 columns instead of 4: '9,z'.*on_bad_row=quarantine"),
        ("a.csv", CSV.replace("ü".encode(), b"\xfc"), r"line 4: byte 0xfc at column 3 is not UTF-8; convert .* iconv"),
        ("a.csv", b"\xfcu,i,r,t\n", r"line 1: byte 0xfc at column 1 is not UTF-8"),
        ("a.csv", b"", "a.csv: the file is empty"),
        ("a.csv", CSV.replace(b"4.5", b"nan"), r"line 2: rating is not a finite number \(u='007', i='x', r='nan'"),
        ("a.csv", CSV.replace(b"4.5", b"1e39"), "line 2: rating is not a finite number"),
        ("a.csv", CSV.replace(b"4.5", b"inf"), "line 2: rating is not a finite number"),
        ("a.csv", CSV.replace(b"4.5", b""), "line 2: rating is not a finite number"),
        ("a.csv", CSV.replace(b"007", b""), "line 2: empty user id"),
        ("a.csv", CSV.replace(b",90", b",-90"), r"line 3: timestamp is negative \(u='8', i='y,z', r='3', t='-90'\)"),
        ("a.csv", CSV.replace(b",90", b",soon"), "line 3: timestamp is not a number"),
        ("a.csv", CSV.replace(b",90", b",1600000000000000"), "line 3: timestamp is larger than milliseconds can be"),
        ("a.csv.gz", gzip.compress(CSV * 20_000, mtime=0)[:-50], r"not readable as csv .*truncated or damaged"),
        ("a.csv.gz", CSV, r"a\.csv\.gz: not readable as csv"),
        ("a.jsonl", JSONL + b'{"u": "9", "i":', r"a\.jsonl, line 4: not JSON .*one object a line"),
        ("a.jsonl", JSONL + b"[1]\n", r"a\.jsonl, line 4: list; one JSON object a line is wanted"),
        ("a.jsonl", JSONL + b'{"u": 9, "i": "x", "r": 1, "t": 1}\n', "write a field with one type in all records"),
        ("a.jsonl", JSONL + b'{"i": "x", "r": 1, "t": 1}\n', r"line 4: empty user id \(u=None"),
        ("a.jsonl", b"\n", "a.jsonl: the file is empty"),
        ("a.parquet", parquet_bytes(u=["a"], i=["b"], r=[1.0], t=[1])[:-20], r"a\.parquet: not readable as parquet"),
        ("a.parquet", parquet_bytes(u=[1.0], i=["b"], r=[1.0], t=[1]), "column 'u' holds double; ids must be text"),
        ("a.parquet", parquet_bytes(u=["a"], i=["b"], r=[float("nan")], t=[1]), "row 0: rating is not a finite"),
        ("a.parquet", parquet_bytes(u=["a"], i=["b"], r=[True], t=[1]), "row 0: rating is not a finite number"),
        ("a.dat", CSV, r"a\.dat: its suffix tells no format .*set format"),
    ],
)  # fmt: skip
def test_damage_is_refused(tmp_path, name, content, message):
    with pytest.raises(DatasetError, match=message):
        read(write(tmp_path, name, content))


def test_no_such_file(tmp_path):
    with pytest.raises(DatasetError, match=r"gone\.csv: no such file or folder"):
        table_files([str(tmp_path / "gone.csv")])


def test_bad_rows_are_set_aside_with_their_numbers(tmp_path):
    content = CSV + b"short\n9,a,nan,5\n,b,1,5\n9,c,1,5\n"
    good, bad, _ = read(write(tmp_path, "a.csv", content), quarantine=True)
    assert good.column("item").to_pylist() == ["x", "y,z", "ü", "c"]
    assert good.column("position").to_pylist() == [0, 1, 2, 6]
    found = {(row["row"], row["reason"]) for row in bad.to_pylist()}
    assert found == {
        (3, "another number of columns than the header"),
        (4, "rating is not a finite number"),
        (5, "empty user id"),
    }


def test_units_of_time(tmp_path):
    seconds, milliseconds = "1393675200", "1393675200123"
    path = write(tmp_path, "a.csv", f"u,i,r,t\n1,a,1,{milliseconds}\n1,b,1,{seconds}\n".encode())
    _, _, units = read(path)
    assert set(units) == {"seconds", "milliseconds"}
    assert units["seconds"].endswith("a.csv, line 3: 1393675200")
    for unit, kept in (("s", 1393675200000), ("ms", 1393675200123)):
        good, bad, _ = read(path, unit=unit, quarantine=True)
        assert good.column("timestamp").to_pylist() == [kept]
        assert bad.num_rows == 1
    with pytest.raises(DatasetError, match="line 2: timestamp is in milliseconds, not seconds"):
        read(path, unit="s")


def test_dates(tmp_path):
    rows = "u,i,r,t\n1,a,1,2014-03-01\n1,b,1,2014-03-01T12:00:00Z\n1,c,1,2014-03-01 12:00:01.5\n"
    good, _, _ = read(write(tmp_path, "a.csv", rows.encode()), unit="iso")
    midnight = 1393632000000
    assert good.column("timestamp").to_pylist() == [midnight, midnight + 43_200_000, midnight + 43_201_000]
    with pytest.raises(DatasetError, match="line 5: timestamp is not a date"):
        read(write(tmp_path, "b.csv", (rows + "1,d,1,2014-03-01T12:00:00+02:00\n").encode()), unit="iso")
    stamps = pa.array(np.array(["2014-03-01T12:00"], "datetime64[ns]"))
    good, _, _ = read(write(tmp_path, "c.parquet", parquet_bytes(u=[1], i=[2], r=[1], t=stamps)))
    assert good.column("timestamp").to_pylist() == [midnight + 43_200_000]


def test_split_labels(tmp_path):
    columns = {"user": "u", "item": "i", "split": "s"}
    path = write(tmp_path, "a.csv", b"u,i,s\n1,a,train\n1,b,2\n1,c,1.0\n")
    good, _, _ = read(path, columns=columns)
    assert good.column("label").to_pylist() == [0, 2, 1]
    with pytest.raises(
        DatasetError, match=r"line 2: split is none of 0, 1, 2, train, valid, test \(u='1', i='a', s='dev'\)"
    ):
        read(write(tmp_path, "b.csv", b"u,i,s\n1,a,dev\n"), columns=columns)


def test_weights_may_not_be_negative(tmp_path):
    path = write(tmp_path, "a.csv", b"u,i,w\n1,a,0.5\n1,b,-1\n")
    with pytest.raises(DatasetError, match="line 3: weight is negative"):
        read(path, columns={"user": "u", "item": "i", "weight": "w"})
