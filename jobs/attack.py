"""What is left of a finished run's ranking when the items' features are moved against it.

    python jobs/attack.py --set run=NAME
    python jobs/attack.py --set run=NAME --set epsilons=[0.05,0.1,0.2] --set modalities=[image]

For each ε every item's vector is moved by ε to where the BPR over the train interactions rises fastest, and once more
by ε at random. Prints the curve and writes it as JSON. Keys: docs/configuration.md.
Exit status: 0 done, 1 a damaged run, 2 refused.
"""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "distributed"))

from braidrec.command_line import job_parser, run_job


def main() -> None:
    arguments = job_parser(__doc__).parse_args()
    from braidrec.config.load import load_config
    from braidrec.config.runs import AttackConfig

    config = load_config(AttackConfig, arguments.config, arguments.overrides)
    from braidrec.display.bars import counting_bar
    from braidrec.display.results import print_attack_result
    from braidrec.runs.attack import attack_config

    with counting_bar("evaluating", "points") as progress:
        result = attack_config(config, progress)
    print_attack_result(result)


if __name__ == "__main__":
    run_job(main)
