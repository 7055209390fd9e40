"""CPUs and threads of Ray workers on clusters of given nodes."""

import os

import pytest

from braidrec.config.load import ConfigError, load_config
from braidrec.config.run import RunConfig
from braidrec.training.ray_runner import placement


def config(num: int, *overrides: str) -> RunConfig:
    batch = f"training.batch_size={60 * num}"
    return load_config(RunConfig, [], ["data.path=somewhere", f"workers.num={num}", batch, *overrides])


@pytest.mark.parametrize(
    ("nodes", "num", "cpus"),
    [
        ([2], 1, 1),
        ([2], 2, 0.5),
        ([3], 2, 1),
        ([4], 2, 1),
        ([8, 8], 2, 7),
        ([8, 8], 3, 4),
        ([2, 33], 4, 8),
        ([0, 16, 16], 3, 8),
        ([1, 1], 1, 1),
        ([2, 2, 2], 5, 1),
    ],
)
def test_all_workers_fit_and_one_cpu_stays_free(nodes: list[float], num: int, cpus: float) -> None:
    place = placement(config(num), nodes)
    assert place.cpus == cpus
    # Ray fills the nodes one after the other: what is left over must be one CPU at least.
    free = sorted(nodes, reverse=True)
    free[0] -= 1
    assert sum(int(node // place.cpus) for node in free) >= num


def test_what_does_not_fit_is_refused_with_what_would() -> None:
    with pytest.raises(ConfigError, match=r"has 1 CPU, and Ray Data needs one .*--num-cpus 2"):
        placement(config(1), [1])
    message = r"workers.cpus=6 × workers.num=3 do not fit the cluster's nodes of 8, 8 CPUs .* use workers.cpus=4 or"
    with pytest.raises(ConfigError, match=message):
        placement(config(3, "workers.cpus=6"), [8, 8])
    # In all there are enough, on no node.
    with pytest.raises(ConfigError, match=r"use workers.cpus=8 "):
        placement(config(1, "workers.cpus=12"), [8, 8])
    assert placement(config(3, "workers.cpus=4"), [8, 8]).cpus == 4


def test_with_fewer_workers_allowed_only_these_must_fit() -> None:
    """As where a run goes on after nodes were lost."""
    wanted = ("workers.cpus=4", "workers.least=1")
    assert placement(config(3, *wanted), [8]).cpus == 4
    with pytest.raises(ConfigError, match=r"workers.cpus=4 × workers.num=3 do not fit"):
        placement(config(3, "workers.cpus=4"), [8])
    with pytest.raises(ConfigError, match=r"workers.cpus=4 × workers.least=1 do not fit .* use workers.cpus=3 or"):
        placement(config(3, *wanted), [4])


def test_threads_are_a_share_of_the_cores() -> None:
    cores = len(os.sched_getaffinity(0))
    assert placement(config(1), [64]).threads == cores
    assert placement(config(4), [16, 16]).threads == 8
    assert placement(config(4), [0, 16, 16]).threads == 8, "a head without CPUs holds no worker"
    assert placement(config(2, "workers.cpus=3"), [16, 16]).threads == 3
    assert placement(config(2, "workers.cpus=3", "workers.threads=5"), [16, 16]).threads == 5
