"""Trainings on a Ray cluster of two nodes, simulated on this machine; one node is lost: `cluster_session.py FOLDER`.

A process of its own, as `training_session.py` is; `test_node_lost.py` judges the report.
"""

import json
import sys
import threading
import time
from pathlib import Path
from typing import Any

import ray
from ray.cluster_utils import Cluster
from training_session import STREAMED, Watch, checkpoint_after, configured

from braidrec import train
from braidrec.data.planted import generate_planted
from braidrec.display.quiet import quiet_ray
from braidrec.training.events import EpochEnd

EPOCHS = 4
LOST_AFTER = 1
"""The node is lost in the epoch after this one."""
SHARED = (*STREAMED, f"training.epochs={EPOCHS}", "tracking.enabled=false", "training.batch_size=240")


class LoseNode:
    """Takes a node away in the middle of an epoch, and measures how long the run takes to get over it."""

    def __init__(self, cluster: Cluster, node: Any, run: Path) -> None:
        self._cluster, self._node, self._run = cluster, node, run
        self._lost_at: float | None = None
        self.recovery_seconds: float | None = None

    def __call__(self, event: EpochEnd) -> None:
        if event.epoch == LOST_AFTER and self._lost_at is None:
            threading.Thread(target=self._lose, args=(event.metrics["train/seconds"] / 3,), daemon=True).start()
        elif self._lost_at is not None and self.recovery_seconds is None:
            self.recovery_seconds = time.monotonic() - self._lost_at

    def _lose(self, seconds_into_the_epoch: float) -> None:
        while not checkpoint_after(self._run, LOST_AFTER).is_dir():
            time.sleep(0.005)
        time.sleep(seconds_into_the_epoch)
        self._lost_at = time.monotonic()
        self._cluster.remove_node(self._node, allow_graceful=False)


def run(folder: Path, name: str, watch: Watch, *overrides: str) -> dict[str, Any]:
    """Train; the metrics, and what was seen and left behind."""
    result = train(configured(folder, "planted", name, *SHARED, *overrides), listeners=(watch,))
    groups = ray.util.placement_group_table()
    return {
        "starts": watch.starts,
        "workers": watch.compute,
        "ends": watch.ends,
        "metrics": result.metrics,
        "groups_left": [group["state"] for group in groups.values() if group["state"] not in ("REMOVED", "REMOVING")],
    }


class Computing(Watch):
    """Also keeps what each start says of its workers."""

    def __init__(self, *arguments: Any) -> None:
        super().__init__(*arguments)
        self.compute: list[str] = []

    def handle(self, event: Any) -> None:
        super().handle(event)
        facts = getattr(event, "facts", None)
        if facts is not None:
            self.compute.append(facts["compute"])


def main(folder: Path) -> None:
    generate_planted(
        str(folder / "planted"), num_users=900, num_items=500, num_interactions=18_000, seed=3, modalities={}
    )
    quiet = quiet_ray()
    cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 3, "include_dashboard": False})
    second = cluster.add_node(num_cpus=2)
    ray.init(address=cluster.address, **quiet.init_arguments)
    report = {
        "three": run(folder, "three", Computing(), "workers.num=3", "workers.cpus=1"),
        "whole": run(folder, "whole", Computing(), "workers.num=2", "workers.cpus=2"),
    }
    loss = LoseNode(cluster, second, folder / "runs" / "lost")
    report["lost"] = run(folder, "lost", Computing(loss), "workers.num=2", "workers.least=1", "workers.cpus=2")
    report["lost"]["recovery_seconds"] = loss.recovery_seconds
    (folder / "report.json").write_text(json.dumps(report))
    ray.shutdown()
    cluster.shutdown()


if __name__ == "__main__":
    main(Path(sys.argv[1]))
