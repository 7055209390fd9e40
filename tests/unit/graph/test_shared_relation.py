"""The node's memory-mapped copy of a relation: built once, whole or not at all, never used when damaged."""

import json
import multiprocessing
import os
from multiprocessing.synchronize import Barrier
from pathlib import Path

import numpy as np
import pytest
import torch
from graph_oracles import CPU, both_directions, random_edges, random_pairs, relation_of, rows

from braidrec.graph.neighbourhood import FullGraph, SampledSubgraph, hop_specs
from braidrec.graph.propagate import propagate
from braidrec.graph.relation import INTERACTIONS, Relation
from braidrec.graph.share import MANIFEST, shared_relation

N = 30
RELATION = relation_of(INTERACTIONS, both_directions(random_pairs(1, 16, 14, 80), 16), N, symmetric=True)
ARRAYS = ["indptr.npy", "indices.npy", "factors.npy"]
FILES = [*ARRAYS, MANIFEST]


class Builder:
    """Counts how often it is asked."""

    def __init__(self, relation: Relation = RELATION) -> None:
        self.relation, self.calls = relation, 0

    def __call__(self) -> Relation:
        self.calls += 1
        return self.relation


def forbidden() -> Relation:
    raise AssertionError("built again")


def shared(folder: Path, build=forbidden, key: str = "digest") -> Relation:
    return shared_relation(folder, key, build, symmetric=True)


def the_folder(cache: Path) -> Path:
    (found,) = cache.iterdir()
    return found


def assert_equal(one: Relation, other: Relation) -> None:
    assert (one.name, one.symmetric) == (other.name, other.symmetric)
    factors = (one.inverse_sqrt_in_degree.numpy(), other.inverse_sqrt_in_degree.numpy())
    for mine, wanted in ((one.indptr, other.indptr), (one.indices, other.indices), factors):
        assert mine.dtype == wanted.dtype
        np.testing.assert_array_equal(mine, wanted)


def test_built_once_then_mapped(tmp_path: Path) -> None:
    build = Builder()
    first, second = shared(tmp_path / "new" / "cache", build), shared(tmp_path / "new" / "cache", build)
    assert build.calls == 1
    for relation in (first, second):
        assert_equal(relation, RELATION)
        assert isinstance(relation.indices.base, np.memmap) and isinstance(relation.indptr.base, np.memmap)
    assert sorted(os.listdir(the_folder(tmp_path / "new" / "cache"))) == sorted(FILES)


@pytest.mark.parametrize("dtype", [np.int32, np.int64])
def test_directed_empty_and_wide_relations_come_back(tmp_path: Path, dtype: type) -> None:
    for key, edges in (("directed", random_edges(2, range(N), 60)), ("empty", [])):
        relation = relation_of("also_viewed", edges, N, dtype=dtype)
        assert_equal(shared_relation(tmp_path, key, Builder(relation), symmetric=False), relation)
        assert_equal(shared_relation(tmp_path, key, forbidden, symmetric=False), relation)


def test_another_key_is_another_file(tmp_path: Path) -> None:
    other = relation_of(INTERACTIONS, both_directions([(0, 0)], 16), N, symmetric=True)
    shared(tmp_path, Builder(), "before")
    assert_equal(shared(tmp_path, Builder(other), "after"), other)
    assert_equal(shared(tmp_path, forbidden, "before"), RELATION)
    assert len(list(tmp_path.iterdir())) == 2


def test_a_directed_relation_is_never_taken_for_a_symmetric_one(tmp_path: Path) -> None:
    shared(tmp_path, Builder())
    directed = relation_of("x", random_edges(2, range(N), 60), N)
    assert_equal(shared_relation(tmp_path, "digest", Builder(directed), symmetric=False), directed)


@pytest.mark.parametrize("name", FILES)
@pytest.mark.parametrize("damage", ["truncated", "emptied", "longer", "missing", "garbled header"])
def test_a_damaged_file_is_noticed_and_built_again(tmp_path: Path, name: str, damage: str) -> None:
    shared(tmp_path, Builder())
    path = the_folder(tmp_path) / name
    content = path.read_bytes()
    path.unlink()
    if damage != "missing":
        changed = {
            "truncated": content[:-5],
            "emptied": b"",
            "longer": content + b"\0" * 8,
            "garbled header": b"\x93garbage"[: len(content)] + content[8:],
        }
        path.write_bytes(changed[damage])
    build = Builder()
    if (name, damage) == (MANIFEST, "missing"):  # as if the writer had crashed: nothing was promised
        relation = shared(tmp_path, build)
    else:
        with pytest.warns(UserWarning, match=r"the relation is built again"):
            relation = shared(tmp_path, build)
    assert build.calls == 1
    assert_equal(relation, RELATION)
    assert_equal(shared(tmp_path), RELATION)


def test_files_that_do_not_belong_together_are_noticed(tmp_path: Path) -> None:
    shared(tmp_path, Builder())
    folder = the_folder(tmp_path)
    shorter = RELATION.indptr.copy()
    shorter[-1] -= 1
    np.save(folder / "indptr.npy", shorter)
    build = Builder()
    with pytest.warns(UserWarning, match=r"indptr\.npy ends at"):
        assert_equal(shared(tmp_path, build), RELATION)
    assert build.calls == 1


