"""Evaluate a finished run by full ranking.

    python jobs/evaluate.py --set run=NAME
    python jobs/evaluate.py --set run=NAME --set mask=train+valid --set auc=true
    python jobs/evaluate.py --set run=NAME --drop-modality image=0.5 --drop-modality text=0.25
    python jobs/evaluate.py --set run=/somewhere/runs/NAME --set data_path=/moved/data --set output=/tmp/evaluation

Prints the metrics and writes them as JSON, with the values of every user as Parquet. Keys: docs/configuration.md.
Exit status: 0 done, 1 a damaged run, 2 refused.
"""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "distributed"))

from braidrec.command_line import job_parser, modality_share, run_job


def main() -> None:
    parser = job_parser(__doc__)
    parser.add_argument(
        "--drop-modality", action="append", default=[], type=modality_share, dest="overrides", metavar="NAME=SHARE",
        help="treat this share of the items that have a modality as if they did not",
    )  # fmt: skip
    arguments = parser.parse_args()
    from braidrec.config.load import load_config
    from braidrec.config.runs import EvaluateConfig

    config = load_config(EvaluateConfig, arguments.config, arguments.overrides)
    from braidrec.display.bars import counting_bar
    from braidrec.display.results import print_evaluate_result
    from braidrec.runs.evaluate import evaluate_config

    with counting_bar("ranking", "users") as progress:
        result = evaluate_config(config, progress)
    print_evaluate_result(result)


if __name__ == "__main__":
    run_job(main)
