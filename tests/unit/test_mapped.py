"""Arrays that are filled on the disk, and who builds a node's copy. (What damage does: tests/unit/graph.)"""

import json
import os
import subprocess
import sys
import threading
from pathlib import Path

import numpy as np
import pytest

from braidrec import mapped as mapped_module
from braidrec.mapped import DamagedError, Draft, Mapped, once_per_node, shared_arrays

MANIFEST = "squares.json"


def squares(draft: Draft) -> dict[str, int]:
    with draft.create("squares.npy", np.float16, (5, 3)) as array:
        array[1:] = np.arange(12).reshape(4, 3) ** 2
    return {"first": 1}


def shared(cache: Path, build=squares, read=lambda mapped: mapped) -> Mapped:
    return shared_arrays(cache, "key", build, read, manifest=MANIFEST, what="table")


def test_an_array_filled_on_the_disk(tmp_path: Path) -> None:
    mapped = shared(tmp_path)
    wanted = np.r_[np.zeros((1, 3)), np.arange(12).reshape(4, 3) ** 2].astype(np.float16)
    assert mapped.facts == {"first": 1}
    assert isinstance(mapped.arrays["squares.npy"], np.memmap)
    assert mapped.arrays["squares.npy"].dtype == np.float16
    np.testing.assert_array_equal(mapped.arrays["squares.npy"], wanted)
    np.testing.assert_array_equal(np.load(mapped.folder / "squares.npy"), wanted)
    assert sorted(os.listdir(mapped.folder)) == [MANIFEST, "squares.npy"]
    # Every block is on the disk: a hole would be a SIGBUS for whoever writes into it when the disk is full.
    status = os.stat(mapped.folder / "squares.npy")
    assert status.st_blocks * 512 >= status.st_size


def test_writing_to_what_is_mapped_changes_no_file(tmp_path: Path) -> None:
    mapped = shared(tmp_path)
    mapped.arrays["squares.npy"][0] = 7
    assert float(shared(tmp_path).arrays["squares.npy"].max()) == 121
    assert shared(tmp_path).arrays["squares.npy"][0].tolist() == [0, 0, 0]


def test_a_full_disk_is_an_error_and_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(descriptor: int, start: int, size: int) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patched:
        patched.setattr(os, "posix_fallocate", full)
        with pytest.raises(OSError, match="No space left"):
            shared(tmp_path)
    (folder,) = tmp_path.iterdir()
    assert os.listdir(folder) == []
    assert shared(tmp_path).facts == {"first": 1}


def test_a_builder_that_fails_half_way_leaves_no_file(tmp_path: Path) -> None:
    def fails(draft: Draft) -> dict[str, int]:
        with draft.create("squares.npy", np.float32, (4, 4)) as array:
            array[0] = 1
            raise ValueError("row 1 is bad")

    with pytest.raises(ValueError, match="row 1 is bad"):
        shared(tmp_path, fails)
    (folder,) = tmp_path.iterdir()
    assert os.listdir(folder) == []


def test_what_a_reader_calls_damaged_is_built_again(tmp_path: Path) -> None:
    shared(tmp_path)
    (folder,) = tmp_path.iterdir()
    told = json.loads((folder / MANIFEST).read_text())
    (folder / MANIFEST).write_text(json.dumps(told | {"first": 2}))

    def read(mapped: Mapped) -> int:
        if mapped.facts["first"] != 1:
            raise DamagedError("first is 2")
        return mapped.facts["first"]

    with pytest.warns(UserWarning, match="first is 2; the table is built again"):
        assert shared(tmp_path, read=read) == 1
    assert shared(tmp_path, read=read) == 1


KILLED = """
import os, signal, sys
from pathlib import Path
import numpy as np
from braidrec.mapped import shared_arrays

def build(draft):
    with draft.create("squares.npy", np.float32, (400, 4)) as array:
        array[0] = 1
        os.kill(os.getpid(), signal.SIGKILL)

shared_arrays(Path(sys.argv[1]), "another key", build, print, manifest="squares.json", what="table")
"""


def test_what_a_killed_process_left_is_swept_and_what_others_write_is_not(tmp_path: Path) -> None:
    ended = subprocess.run([sys.executable, "-c", KILLED, str(tmp_path)], check=False)
    (left,) = tmp_path.glob("*/.squares.npy-*")
    assert ended.returncode == -9 and left.stat().st_size > 6_400
    (tmp_path / "others").mkdir()
    (tmp_path / "others" / ".squares.npy-mine").touch()
    seen: list[list[Path]] = []

    def slow(draft: Draft) -> dict[str, int]:
        with draft.create("squares.npy", np.float16, (5, 3)) as array:
            array[:] = 3
            beside = shared_arrays(tmp_path, "third", squares, lambda mapped: mapped, manifest=MANIFEST, what="table")
            seen.append(list(tmp_path.glob("*/.*")))
            assert beside.facts == {"first": 1}
        return {"first": 3}

    mapped = shared(tmp_path, slow)
    assert not left.exists()
    assert [path.parent for path in seen[0] if path.parent.name != "others"] == [mapped.folder], "the one being written"
    assert float(mapped.arrays["squares.npy"].min()) == 3
    assert list(tmp_path.glob("*/.*")) == [tmp_path / "others" / ".squares.npy-mine"], "no file of the cache's own"


def test_a_new_file_that_was_swept_before_it_was_locked_is_made_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    lock, swept = mapped_module.fcntl.flock, []

    def late(descriptor: int, how: int) -> None:
        if not swept:
            (path,) = tmp_path.glob("*/.squares.npy-*")
            path.unlink()
            swept.append(path)
        lock(descriptor, how)

    monkeypatch.setattr(mapped_module.fcntl, "flock", late)
    assert shared(tmp_path).facts == {"first": 1} and len(swept) == 1


def run_ranks(make, ranks: int) -> list[object]:
    """`once_per_node` on as many threads; what each returned or raised."""
    barrier = threading.Barrier(ranks)
    results: list[object] = [None] * ranks

    def work(rank: int) -> None:
        try:
            results[rank] = once_per_node(
                lambda: make(rank), local_rank=rank, barrier=lambda: barrier.wait(20) and None
            )
        except ValueError as error:
            results[rank] = error

    threads = [threading.Thread(target=work, args=(rank,)) for rank in range(ranks)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    return results


def test_the_first_of_a_node_builds_and_the_others_follow() -> None:
    order: list[int] = []

    def make(rank: int) -> int:
        order.append(rank)
        return rank * 10

    assert run_ranks(make, 3) == [0, 10, 20]
    assert order[0] == 0 and sorted(order) == [0, 1, 2]


def test_the_others_do_not_wait_for_one_that_failed() -> None:
    def make(rank: int) -> int:
        raise ValueError(f"no space on rank {rank}")

    assert [str(error) for error in run_ranks(make, 3)] == [f"no space on rank {rank}" for rank in range(3)]
