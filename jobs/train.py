"""Train a recommender.

One YAML file is one run; several are merged from left to right, --set overrides single keys:

    python jobs/train.py --config configs/quickstart.yaml
    python jobs/train.py --config configs/models/lightgcn.yaml --set data.path=datasets/mine --set workers.num=4
    python jobs/train.py --config configs/models/lightgcn.yaml --set data.path=datasets/mine --resume NAME

On a cluster: ray job submit --working-dir . -- python jobs/train.py --config … (docs/cluster.md).
All keys: docs/configuration.md. Exit status: 0 finished, 1 failed, 2 refused, 128 + n ended by signal n.
"""

import argparse
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "distributed"))

from braidrec.config.load import ConfigError, load_config, to_yaml
from braidrec.config.run import RunConfig


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--config", action="append", default=[], metavar="FILE", help="YAML file; may be repeated")
    parser.add_argument(
        "--set", action="append", default=[], metavar="a.b=c", dest="overrides", help="override one key"
    )
    parser.add_argument("--resume", metavar="NAME", help="continue the run of this name in the storage folder")
    arguments = parser.parse_args()
    try:
        config = load_config(RunConfig, arguments.config, arguments.overrides)
    except ConfigError as error:
        print(error, file=sys.stderr)
        return 2
    from braidrec.training.environment import restart_with_training_environment

    if config.workers.num == 0:
        restart_with_training_environment(config.workers.threads)
    print(to_yaml(config), flush=True)
    return _train(config, arguments.resume)


def _train(config: RunConfig, resume: str | None) -> int:
    from braidrec.data.errors import DatasetError
    from braidrec.display.results import print_train_result
    from braidrec.training.driver import Stopped, train
    from braidrec.training.result import RunError
    from braidrec.training.step import DivergedError

    try:
        result = train(config, resume=resume)
    except (ConfigError, DatasetError) as error:
        print(error, file=sys.stderr)
        return 2
    except (RunError, DivergedError) as error:
        print(f"the run failed: {error}", file=sys.stderr)
        return 1
    except Stopped as stop:
        print(stop, file=sys.stderr)
        return 128 + stop.signal
    print_train_result(result)
    return 0


if __name__ == "__main__":
    sys.exit(main())
