"""What a sweep's driver writes into the MLflow runs of its trials: their state, and their end where they cannot."""

from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from braidrec.tracking.messages import Status
from braidrec.tracking.naming import first_line, tags
from braidrec.tracking.store import absolute_tracking_uri, connect


class TrialRuns:
    """Tags and ends runs of other processes, on a thread; what did not work is tried again once, at the end.

    Args:
        uri: tracking URI.
        inform: receives sentences for a person.
    """

    def __init__(self, uri: str, inform: Callable[[str], None]) -> None:
        self._uri, self._inform = absolute_tracking_uri(uri), inform
        self._client: Any = None
        self._thread = ThreadPoolExecutor(max_workers=1, thread_name_prefix="trial-runs")
        self._again: list[tuple[str, dict[str, str], Status | None]] = []

    def settle(self, run_id: str, values: Mapping[str, str], end_as: Status | None = None) -> None:
        """Set tags of a run.

        Args:
            run_id: MLflow's id.
            values: the tags.
            end_as: end the run with this status if it is RUNNING: its process is gone.
        """
        self._thread.submit(self._try, (run_id, dict(values), end_as), last=False)

    def wait(self) -> None:
        """Wait until everything so far was tried."""
        self._thread.submit(int).result()

    def close(self) -> None:
        """Wait for what is under way, and try once more what failed."""
        self._thread.shutdown(wait=True)
        for order in self._again:
            self._try(order, last=True)

    def _try(self, order: tuple[str, dict[str, str], Status | None], *, last: bool) -> None:
        run_id, values, end_as = order
        try:
            if self._client is None:
                self._client = connect(self._uri)
            for key, value in tags(values).items():
                self._client.set_tag(run_id, key, value)
            if end_as is not None and self._client.get_run(run_id).info.status == "RUNNING":
                self._client.set_terminated(run_id, end_as)
        except Exception as error:  # tracking never ends a sweep
            if last:
                self._inform(f"MLflow run {run_id} could not be given its state: {first_line(error)}")
            else:
                self._again.append(order)
