"""What a real two-worker training prints after `quiet_ray`, and what it raises when a worker fails."""

import subprocess
import sys
from pathlib import Path

import pytest

_TRAINING = """
import sys
from braidrec.display import quiet_ray
settings = quiet_ray()
import ray
from ray.train import RunConfig, ScalingConfig
from ray.train.torch import TorchTrainer

def loop():
    import ray.train
    for batch in ray.train.get_dataset_shard("train").iter_torch_batches(batch_size=100):
        pass
    print("printed by a worker")
    ray.train.report({"loss": 1.0})
    raise RuntimeError("planted failure in a worker")

ray.init(num_cpus=4, include_dashboard=False, **settings.init_arguments)
trainer = TorchTrainer(
    loop,
    scaling_config=ScalingConfig(num_workers=2),
    datasets={"train": ray.data.range(1000)},
    run_config=RunConfig(storage_path=sys.argv[1], worker_runtime_env={"env_vars": settings.worker_environment}),
)
try:
    trainer.fit()
except Exception as error:
    print(error)
"""
_CHATTER = ("TrainController", "RayTrainWorker", "SplitCoordinator", "Dataset", "oken", "Started a local", "Warning")


@pytest.mark.slow
def test_only_the_failure_of_the_worker_is_seen(tmp_path: Path) -> None:
    result = subprocess.run(
        [sys.executable, "-c", _TRAINING, str(tmp_path)], capture_output=True, text=True, timeout=280, check=True
    )
    assert "RuntimeError: planted failure in a worker" in result.stdout
    assert "in loop" in result.stdout, "the traceback says where"
    assert "printed by a worker" not in result.stdout + result.stderr
    chatter = [line for line in result.stderr.splitlines() if any(word in line for word in _CHATTER)]
    assert chatter == []
