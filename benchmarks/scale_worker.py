"""One rank of benchmarks/scale.py: the library's own training steps on a data set, in a gloo group, and what they cost.

The table's rows are fetched inside the forward pass; here that time is shown as a phase of its own, "rows".
"""

import json
import os
import statistics
import sys
import time
from collections.abc import Iterable, Iterator, Mapping
from datetime import timedelta
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from common import ROOT
from memory import proportional_mb

from braidrec.config.load import load_config
from braidrec.config.run import RunConfig
from braidrec.data.delivery import Rows
from braidrec.data.folder import DatasetFolder
from braidrec.data.storage import Location
from braidrec.training import node_rows
from braidrec.training.build import build_parts
from braidrec.training.context import ProcessGroup
from braidrec.training.environment import use_threads
from braidrec.training.events import Event
from braidrec.training.loop import Loop
from braidrec.training.step import Position

WARM_UP = 5
GROUP_SECONDS = 900


class Worker(ProcessGroup):
    """A rank that reads its own shard and tells nobody."""

    def train_chunks(self) -> Iterable[Rows] | None:
        return None

    def emit(self, event: Event) -> None:
        return None


class StepsOnly(Loop):
    """A loop that is only stepped: nothing is ranked."""

    def _evaluation(self, *_: Any, **__: Any) -> None:
        return None


class Meter:
    """Counts edges and input rows, and takes the fetching of rows out of the phase that it happens in."""

    def __init__(self, loop: Loop) -> None:
        self.edges = self.input_rows = 0
        self.rows_seconds = 0.0
        source = loop.parts.source
        draw = source.neighbourhood

        def counted(*arguments: Any, **named: Any) -> Any:
            found = draw(*arguments, **named)
            self.edges += sum(hop.structure.num_edges for hop in found.hops)
            self.input_rows += len(found.input_nodes)
            return found

        source.neighbourhood = counted  # type: ignore[method-assign]
        for table in loop.parts.tables.values():
            table.fetch = self._timed(table.fetch)  # type: ignore[method-assign]

    def reset(self) -> None:
        self.edges = self.input_rows = 0
        self.rows_seconds = 0.0

    def _timed(self, fetch: Any) -> Any:
        def timed(nodes: Any) -> Any:
            start = time.perf_counter()
            rows = fetch(nodes)
            self.rows_seconds += time.perf_counter() - start
            return rows

        return timed


def main() -> None:
    settings = json.loads(sys.argv[1])
    use_threads(settings["threads"])
    rank, world_size = settings["rank"], settings["workers"]
    dist.init_process_group(
        "gloo",
        init_method=f"file://{settings['rendezvous']}",
        rank=rank,
        world_size=world_size,
        timeout=timedelta(seconds=GROUP_SECONDS),
    )
    if settings["sent"]:
        node_rows.memory_of_all_ranks = lambda *_: None
    config = load_config(RunConfig, [ROOT / "configs" / "models" / "lightgcn.yaml"], settings["overrides"])
    context = Worker(device=torch.device("cpu"), local_rank=rank)
    began = time.perf_counter()
    folder = DatasetFolder.open(config.data.path)
    loop = StepsOnly(config, build_parts(config, folder, context), context, Location.of(settings["work"]))
    opened = time.perf_counter() - began
    measured = measure(loop, settings["steps"])
    memory = memory_of_all(context, Path(config.cache or ""))
    if rank == 0:
        facts = {name: loop.parts.facts[name] for name in ("propagation", "tables") if name in loop.parts.facts}
        print(json.dumps({"seconds_until_ready": round(opened, 1), **measured, **memory, "facts": facts}), flush=True)
    dist.barrier()
    dist.destroy_process_group()
    sys.stderr.flush()
    os._exit(0)  # gloo's threads may abort the interpreter that ends while they do


def measure(loop: Loop, steps: int) -> dict[str, Any]:
    """Rates over all ranks, and the phases of this one, over `steps` steps after some that warm up.

    On a machine that others use too, the processor's time says more than the clock.
    """
    meter, seconds, processor = Meter(loop), list[float](), 0.0
    batches = _endless(loop)
    for step in range(steps + WARM_UP):
        if step == WARM_UP:
            meter.reset()
            loop.timer.take()
            processor = time.process_time()
        start = time.perf_counter()
        with loop.timer.phase("data"):
            epoch, at, rows = next(batches)
        loop.step.run(rows, Position(epoch=epoch, step=at, global_step=step))
        if step >= WARM_UP:
            seconds.append(time.perf_counter() - start)
        if loop.context.rank == 0 and seconds and len(seconds) % 20 == 0:
            rate = loop.config.training.batch_size * len(seconds) / sum(seconds)
            busy = 1000 * (time.process_time() - processor) / len(seconds)
            said = f"step {len(seconds)} of {steps}: {rate:,.0f} interactions/s, {busy:.0f} ms of the processor a step"
            print(f"{said}, {meter.input_rows // len(seconds):,} rows", file=sys.stderr, flush=True)
    processor = time.process_time() - processor
    phases = loop.timer.take()
    phases["rows"] = meter.rows_seconds
    phases["forward_backward"] -= meter.rows_seconds
    batch, total = loop.config.training.batch_size, sum(seconds)
    edges, busy = loop.context.all_reduce(torch.tensor([float(meter.edges), processor], dtype=torch.float64)).tolist()
    return {
        "interactions_per_second": round(batch * steps / total),
        "of_the_median_step": round(batch / statistics.median(seconds)),
        "million_edges_per_second": round(edges / total / 1e6, 2),
        "input_rows_per_batch": round(meter.input_rows / steps),
        "input_rows_per_interaction": round(meter.input_rows / steps / loop.batch_rows, 1),
        "edges_per_batch": round(meter.edges / steps),
        "milliseconds_per_step": round(1000 * total / steps, 1),
        "processor_milliseconds_per_step_and_worker": round(1000 * busy / steps / loop.context.world_size, 1),
        "milliseconds_by_phase": {name: round(1000 * value / steps, 1) for name, value in sorted(phases.items())},
    }


def memory_of_all(context: Worker, cache: Path) -> dict[str, Any]:
    """Proportional memory of every rank while all of them hold what they trained with."""
    dist.barrier()
    own = proportional_mb(os.getpid(), cache)
    parts: list[Mapping[str, float]] = [{} for _ in range(context.world_size)]
    dist.all_gather_object(parts, own)
    dist.barrier()
    return {
        "memory_mb": round(sum(part["all"] for part in parts)),
        "memory_mb_of_workers": [round(part["all"]) for part in parts],
        "shared_graph_mb": round(sum(part["mapped"] for part in parts)),
    }


def _endless(loop: Loop) -> Iterator[tuple[int, int, Rows]]:
    epoch = 0
    while True:
        epoch += 1
        for step, rows in enumerate(loop.parts.delivery.batches(epoch, loop.batch_rows, loop.steps_per_epoch)):
            yield epoch, step, rows


if __name__ == "__main__":
    main()
