"""Compare tracked runs: which candidate is best, is the difference real, what mattered, what does it cost?

    python jobs/compare.py --experiment braidrec
    python jobs/compare.py --experiment braidrec --set sweep=fusion --set metric=ndcg@10
    python jobs/compare.py --set storage=/somewhere/runs RUN_ID RUN_ID RUN_ID

Runs are named by an experiment, or by MLflow's ids; a sweep's id stands for all its runs. Prints conclusions and tests,
and writes a report as one HTML file. Keys: docs/configuration.md; what the tests mean: docs/comparing.md.
Exit status: 0 done, 2 refused.
"""

import json
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "distributed"))

from braidrec.command_line import job_parser, run_job


def main() -> None:
    parser = job_parser(__doc__)
    parser.add_argument("runs", nargs="*", metavar="RUN", help="MLflow's id of a run or a sweep")
    parser.add_argument("--experiment", metavar="NAME", help="all runs of this MLflow experiment")
    arguments = parser.parse_args()
    overrides = list(arguments.overrides)
    if arguments.experiment is not None:
        overrides.append(f"experiment={json.dumps(arguments.experiment)}")
    if arguments.runs:
        overrides.append(f"runs={json.dumps(arguments.runs)}")
    from braidrec.config.compare import CompareConfig
    from braidrec.config.load import load_config

    config = load_config(CompareConfig, arguments.config, overrides)
    from braidrec.display.bars import counting_bar
    from braidrec.search.compare import compare_config
    from braidrec.search.comparison_tables import print_comparison

    with counting_bar("reading", "runs") as progress:
        comparison = compare_config(config, progress)
    print_comparison(comparison, config.pairs)


if __name__ == "__main__":
    run_job(main)
