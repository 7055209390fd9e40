"""Train a recommender.

One YAML file is one run; several are merged from left to right, --set overrides single keys:

    python jobs/train.py --config configs/quickstart.yaml
    python jobs/train.py --config configs/models/lightgcn.yaml --set data.path=datasets/mine --set workers.num=4
    python jobs/train.py --config configs/models/lightgcn.yaml --set data.path=datasets/mine --resume NAME

On a cluster: ray job submit --working-dir . -- python jobs/train.py --config … (docs/cluster.md).
All keys: docs/configuration.md. Exit status: 0 finished, 1 failed, 2 refused, 128 + n ended by signal n.
"""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "distributed"))

from braidrec.command_line import job_parser, run_job


def main() -> None:
    parser = job_parser(__doc__)
    parser.add_argument("--resume", metavar="NAME", help="continue the run of this name in the storage folder")
    arguments = parser.parse_args()
    from braidrec.config.load import load_config, to_yaml
    from braidrec.config.run import RunConfig

    config = load_config(RunConfig, arguments.config, arguments.overrides)
    from braidrec.tracking.naming import redact
    from braidrec.training.environment import restart_with_training_environment

    if config.workers.num == 0:
        restart_with_training_environment(config.workers.threads, allocator=config.workers.allocator)
    from braidrec.display.results import print_train_result
    from braidrec.training.driver import train, with_absolute_places

    config = with_absolute_places(config)
    print(redact(to_yaml(config)), flush=True)

    print_train_result(train(config, resume=arguments.resume))


if __name__ == "__main__":
    run_job(main)
