"""Prepare a dataset folder from raw logs. `python jobs/prepare.py --help` explains."""

import argparse
import sys

from rich.console import Console
from rich.table import Table

from braidrec.config.load import ConfigError, load_config
from braidrec.config.prepare import PrepareConfig
from braidrec.data.errors import DatasetError
from braidrec.data.prepare import PrepareResult, prepare

HELP = """\
Turn interaction logs, vectors and item tables into a dataset folder that jobs/train.py reads.

examples:
  python jobs/prepare.py --config configs/datasets/tiktok.yaml \\
      --set source.path=raw/tiktok --set output=datasets/tiktok
  python jobs/prepare.py --set output=datasets/mine --set 'source={kind: table, paths: [clicks.csv.gz]}' \\
      --set source.columns.user=customer --set source.columns.item=sku --set core.users=5 --set core.items=5

Every key, its meaning and its default: braidrec/config/prepare.py. What is written: docs/dataset-format.md."""


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=HELP, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--config", action="append", default=[], metavar="FILE", help="YAML file; repeatable, later ones win"
    )
    parser.add_argument(
        "--set", action="append", default=[], metavar="KEY=VALUE", help="override a.b=value (YAML); repeatable"
    )
    return parser.parse_args()


def show(result: PrepareResult, console: Console) -> None:
    """The summary that ends the job."""
    description = result.description
    table = Table(title=f"{description.name}: {result.path}", title_justify="left", show_header=False)
    table.add_row("users × items", f"{result.num_users:,} × {result.num_items:,}")
    for split, rows in result.rows.items():
        table.add_row(split, f"{rows:,} rows")
    for name, modality in description.modalities.items():
        shape = " × ".join(map(str, modality.shape))
        table.add_row(f"features/{name}", f"{modality.coverage:.1%} of the items, {shape} {modality.dtype}")
    for name, media in description.media.items():
        table.add_row(f"media/{name}", f"{media.rows / result.num_items:.1%} of the items")
    for entry in result.dropped:
        table.add_row("dropped", f"{entry.count:,} {entry.what}: {entry.reason}")
    for note in description.notes:
        table.add_row("note", note)
    console.print(table)
    command = f"python jobs/train.py --config configs/models/lightgcn.yaml --set data.path={result.path}"
    console.print(f"next: {command}", soft_wrap=True, highlight=False)


def main() -> int:
    arguments = parse_arguments()
    console = Console()
    try:
        config = load_config(PrepareConfig, arguments.config, arguments.set)
        with console.status("preparing") as status:
            result = prepare(config, report=status.update)
    except (ConfigError, DatasetError) as error:
        print(f"prepare: {error}", file=sys.stderr)
        return 1
    show(result, console)
    return 0


if __name__ == "__main__":
    sys.exit(main())