def test_factors_are_mapped_and_belong_to_the_nodes(tmp_path: Path) -> None:
    mapped = shared(tmp_path, Builder())
    assert isinstance(mapped._known_factors, np.memmap) and mapped._known_factors.shape == (N,)
    assert np.shares_memory(mapped.inverse_sqrt_out_degree.numpy(), mapped._known_factors)
    degrees = mapped.in_degree.double()
    wanted = torch.where(degrees > 0, degrees.clamp(min=1).rsqrt(), 0.0)
    torch.testing.assert_close(mapped.inverse_sqrt_in_degree.double(), wanted, rtol=1e-7, atol=0)
    whole = np.load(the_folder(tmp_path) / "factors.npy")
    for other in (whole[:-1], whole.astype(np.float64)):
        np.save(the_folder(tmp_path) / "factors.npy", other)
        size = (the_folder(tmp_path) / "factors.npy").stat().st_size
        manifest = json.loads((the_folder(tmp_path) / MANIFEST).read_text())
        manifest["bytes"]["factors.npy"] = size
        (the_folder(tmp_path) / MANIFEST).write_text(json.dumps(manifest))
        with pytest.warns(UserWarning, match=r"factors\.npy does not belong to indptr\.npy"):
            assert_equal(shared(tmp_path, Builder()), RELATION)


def test_the_manifest_says_the_sizes(tmp_path: Path) -> None:
    shared(tmp_path, Builder())
    folder = the_folder(tmp_path)
    manifest = json.loads((folder / MANIFEST).read_text())
    assert manifest["bytes"] == {name: (folder / name).stat().st_size for name in ARRAYS}


def test_what_a_crash_left_does_no_harm(tmp_path: Path) -> None:
    shared(tmp_path / "whole", Builder())
    folder = tmp_path / "crashed" / the_folder(tmp_path / "whole").name
    folder.mkdir(parents=True)
    (folder / ".indices.npy-abc123").write_bytes(b"half")
    (folder / "indptr.npy").write_bytes(b"\x93NUMPY")
    build = Builder()
    assert_equal(shared(tmp_path / "crashed", build), RELATION)
    assert build.calls == 1
    assert_equal(shared(tmp_path / "crashed"), RELATION)


def test_a_build_that_fails_leaves_nothing_that_looks_whole(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full_disk(file: object, arr: np.ndarray) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patched:
        patched.setattr(np, "save", full_disk)
        with pytest.raises(OSError, match="No space left"):
            shared(tmp_path, Builder())
    assert os.listdir(the_folder(tmp_path)) == []
    assert_equal(shared(tmp_path, Builder()), RELATION)


def test_a_mapped_relation_survives_its_replacement(tmp_path: Path) -> None:
    mapped = shared(tmp_path, Builder())
    (the_folder(tmp_path) / MANIFEST).unlink()
    shared(tmp_path, Builder())
    assert_equal(mapped, RELATION)


def _build_with_others(folder: Path, barrier: Barrier, results) -> None:
    def build() -> Relation:
        barrier.wait(60)  # every process is past the look-up and builds
        return RELATION

    relation = shared_relation(folder, "digest", build, symmetric=True)
    results.put((relation.indptr.tolist(), relation.indices.tolist()))


@pytest.mark.slow
def test_processes_that_build_at_once(tmp_path: Path) -> None:
    context = multiprocessing.get_context("spawn")
    barrier, results = context.Barrier(2), context.Queue()
    workers = [context.Process(target=_build_with_others, args=(tmp_path, barrier, results)) for _ in range(2)]
    for worker in workers:
        worker.start()
    found = [results.get(timeout=240) for _ in workers]
    for worker in workers:
        worker.join(60)
    assert [worker.exitcode for worker in workers] == [0, 0]
    assert found == [(RELATION.indptr.tolist(), RELATION.indices.tolist())] * 2
    assert_equal(shared(tmp_path), RELATION)
    assert sorted(os.listdir(the_folder(tmp_path))) == sorted(FILES)


@pytest.mark.parametrize("dtype", [np.int32, np.int64])
@pytest.mark.parametrize("kernel", ["dgl", "torch"])
def test_propagation_on_mapped_memory(tmp_path: Path, kernel: str, dtype: type) -> None:
    in_memory = relation_of(
        INTERACTIONS, both_directions(random_pairs(1, 16, 14, 80), 16), N, symmetric=True, dtype=dtype
    )
    mapped = shared(tmp_path, Builder(in_memory))
    stored = [(the_folder(tmp_path) / name).read_bytes() for name in FILES]
    seeds, h, outs = torch.tensor([20, 3, 0]), rows(1, N, 8), []
    for relation in (in_memory, mapped):
        relations = {INTERACTIONS: relation}
        full = FullGraph(relations, device=CPU, kernel=kernel)
        outs.append(propagate(full.neighbourhood(hop_specs([INTERACTIONS] * 2, [-1]), seeds), h)[-1])
        for sampler in ("neighbour", "labor"):
            source = SampledSubgraph(relations, device=CPU, kernel=kernel, sampler=sampler)
            neighbourhood = source.neighbourhood(hop_specs([INTERACTIONS] * 2, [3]), seeds, step_seed=1)
            outs.append(propagate(neighbourhood, h[neighbourhood.input_nodes])[-1])
    for plain, on_file in zip(outs[:3], outs[3:], strict=True):
        assert torch.equal(plain, on_file)
    assert [(the_folder(tmp_path) / name).read_bytes() for name in FILES] == stored
