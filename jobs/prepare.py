"""Turn interaction logs, vectors and item tables into a dataset folder that jobs/train.py reads.

    python jobs/prepare.py --config configs/datasets/tiktok.yaml --set source.path=raw/tiktok
    python jobs/prepare.py --set output=datasets/mine --set 'source={kind: table, paths: [clicks.csv.gz]}' \\
        --set source.columns.user=customer --set source.columns.item=sku --set core.users=5 --set core.items=5

Ends with a table of what was written and what was left out. Keys: docs/configuration.md; the folder:
docs/dataset-format.md. Exit status: 0 done, 2 refused.
"""

import sys
from pathlib import Path
from typing import TYPE_CHECKING

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "distributed"))

from braidrec.command_line import job_parser, run_job

if TYPE_CHECKING:
    from rich.console import Console

    from braidrec.data.prepare import PrepareResult


def show(result: "PrepareResult", console: "Console") -> None:
    """The summary that ends the job."""
    from rich.table import Table

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


def main() -> None:
    arguments = job_parser(__doc__).parse_args()
    from braidrec.config.load import load_config
    from braidrec.config.prepare import PrepareConfig

    config = load_config(PrepareConfig, arguments.config, arguments.overrides)
    from rich.console import Console

    from braidrec.data.prepare import prepare

    console = Console()
    with console.status("preparing") as status:
        result = prepare(config, report=status.update)
    show(result, console)


if __name__ == "__main__":
    run_job(main)
