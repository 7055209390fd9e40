"""The few things that a preparation asks of Ray Data: run a function over inputs, and shuffle rows by a key.

Tasks answer with one small row each and write their tables themselves, so nothing that grows with the interactions
passes through the driver. Bad data is an answer too: it comes back as text and is raised here, without a Ray traceback.
"""

import logging
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

import braidrec
from braidrec.data.errors import DatasetError
from braidrec.display import quiet_ray

ERROR_COLUMN = "error"
LEAST_LOGICAL_CPUS = 3
"""A shuffle's reducers reserve CPUs while its mappers need some: on one or two they would wait for each other."""

Inputs = Sequence[Mapping[str, Any]]
Answer = dict[str, Any]


@contextmanager
def ray_session() -> Iterator[None]:
    """Ray as it is if it runs already in this process, else the cluster that RAY_ADDRESS names (as a submitted job
    does), else a Ray of our own that ends with the block.

    On a cluster the library itself travels with the job. Progress bars and Ray Data's chatter are off inside.

    Raises:
        DatasetError: RAY_ADDRESS names a place for submitting jobs, not a cluster.
    """
    address = os.environ.get("RAY_ADDRESS", "")
    if address.startswith(("http://", "https://")):
        raise DatasetError(
            f"RAY_ADDRESS={address} is where jobs are submitted: run `ray job submit --working-dir . -- python "
            "jobs/prepare.py …`, or unset RAY_ADDRESS to prepare on this machine alone"
        )
    settings = quiet_ray()
    import ray

    started = not ray.is_initialized()
    if started and address:
        package = str(Path(braidrec.__file__).parent)
        ray.init(runtime_env={"py_modules": [package]}, **settings.init_arguments)
    elif started:
        # Not any other Ray of this machine, whose CPUs are somebody else's.
        cpus = max(LEAST_LOGICAL_CPUS, os.cpu_count() or 1)
        ray.init(address="local", num_cpus=cpus, include_dashboard=False, **settings.init_arguments)
    try:
        with _quiet_ray_data():
            yield
    finally:
        if started:
            ray.shutdown()


@contextmanager
def _quiet_ray_data() -> Iterator[None]:
    from ray.data import DataContext

    context = DataContext.get_current()
    logger = logging.getLogger("ray.data")
    before = (context.enable_progress_bars, context.print_on_execution_start, logger.level)
    context.enable_progress_bars = False
    context.print_on_execution_start = False
    logger.setLevel(logging.ERROR)
    try:
        yield
    finally:
        context.enable_progress_bars, context.print_on_execution_start = before[:2]
        logger.setLevel(before[2])


def run_tasks(inputs: Inputs, task: Callable[[Answer], Iterator[Answer]], schema: Any) -> Iterator[Answer]:
    """Run `task` once an input, in parallel; its answers are rows of `schema`, in no particular order.

    Raises:
        DatasetError: raised by a task.
    """
    if not inputs:
        return
    dataset = _dataset_of(inputs).map_batches(_answering(task, schema), batch_size=1, batch_format="pyarrow")
    yield from _answers(dataset)


def shuffle_tasks(
    inputs: Inputs,
    produce: Callable[[Answer], Iterator[Any]],
    consume: Callable[[Any], Answer],
    *,
    key: str,
    num_keys: int,
    schema: Any,
    fits_one_task: bool,
) -> Iterator[Answer]:
    """`produce` makes tables of each input; all rows with one value of the integer column `key` meet in `consume`.

    Args:
        num_keys: values that `key` can have, from 0 on.
        fits_one_task: the tables are small enough to be held together. Then one task does it all, because a shuffle's
            reducers are processes of their own, whose start takes longer than the work.
    """
    if not inputs:
        return
    if fits_one_task:
        whole = partial(_in_one_task, inputs=inputs, produce=produce, consume=consume, key=key)
        yield from run_tasks([{"all": True}], whole, schema)
        return
    dataset = (
        _dataset_of(inputs)
        .map_batches(_producing(produce), batch_size=1, batch_format="pyarrow")
        .groupby(key, num_partitions=num_keys)
        .map_groups(_consuming(consume, schema), batch_format="pyarrow")
    )
    yield from _answers(dataset)


def stream_tables(inputs: Inputs, produce: Callable[[Answer], Iterator[Any]], schema: Any) -> Iterator[Any]:
    """`produce` makes tables of `schema` of each input, in parallel; they come in no particular order, a few at a time.

    Raises:
        DatasetError: raised by `produce`.
    """
    if not inputs:
        return
    with _quiet_ray_data():
        dataset = _dataset_of(inputs).map_batches(
            _producing_or_error(produce, schema), batch_size=1, batch_format="pyarrow"
        )
        for table in dataset.iter_batches(batch_size=None, batch_format="pyarrow"):
            errors = table.column(ERROR_COLUMN).drop_null()
            if len(errors):
                raise DatasetError(errors[0].as_py())
            yield table.drop_columns([ERROR_COLUMN])


