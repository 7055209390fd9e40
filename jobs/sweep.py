"""Search for the settings that are best on your data: Ray Tune over a space of a run's keys.

    python jobs/sweep.py --config configs/sweeps/quick.yaml
    python jobs/sweep.py --config configs/sweeps/fusion.yaml --set run.data.path=datasets/mine --set budget.trials=20
    python jobs/sweep.py --resume NAME
    python jobs/sweep.py --resume NAME --set budget.trials=40

A sweep file names a base run and the keys to vary; the best trials, by validation alone, are trained again with other
seeds and tested once. On a cluster: ray job submit --working-dir . -- python jobs/sweep.py --config …
All keys: docs/configuration.md. Exit status: 0 finished, 1 failed, 2 refused, 128 + n ended by signal n.
"""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "distributed"))

from braidrec.command_line import job_parser, run_job


def main() -> None:
    parser = job_parser(__doc__)
    parser.add_argument("--resume", metavar="NAME", help="go on with the sweep of this name (in runs/) or folder")
    arguments = parser.parse_args()
    from braidrec.config.load import load_config, to_yaml
    from braidrec.config.sweep import SweepConfig
    from braidrec.search.folder import base_of, stored_config
    from braidrec.tracking.naming import redact

    if arguments.resume is not None and not arguments.config:
        config = stored_config(arguments.resume, arguments.overrides)
    else:
        config = load_config(SweepConfig, arguments.config, arguments.overrides)
    from braidrec.training.environment import allocator_of, restart_with_training_environment

    # The processes of trials inherit how memory is allocated.
    allocator = allocator_of(base_of(config))
    restart_with_training_environment(1, allocator=allocator)
    print(redact(to_yaml(config)), flush=True)
    from braidrec.search.summary import print_sweep_result
    from braidrec.search.sweep import run_sweep

    print_sweep_result(run_sweep(config, resume=arguments.resume))


if __name__ == "__main__":
    run_job(main)
