"""Logs that were made to do harm, or look like it: bounded reading, and an error that names the place."""

import gzip
import json
import os
import tracemalloc
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from test_readers import COLUMNS, parquet_bytes, read, write

from braidrec.data import readers
from braidrec.data.errors import DatasetError
from braidrec.data.readers import read_rows, table_files
from braidrec.data.rows import LogFile, normalise

HEADER = b"u,i,r,t\n"


def test_a_line_break_within_quotes_belongs_to_the_field(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Also where it is the last that fits into a block."""
    rows = "".join(f'{user},"item\n{user}",1,5\n' for user in range(40)).encode()
    for size in (4096, 100, 101, 102, 103):
        monkeypatch.setattr(readers, "BLOCK_BYTES", size)
        good, bad, _ = read(write(tmp_path, "a.csv", HEADER + rows))
        assert good.column("item").to_pylist() == [f"item\n{user}" for user in range(40)]
        assert bad.num_rows == 0


def test_a_broken_line_after_a_quoted_line_break_is_the_one_that_is_named(tmp_path: Path) -> None:
    content = HEADER + b'1,"x\ny",1,5\n2,z,1\n'
    with pytest.raises(DatasetError, match=r"a\.csv, line 4: 3 columns instead of 4: '2,z,1'"):
        read(write(tmp_path, "a.csv", content))


def test_a_quote_that_is_never_closed(tmp_path: Path) -> None:
    content = HEADER + b'1,x,1,5\n2,"z,1,5\n' + b"3,y,1,5\n" * 100
    with pytest.raises(DatasetError, match=r"a\.csv, line 3: 2 columns instead of 4"):
        read(write(tmp_path, "a.csv", content))


def test_a_field_of_a_megabyte_is_a_field(tmp_path: Path) -> None:
    good, _, _ = read(write(tmp_path, "a.csv", HEADER + b"1," + b"x" * 1_000_000 + b",1,5\n2,z,1,5\n"))
    assert [len(item) for item in good.column("item").to_pylist()] == [1_000_000, 1]


@pytest.mark.parametrize("name", ["a.csv.gz", "a.jsonl.gz"])
@pytest.mark.parametrize("start", [b"", HEADER, b'{"u": "1", "i": "a", "r": 1, "t": 5}\n'])
def test_a_gzip_bomb_is_refused_before_it_is_unpacked(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, start: bytes
) -> None:
    monkeypatch.setattr(readers, "BLOCK_BYTES", 1 << 20)
    path = write(tmp_path, name, gzip.compress(start + bytes(64 << 20), compresslevel=1, mtime=0))
    tracemalloc.start()
    try:
        with pytest.raises(DatasetError, match=r"line \d: (longer than 1 MiB|no|not JSON|.* columns)|no column"):
            read(path)
        assert tracemalloc.get_traced_memory()[1] < 16 << 20
    finally:
        tracemalloc.stop()


def test_ids_beyond_64_bits(tmp_path: Path) -> None:
    large = [2**63, 2**64, 10**30]
    text = HEADER + "".join(f"{number},a,1,5\n" for number in large).encode()
    good, _, _ = read(write(tmp_path, "a.csv", text))
    assert good.column("user").to_pylist() == [str(number) for number in large]
    record = {"i": "a", "r": 1, "t": 5}
    lines = "".join(json.dumps({"u": number, **record}) + "\n" for number in (1, 2**63)).encode()
    with pytest.raises(DatasetError, match=r"a\.jsonl, line 2: u=9223372036854775808 does not fit .*in quotes"):
        read(write(tmp_path, "a.jsonl", lines))


def test_a_name_that_two_columns_have(tmp_path: Path) -> None:
    with pytest.raises(DatasetError, match=r"a\.csv: several columns are called 'u': rename"):
        read(write(tmp_path, "a.csv", b"u,u,i,r,t\n1,2,a,1,5\n"))
    good, _, _ = read(write(tmp_path, "b.csv", b"x,u,i,r,t,x\n0,2,a,1,5,0\n"))
    assert good.column("user").to_pylist() == ["2"], "what is not read may be called as it likes"


def test_minus_zero_is_zero(tmp_path: Path) -> None:
    good, _, _ = read(write(tmp_path, "a.csv", HEADER + b"1,a,-0.0,5\n"))
    assert good.column("rating").to_pylist() == [0.0]


def test_folders_that_lead_to_themselves(tmp_path: Path) -> None:
    folder = tmp_path / "logs"
    folder.mkdir()
    write(folder, "a.csv", HEADER + b"1,a,1,5\n")
    os.symlink(".", folder / "again")
    with pytest.raises(DatasetError, match=r"logs/again: a symbolic link to .*logs, which is read already"):
        table_files([str(folder)])


@pytest.mark.parametrize("make", [lambda path: os.symlink(path.name, path), os.mkfifo])
def test_what_is_no_file_is_not_opened(tmp_path: Path, make: object) -> None:
    path = tmp_path / "a.csv"
    make(path)  # type: ignore[operator]
    with pytest.raises(DatasetError, match=r"a\.csv: no such file or folder"):
        table_files([str(path)])


BYTES = st.one_of(
    st.binary(max_size=300),
    st.text(alphabet='ui,rt01.-"\n\r\t {}[]:é\x00', max_size=300).map(str.encode),
    st.lists(
        st.sampled_from([b"1,a,1,5\n", b'2,"b\n', b'"', b"\xff,a,1,5\n", b"3,c,1e400,5\n", b"\n"]), max_size=12
    ).map(b"".join),
)


def outcome(path: Path) -> str | None:
    """Why a file was refused; None: it was read, and every row of it is good or has a reason."""
    (file,) = table_files([str(path)])
    log = LogFile(file=file, number=0, columns=COLUMNS, timestamp_unit="auto")
    try:
        for rows in read_rows(file, list(COLUMNS.values()), numbers=["r", "t"], set_broken_lines_aside=True):
            checked = normalise(rows, log, quarantine=True)
            assert all(checked.good.column("user").to_pylist()) and all(checked.good.column("item").to_pylist())
            assert all(checked.bad.column("reason").to_pylist())
    except DatasetError as error:
        return str(error)
    return None


# Arrow itself complains of a broken line that is not UTF-8, before it refuses the file.
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    content=BYTES, name=st.sampled_from(["a.csv", "a.tsv", "a.jsonl", "a.parquet", "a.csv.gz"]), headed=st.booleans()
)
def test_any_bytes_are_rows_or_a_clear_error(tmp_path: Path, content: bytes, name: str, headed: bool) -> None:
    """With a header, so that rows are reached too."""
    start = {"a.csv": HEADER, "a.tsv": b"u\ti\tr\tt\n"}.get(name, b"") if headed else b""
    data = gzip.compress(HEADER + content, mtime=0) if name == "a.csv.gz" and headed else start + content
    refusal = outcome(write(tmp_path, name, data))
    assert refusal is None or str(tmp_path / name) in refusal


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(place=st.integers(0, 10_000), bit=st.integers(0, 7), cut=st.integers(0, 10_000), flips=st.booleans())
def test_parquet_with_a_flipped_bit_or_cut_short(tmp_path: Path, place: int, bit: int, cut: int, flips: bool) -> None:
    whole = bytearray(parquet_bytes(u=["1", "2"] * 40, i=["a", "b"] * 40, r=[1.0, 2.0] * 40, t=[5, 6] * 40))
    if flips:
        whole[place % len(whole)] ^= 1 << bit
    else:
        del whole[cut % len(whole) :]
    refusal = outcome(write(tmp_path, "a.parquet", bytes(whole)))
    assert refusal is None or "a.parquet" in refusal
