"""Evaluate a finished run by full ranking.

    python jobs/evaluate.py --set run=NAME
    python jobs/evaluate.py --set run=NAME --set split=valid --set mask=train+valid --set auc=true
    python jobs/evaluate.py --set run=/somewhere/runs/NAME --set data_path=/moved/data --set output=/tmp/evaluation

Prints the metrics and writes them as JSON, with the values of every user as Parquet. Keys: docs/configuration.md.
Exit status: 0 done, 2 refused.
"""

import argparse
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "distributed"))

from braidrec.config.load import ConfigError, load_config
from braidrec.config.runs import EvaluateConfig


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--config", action="append", default=[], metavar="FILE", help="YAML file; may be repeated")
    parser.add_argument(
        "--set", action="append", default=[], metavar="a.b=c", dest="overrides", help="override one key"
    )
    arguments = parser.parse_args()
    from braidrec.data.errors import DatasetError
    from braidrec.training.checkpoint import CheckpointError

    try:
        config = load_config(EvaluateConfig, arguments.config, arguments.overrides)
        from braidrec.display.bars import counting_bar
        from braidrec.display.results import print_evaluate_result
        from braidrec.runs.evaluate import evaluate_config

        with counting_bar("ranking", "users") as progress:
            result = evaluate_config(config, progress)
    except (ConfigError, DatasetError, CheckpointError) as error:
        print(error, file=sys.stderr)
        return 2
    print_evaluate_result(result)
    return 0


if __name__ == "__main__":
    sys.exit(main())
