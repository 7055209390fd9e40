"""The sheet as HTML: one file that needs nothing beside it."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from html import escape

import numpy as np
from numpy.typing import NDArray

from braidrec.data.storage import Location

LONGEST_TEXT = 220
_TOKEN = re.compile(rb'<meta name="features" content="([^"]*)">')
BARS = 24

_STYLE = """
body { font: 14px/1.45 system-ui, sans-serif; margin: 2rem auto; max-width: 75rem; padding: 0 1rem; color: #1c1c1c }
table { border-collapse: collapse } td, th { padding: .2rem .8rem .2rem 0; text-align: left; vertical-align: top }
.row { display: flex; gap: .7rem; border-top: 1px solid #ccc; padding: .8rem 0; overflow-x: auto }
.card { flex: 0 0 9.5rem; overflow-wrap: anywhere; font-size: 12px } .card img { display: block; max-width: 7rem }
.first { border-right: 3px solid #888; padding-right: .7rem } 
.bars { display: flex; align-items: flex-end; height: 5rem }
.bars div { flex: 1; background: #4a6fa5; margin-right: 1px } b { font-weight: 600 } small { color: #555 }
"""


@dataclass(frozen=True, kw_only=True)
class Card:
    """An item on the sheet."""

    title: str
    text: str = ""
    image: str = ""
    """A JPEG in base64."""


def token_on(sheet: Location) -> str | None:
    """Which features a sheet shows; None: there is no sheet."""
    found = _TOKEN.search(sheet.read_bytes()[:1000]) if sheet.is_file() else None
    return None if found is None else found[1].decode()


def render(
    modality: str,
    token: str,
    coverage: Mapping[str, float],
    findings: Sequence[tuple[str, str]],
    lengths: NDArray[np.float32],
    rows: Sequence[tuple[Card, Sequence[tuple[Card, float]]]],
) -> str:
    """The whole document. Everything from the data is escaped.

    Args:
        token: of the features that it shows.
        coverage: share of the items with a vector, by modality.
        findings: name and sentence.
        lengths: of all vectors.
        rows: items with their nearest ones and the cosines.
    """
    shares = "".join(f"<tr><td>{escape(name)}</td><td>{share:.1%}</td></tr>" for name, share in coverage.items())
    told = "".join(f"<tr><th>{escape(name)}</th><td>{escape(line)}</td></tr>" for name, line in findings)
    neighbours = "".join(
        '<div class="row">' + _card(card, "", "first") + "".join(_card(near, f"{value:.3f}") for near, value in others)
        + "</div>"
        for card, others in rows
    )  # fmt: skip
    return (
        f'<!doctype html><html lang="en"><meta charset="utf-8"><meta name="features" content="{escape(token)}">'
        f"<title>{escape(modality)}</title><style>{_STYLE}</style>"
        f"<h1>Features: {escape(modality)}</h1><table>{told}</table><h2>Coverage</h2><table>{shares}</table>"
        f"<h2>Lengths of the vectors</h2>{_histogram(lengths)}<h2>Nearest items by cosine</h2>"
        f"<p>Left the item, right those whose vectors are most like its own. Do they belong together?</p>{neighbours}\n"
    )


def _card(card: Card, note: str, kind: str = "") -> str:
    image = f'<img alt="" src="data:image/jpeg;base64,{card.image}">' if card.image else ""
    text = card.text if len(card.text) <= LONGEST_TEXT else f"{card.text[:LONGEST_TEXT]}…"
    label = f"<small>{escape(note)}</small> " if note else ""
    return f'<div class="card {kind}">{image}{label}<b>{escape(card.title)}</b><br>{escape(text)}</div>'


def _histogram(values: NDArray[np.float32]) -> str:
    counts, edges = np.histogram(values.astype(np.float64), BARS)
    bars = "".join(
        f'<div style="height:{100 * count / max(1, counts.max()):.1f}%" title="{low:.4g}: {count:,}"></div>'
        for count, low in zip(counts, edges, strict=False)
    )
    return f'<div class="bars">{bars}</div><small>from {edges[0]:.4g} to {edges[-1]:.4g}</small>'
