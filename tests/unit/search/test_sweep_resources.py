"""How a cluster is divided among trials, by hand."""

import os

import pytest
from search_cases import sweep_config

from braidrec.config.load import ConfigError, validate
from braidrec.config.run import RunConfig
from braidrec.search.resources import CONTROLLER_CPUS, cpus_to_declare, share

CORES = len(os.sched_getaffinity(0))


def run(**workers: object) -> RunConfig:
    return validate(RunConfig, {"data": {"path": "x"}, "training": {"batch_size": 960}, "workers": workers}, "test")


def test_one_worker_is_the_process_of_the_trial_and_has_a_cpu() -> None:
    for num in (0, 1):
        found = share(run(num=num), None, [{"CPU": 8}])
        assert (found.concurrency, found.resources, found.workers.num) == (8, {"CPU": 1.0}, 0)


def test_wanted_cpus_and_gpus_set_how_many_run() -> None:
    assert share(run(num=0, cpus=4), None, [{"CPU": 10}]).concurrency == 2
    found = share(run(num=0, gpu=True), None, [{"CPU": 16, "GPU": 3}])
    assert (found.concurrency, found.resources) == (3, {"CPU": 1.0, "GPU": 1})
    assert share(run(num=2, gpu=True, cpus=1), None, [{"CPU": 16, "GPU": 5}]).concurrency == 2


def test_a_concurrency_that_is_asked_for_divides_what_there_is() -> None:
    found = share(run(num=0), 4, [{"CPU": 2}])
    assert (found.concurrency, found.resources) == (4, {"CPU": 0.5})
    assert found.workers.threads == max(1, CORES // 4)
    assert share(run(num=0, threads=3), 4, [{"CPU": 2}]).workers.threads == 3


def test_several_workers_leave_a_cpu_to_ray_data() -> None:
    found = share(run(num=2, cpus=1), None, [{"CPU": 9}])
    assert (found.concurrency, found.resources) == (4, {"CPU": CONTROLLER_CPUS})
    assert (found.workers.num, found.workers.cpus) == (2, 0.99)
    taken = found.concurrency * (2 * 0.99 + CONTROLLER_CPUS)
    assert 9 - taken >= 1, "a task of Ray Data takes a whole CPU"
    small = share(run(num=2), None, [{"CPU": 2}])  # one CPU for two workers
    assert (small.concurrency, small.workers.cpus) == (1, 0.49)


@pytest.mark.parametrize(
    ("workers", "cluster", "wanted"),
    [
        ({"num": 0, "cpus": 4}, {"CPU": 2}, "a trial needs 1 × 4 CPUs, the cluster has 2 CPUs"),
        ({"num": 2, "gpu": True}, {"CPU": 8, "GPU": 1}, "2 GPUs, the cluster has 8 CPUs and 1 GPUs"),
    ],
)
def test_a_cluster_that_is_too_small(workers: dict[str, object], cluster: dict[str, float], wanted: str) -> None:
    with pytest.raises(ConfigError) as refused:
        share(run(**workers), None, [cluster])
    assert wanted in str(refused.value)


def test_no_process_is_on_two_nodes() -> None:
    three = [{"CPU": 3}, {"CPU": 3}, {"CPU": 3}]
    assert share(run(num=0, cpus=2), None, three).concurrency == 3, "of nine CPUs, one of each node stays free"
    found = share(run(num=0), 4, three)
    assert (found.concurrency, found.resources) == (4, {"CPU": 1.0})
    found = share(run(num=0, cpus=3), 4, three)  # four on three nodes: two on one of them
    assert found.resources == {"CPU": 1.5}
    with pytest.raises(ConfigError, match=r"needs 1 × 4 CPUs, the cluster has 9 \(3, 3, 3\) CPUs"):
        share(run(num=0, cpus=4), None, three)


def test_gpus_and_cpus_have_to_be_on_one_node() -> None:
    nodes = [{"CPU": 16}, {"CPU": 2, "GPU": 8}]
    assert share(run(num=0, gpu=True), None, nodes).concurrency == 2
    with pytest.raises(ConfigError, match=r"16, 2.* and 8 .*0, 8.* GPUs"):
        share(run(num=0, gpu=True, cpus=4), None, nodes)


def test_shares_are_of_the_nodes_that_have_a_gpu() -> None:
    nodes = [{"CPU": 16}, {"CPU": 2, "GPU": 4}, {"CPU": 0, "GPU": 1}]
    found = share(run(num=0, gpu=True), 4, nodes)
    assert found.resources == {"CPU": 0.5, "GPU": 1}, "though sixteen CPUs are free where no GPU is"
    one_gpu_each = [{"CPU": 16, "GPU": 1}, {"CPU": 2, "GPU": 8}]
    assert share(run(num=0, gpu=True, cpus=4), 1, one_gpu_each).resources["CPU"] == 4.0
    assert share(run(num=0, gpu=True), 5, one_gpu_each).resources["CPU"] == 0.5, "one on the first, four on the second"


def test_threads_are_a_share_of_a_nodes_cores() -> None:
    four = [{"CPU": 8}] * 4
    assert share(run(num=0), 8, four).workers.threads == 4, "two on each node of eight"
    assert share(run(num=2), 4, four).workers.threads == 4
    head = {"CPU": 0}  # which holds no work
    assert share(run(num=0), 8, [head, *four]).workers.threads == 4
    gpus = [{"CPU": 32}, {"CPU": 8, "GPU": 2}, {"CPU": 8, "GPU": 2}]
    assert share(run(num=0, gpu=True), 4, gpus).workers.threads == 4
    assert share(run(num=0, gpu=True), 2, gpus[:2]).workers.threads == 4, "whatever cores this machine has"


def test_the_cpu_of_ray_data_is_taken_from_the_node_that_has_most() -> None:
    found = share(run(num=2, cpus=1), None, [{"CPU": 1}, {"CPU": 4}])
    assert found.concurrency == 2, "one worker on the first node, three on the second"
    assert found.workers.cpus == 0.98  # what waits for workers holds a hundredth each


def test_more_at_a_time_than_gpus_is_refused() -> None:
    with pytest.raises(ConfigError, match="concurrency=3: the cluster's 2 GPUs allow 2"):
        share(run(num=0, gpu=True), 3, [{"CPU": 8, "GPU": 2}])


def test_a_ray_on_this_machine_declares_what_is_needed() -> None:
    assert cpus_to_declare(run(num=0), 4) == 4
    assert cpus_to_declare(run(num=2, cpus=1), 2) == 5
    assert sweep_config({"a": {"choice": [1]}}).concurrency is None
