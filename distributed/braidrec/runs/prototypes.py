"""`braidrec.prototypes`: what the prototypes of a disentangled model stand for, by items and by words."""

import json
from dataclasses import asdict, dataclass
from html import escape
from typing import Any

import torch
from torch import Tensor

from braidrec.config.load import ConfigError, validate
from braidrec.config.runs import PrototypesConfig
from braidrec.data.storage import Location
from braidrec.models.disentangled import Columns
from braidrec.models.systems.addvae import ADDVAE
from braidrec.places import absolute_place
from braidrec.runs.finished import open_trained


@dataclass(frozen=True, kw_only=True)
class Prototype:
    """One of K.

    Attributes:
        item_share, word_share: how much of all train items, and of all words, belongs to it.
        items, words: the nearest by cosine, with it, nearest first; items by their ids or another column.
    """

    item_share: float
    word_share: float
    items: tuple[tuple[str, float], ...]
    words: tuple[tuple[str, float], ...]


@dataclass(frozen=True, kw_only=True)
class PrototypesResult:
    """All of a run, and the files that say the same: a table in Markdown and as a page, and JSON."""

    prototypes: tuple[Prototype, ...]
    table_file: str
    page_file: str
    json_file: str


def prototypes(run: str, **options: object) -> PrototypesResult:
    """What each prototype of a finished run of ADDVAE stands for.

    Args:
        run: name of a finished run in `storage`, or its folder.
        options: the keys of `PrototypesConfig`: storage, top, label, output, …
    Raises:
        ConfigError: a run of another model, or a column that items.parquet does not have.
    """
    return prototypes_config(validate(PrototypesConfig, {"run": run, **options}, "prototypes()"))


def prototypes_config(config: PrototypesConfig) -> PrototypesResult:
    """The same from a validated configuration, as jobs/prototypes.py calls it."""
    trained = open_trained(config.run, config.storage, config.data_path)
    model, world = trained.model, trained.world
    if not isinstance(model, ADDVAE):
        raise ConfigError(
            f"run {trained.folder.name!r} is of model.encoder.kind={trained.config.model.encoder.kind}, which has no "
            "prototypes; name a run of addvae"
        )
    assert model.words is not None
    labels = _labels(config.label, world.folder.items_table(), trained.folder.name)
    with torch.no_grad():
        items, words = model.columns(trained.tables["item"])
    warm = (~world.cold).nonzero().squeeze(-1).cpu()
    named = [labels[item] for item in warm.tolist()]
    of_items = _described(items, model.prototypes, named, warm, config.top)
    other = model.prototypes if model.word_prototypes is None else model.word_prototypes
    everything = torch.arange(model.words.num_words)
    of_words = _described(words, other, model.words.vocabulary, everything, config.top)
    found = tuple(
        Prototype(item_share=one[0], word_share=two[0], items=one[1], words=two[1])
        for one, two in zip(of_items, of_words, strict=True)
    )
    folder = Location.of(absolute_place(config.output)) if config.output else trained.folder.location
    table, page, plain = (folder.child(f"prototypes.{suffix}") for suffix in ("md", "html", "json"))
    table.write_bytes(as_table(found).encode())
    page.write_bytes(as_page(found, trained.folder.name).encode())
    plain.write_bytes(json.dumps([asdict(one) for one in found], indent=1, ensure_ascii=False).encode())
    return PrototypesResult(prototypes=found, table_file=table.uri, page_file=page.uri, json_file=plain.uri)


def as_table(found: tuple[Prototype, ...]) -> str:
    """A Markdown table, a row a prototype."""
    lines = ["| prototype | items | words | nearest items | nearest words |", "|---|---|---|---|---|"]
    for number, one in enumerate(found, start=1):
        names = [", ".join(_escaped(name) for name, _ in side) for side in (one.items, one.words)]
        lines.append(f"| {number} | {one.item_share:.1%} | {one.word_share:.1%} | {names[0]} | {names[1]} |")
    return "\n".join(lines) + "\n"


def as_page(found: tuple[Prototype, ...], run: str) -> str:
    """A page with the table; beside each name its cosine with the prototype."""

    def names(side: tuple[tuple[str, float], ...]) -> str:
        return ", ".join(f"{escape(name)}&nbsp;<small>{cosine:.2f}</small>" for name, cosine in side)

    rows = "".join(
        f"<tr><td>{number}<td>{one.item_share:.1%}<td>{one.word_share:.1%}<td>{names(one.items)}<td>{names(one.words)}"
        for number, one in enumerate(found, start=1)
    )
    title = f"Prototypes of {escape(run)}"
    return (
        f'<!doctype html><html lang="en"><meta charset="utf-8"><title>{title}</title><style>body{{font-family:'
        "sans-serif}td,th{padding:.4em .8em;text-align:left;vertical-align:top;border-top:1px solid #ccc}small{color:"
        f"#777}}</style><h1>{title}</h1><p>Nearest by cosine, nearest first; shares are of all train items and of all "
        "words.<table><tr><th>prototype<th>items<th>words<th>nearest items<th>nearest words"
        f"{rows}</table></html>\n"
    )


def _described(
    columns: Columns, prototypes: Tensor, names: Any, among: Tensor, top: int
) -> list[tuple[float, tuple[tuple[str, float], ...]]]:
    """Of each prototype its share, and the names nearest to it among some columns."""
    unit = torch.nn.functional.normalize(prototypes.detach(), dim=-1)
    cosines = columns.embeddings[among].float() @ unit.float().t()
    shares = columns.log_shares[among].exp().mean(0).tolist()
    found = []
    for number, share in enumerate(shares):
        best = torch.topk(cosines[:, number], min(top, len(among)))
        pairs = zip(best.indices.tolist(), best.values.tolist(), strict=True)
        found.append((float(share), tuple((str(names[place]), float(cosine)) for place, cosine in pairs)))
    return found


def _labels(column: str, table: Any, run: str) -> list[str]:
    if column not in table.column_names:
        raise ConfigError(f"label={column!r}: items.parquet of run {run!r} has the columns {table.column_names}")
    ids = table.column("item_id").to_pylist()
    return [
        str(value) if value else f"({item})" for value, item in zip(table.column(column).to_pylist(), ids, strict=True)
    ]


def _escaped(name: str) -> str:
    return name.replace("|", "\\|").replace("\n", " ")
