"""Write what a finished run recommends, as Parquet in the data set's own ids.

    python jobs/recommend.py --set run=NAME                                      the best 20 items of every user
    python jobs/recommend.py --set run=NAME --set 'users=[alice, bob]' --set k=5
    python jobs/recommend.py --set run=NAME --set candidates_file=in_stock.txt --set exclude=none
    python jobs/recommend.py --set run=NAME --set new_users=sessions.csv         to users whom training did not see
    python jobs/recommend.py --set run=NAME --set index=ann                      by an approximate index (FAISS)
    python jobs/recommend.py --set run=NAME --set vectors=true                   also user and item vectors

Columns: user_id, rank, item_id, score. Keys: docs/configuration.md.
Exit status: 0 done, 1 a damaged run, 2 refused.
"""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "distributed"))

from braidrec.command_line import job_parser, run_job


def main() -> None:
    arguments = job_parser(__doc__).parse_args()
    from braidrec.config.load import load_config
    from braidrec.config.runs import RecommendConfig

    config = load_config(RecommendConfig, arguments.config, arguments.overrides)
    from braidrec.display.bars import counting_bar
    from braidrec.runs.recommend import recommend_config

    with counting_bar("ranking", "users") as progress:
        result = recommend_config(config, progress)
    print(f"{result.num_rows:,} rows for {result.num_users:,} users: {result.recommendations}")
    if result.approximate is not None:
        print(result.approximate.text)
    if result.unknown_items or result.users_without_items:
        print(f"item ids that the data set does not have: {result.unknown_items:,}")
        print(f"users left out, for they have no other: {result.users_without_items:,}")
    for side, file in (("user", result.user_vectors), ("item", result.item_vectors)):
        if file is not None:
            print(f"{side} vectors: {file}")


if __name__ == "__main__":
    run_job(main)
