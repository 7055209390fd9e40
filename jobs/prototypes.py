"""Say what the prototypes of a finished run of ADDVAE stand for: the items and the words nearest to each.

    python jobs/prototypes.py --set run=NAME
    python jobs/prototypes.py --set run=NAME --set top=20 --set label=title      items by a column of items.parquet

Writes prototypes.md, prototypes.html and prototypes.json into the run's folder, as the training's end does with the
defaults (and into its MLflow run). Keys: docs/configuration.md.
Exit status: 0 done, 1 a damaged run, 2 refused.
"""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "distributed"))

from braidrec.command_line import job_parser, run_job


def main() -> None:
    arguments = job_parser(__doc__).parse_args()
    from braidrec.config.load import load_config
    from braidrec.config.runs import PrototypesConfig

    config = load_config(PrototypesConfig, arguments.config, arguments.overrides)
    from braidrec.runs.prototypes import as_table, prototypes_config

    result = prototypes_config(config)
    print(as_table(result.prototypes))
    print(f"table: {result.table_file}\npage: {result.page_file}\nwith cosines: {result.json_file}")


if __name__ == "__main__":
    run_job(main)
