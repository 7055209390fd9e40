"""Write what a finished run recommends, as Parquet in the data set's own ids.

    python jobs/recommend.py --set run=NAME                                      the best 20 items of every user
    python jobs/recommend.py --set run=NAME --set 'users=[alice, bob]' --set k=5
    python jobs/recommend.py --set run=NAME --set candidates_file=in_stock.txt --set exclude=none
    python jobs/recommend.py --set run=NAME --set vectors=true                   also user and item vectors

Columns: user_id, rank, item_id, score. Keys: docs/configuration.md. Exit status: 0 done, 2 refused.
"""

import argparse
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "distributed"))

from braidrec.config.load import ConfigError, load_config
from braidrec.config.runs import RecommendConfig


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
        config = load_config(RecommendConfig, arguments.config, arguments.overrides)
        from braidrec.display.bars import counting_bar
        from braidrec.runs.recommend import recommend_config

        with counting_bar("ranking", "users") as progress:
            result = recommend_config(config, progress)
    except (ConfigError, DatasetError, CheckpointError) as error:
        print(error, file=sys.stderr)
        return 2
    print(f"{result.num_rows:,} rows for {result.num_users:,} users: {result.recommendations}")
    for side, file in (("user", result.user_vectors), ("item", result.item_vectors)):
        if file is not None:
            print(f"{side} vectors: {file}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