def sorted_batches(inputs: Inputs, produce: Callable[[Answer], Iterator[Any]], keys: Sequence[str]) -> Iterator[Any]:
    """`produce` makes tables of each input; all rows come back sorted by `keys`, a block at a time."""
    if not inputs:
        return
    dataset = _dataset_of(inputs).map_batches(_producing(produce), batch_size=1, batch_format="pyarrow")
    yield from dataset.sort(list(keys)).iter_batches(batch_size=None, batch_format="pyarrow")


def share(value: Any) -> Any:
    """Put a large read-only value where every task can map it; `ray.get` gives it back."""
    import ray

    return ray.put(value)


def fetch(reference: Any) -> Any:
    """What `share` stored."""
    import ray

    return ray.get(reference)


def _in_one_task(
    _: Answer,
    *,
    inputs: Inputs,
    produce: Callable[[Answer], Iterator[Any]],
    consume: Callable[[Any], Answer],
    key: str,
) -> Iterator[Answer]:
    table = pa.concat_tables([table for entry in inputs for table in produce(dict(entry))])
    keys = table.column(key)
    for value in pc.unique(keys).sort():
        yield consume(table.filter(pc.equal(keys, value)))


def _dataset_of(inputs: Inputs) -> Any:
    import ray.data

    return ray.data.from_items([dict(entry) for entry in inputs], override_num_blocks=len(inputs))


def _answers(dataset: Any) -> Iterator[Answer]:
    for batch in dataset.iter_batches(batch_size=None, batch_format="pyarrow"):
        for row in range(batch.num_rows):
            answer = {name: _value(batch.column(name)[row]) for name in batch.column_names}
            if error := answer.pop(ERROR_COLUMN):
                raise DatasetError(error)
            yield answer


def _value(scalar: Any) -> Any:
    """Lists stay Arrow arrays, because they can be long."""
    return scalar.values if pa.types.is_list(scalar.type) or pa.types.is_large_list(scalar.type) else scalar.as_py()


def _answering(task: Callable[[Answer], Iterator[Answer]], schema: Any) -> Callable[[Any], Iterator[Any]]:
    """A task's answers as one-row tables, its DatasetError as an answer."""

    def answer(batch: Any) -> Iterator[Any]:
        try:
            for row in task(batch.to_pylist()[0]):
                yield _one_row(row, schema)
        except DatasetError as error:
            yield _one_row({ERROR_COLUMN: str(error)}, schema)

    return answer


def _producing(produce: Callable[[Answer], Iterator[Any]]) -> Callable[[Any], Iterator[Any]]:
    def tables(batch: Any) -> Iterator[Any]:
        yield from produce(batch.to_pylist()[0])

    return tables


def _producing_or_error(produce: Callable[[Answer], Iterator[Any]], schema: Any) -> Callable[[Any], Iterator[Any]]:
    """The tables with a column of no errors, or a row that is nothing else than the error."""
    error_field = pa.field(ERROR_COLUMN, pa.string())

    def tables(batch: Any) -> Iterator[Any]:
        try:
            for table in produce(batch.to_pylist()[0]):
                yield table.append_column(error_field, pa.nulls(table.num_rows, pa.string()))
        except DatasetError as error:
            nothing = {field.name: pa.nulls(1, field.type) for field in schema}
            yield pa.table({**nothing, ERROR_COLUMN: pa.array([str(error)])}, schema=schema.append(error_field))

    return tables


def _consuming(consume: Callable[[Any], Answer], schema: Any) -> Callable[[Any], Any]:
    def answer(table: Any) -> Any:
        return _one_row(consume(table), schema)

    return answer


def _one_row(answer: Answer, schema: Any) -> Any:
    columns = {ERROR_COLUMN: pa.array([answer.get(ERROR_COLUMN)], pa.string())}
    for field in schema:
        columns[field.name] = _cell(answer.get(field.name), field.type)
    return pa.table(columns)


def _cell(value: Any, kind: Any) -> Any:
    if value is None or not (pa.types.is_list(kind) or pa.types.is_large_list(kind)):
        return pa.array([value], kind)
    values = value if isinstance(value, pa.Array) else pa.array(value, kind.value_type)
    offsets = pa.array([0, len(values)], pa.int64())
    return pa.LargeListArray.from_arrays(offsets, values.cast(kind.value_type)).cast(kind)
