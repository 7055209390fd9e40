"""What stages.py adds to Ray Data: answers, refusals, and a shuffle that may do without one."""

import pyarrow as pa
import pytest

from braidrec.data.errors import DatasetError
from braidrec.data.stages import ray_session, run_tasks, shuffle_tasks

SCHEMA = pa.schema([("key", pa.int64()), ("values", pa.large_list(pa.int64()))])


def test_a_submission_address_is_refused(monkeypatch):
    monkeypatch.setenv("RAY_ADDRESS", "http://127.0.0.1:8265")
    with pytest.raises(DatasetError, match=r"is where jobs are submitted: run `ray job submit"), ray_session():
        pass


@pytest.fixture(scope="module")
def ray_running():
    with ray_session():
        yield


@pytest.mark.slow
def test_shuffled_or_not_the_same_rows_meet(ray_running):
    # Nested, so that they travel by value: Ray's workers cannot import this file.
    def numbers_up_to(entry):
        count = entry["n"]
        yield pa.table({"key": pa.array([n % 3 for n in range(count)], pa.int32()), "value": list(range(count))})

    def collect(table):
        return {"key": table.column("key")[0].as_py(), "values": sorted(table.column("value").to_pylist())}

    expected = {key: sorted(n for top in (4, 7) for n in range(top) if n % 3 == key) for key in range(3)}
    for fits in (True, False):
        answers = shuffle_tasks(
            [{"n": 4}, {"n": 7}], numbers_up_to, collect, key="key", num_keys=3, schema=SCHEMA, fits_one_task=fits
        )
        assert {answer["key"]: answer["values"].to_pylist() for answer in answers} == expected
    assert list(run_tasks([], numbers_up_to, SCHEMA)) == []


@pytest.mark.slow
def test_bad_data_found_by_a_task_is_raised_here_without_a_ray_traceback(ray_running):
    def refuse(entry):
        yield {"key": 0}
        raise DatasetError(f"row {entry['n']} is bad")

    with pytest.raises(DatasetError, match=r"^row 5 is bad$") as raised:
        list(run_tasks([{"n": 5}], refuse, SCHEMA))
    assert raised.value.__cause__ is None
