"""The page itself: style, script, tables. Everything that comes from a run is escaped on its way in."""

from collections.abc import Sequence
from dataclasses import dataclass
from html import escape
from typing import Any

STYLE = """
:root { color-scheme: light dark; --ink: #1d2733; --dim: #5b6875; --paper: #ffffff; --card: #f5f7f9; --line: #d5dce3;
  --grid: #e3e8ed; --good: #14713d; }
@media (prefers-color-scheme: dark) { :root { --ink: #e4e9ee; --dim: #a0acb8; --paper: #14191f; --card: #1d242c;
  --line: #38434e; --grid: #2d3742; --good: #6fd39b; } }
* { box-sizing: border-box; }
body { margin: 0 auto; max-width: 68rem; padding: 1.5rem; background: var(--paper); color: var(--ink);
  font: 16px/1.5 system-ui, sans-serif; }
h1 { font-size: 1.7rem; margin: 0 0 .3rem; } h2 { font-size: 1.2rem; margin: 2.2rem 0 .4rem; }
p, li { max-width: 48rem; } .dim, figcaption { color: var(--dim); font-size: .88rem; }
.told { background: var(--card); border-left: 4px solid #3a7bd5; padding: .7rem 1rem; margin: 1rem 0; }
.told p { margin: .3rem 0; } .absent { color: var(--dim); font-style: italic; }
nav { font-size: .9rem; margin: .6rem 0; } nav a { margin-right: .9rem; } a { color: #3a7bd5; }
figure { margin: .8rem 0; } .plot { width: 100%; }
.wide { overflow-x: auto; } table { border-collapse: collapse; font-size: .85rem; width: 100%; }
th, td { padding: .3rem .5rem; border-bottom: 1px solid var(--line); text-align: left; vertical-align: top; }
th { color: var(--dim); font-weight: 600; } td.n, th.n { text-align: right; font-variant-numeric: tabular-nums; }
td.n { white-space: nowrap; }
tr.real td { color: var(--good); font-weight: 600; }
pre { background: var(--card); padding: .7rem 1rem; overflow-x: auto; font-size: .85rem; white-space: pre-wrap;
  overflow-wrap: anywhere; }
@media print {
  :root { color-scheme: light; --ink: #000; --dim: #444; --paper: #fff; --card: #f5f5f5; --line: #bbb; --grid: #ddd;
    --good: #14713d; }
  @page { size: A4; margin: 14mm; }
  body { max-width: none; padding: 0; font-size: 11pt; } nav { display: none; }
  figure, tr, .told { break-inside: avoid; } .modebar { display: none; }
  h2 { break-after: avoid; } .wide { overflow: visible; }
  table { font-size: 8.5pt; } pre { break-inside: auto; }
  details::details-content { content-visibility: visible; block-size: auto; }
}
"""

# Plotly draws with fixed colours, so they are set anew whenever the page's scheme changes, and for paper.
SCRIPT = """
const plots = [...document.querySelectorAll('.plot')];
const colour = name => getComputedStyle(document.documentElement).getPropertyValue(name).trim();
function scheme() {
  return { ink: colour('--ink'), dim: colour('--dim'), grid: colour('--grid'), card: colour('--card') };
}
function dressed(layout, c) {
  const changed = { 'font.color': c.ink, 'modebar.bgcolor': 'rgba(0,0,0,0)', 'modebar.color': c.dim };
  for (const key of Object.keys(layout)) {
    if (/^[xy]axis\\d*$/.test(key)) {
      changed[key + '.gridcolor'] = c.grid; changed[key + '.zerolinecolor'] = c.grid;
      changed[key + '.linecolor'] = c.dim;
    }
  }
  return changed;
}
function set(object, path, value) {
  const steps = path.split('.'), last = steps.pop();
  let place = object;
  for (const step of steps) place = place[step] = place[step] || {};
  place[last] = value;
}
async function draw(node) {
  const figure = JSON.parse(document.getElementById(node.dataset.figure).textContent);
  for (const [path, value] of Object.entries(dressed(figure.layout, scheme()))) set(figure.layout, path, value);
  await Plotly.newPlot(node, figure.data, figure.layout, { responsive: true, displaylogo: false,
    modeBarButtonsToRemove: ['lasso2d', 'select2d'] });
  node.dataset.drawn = 'yes';
}
function redress() {
  const c = scheme();
  return Promise.all(plots.map(node => Plotly.relayout(node, { ...dressed(node.layout, c), autosize: true })));
}
Promise.all(plots.map(draw)).then(() => { document.documentElement.dataset.ready = String(plots.length); });
matchMedia('(prefers-color-scheme: dark)').addEventListener('change', redress);
matchMedia('print').addEventListener('change', redress);
"""


@dataclass(frozen=True, kw_only=True)
class Section:
    """A heading with what stands under it.

    Attributes:
        key: its anchor.
        title: heading.
        body: HTML.
    """

    key: str
    title: str
    body: str


def render(title: str, head: str, sections: Sequence[Section]) -> str:
    """The whole page, Plotly in it, so that it needs no network."""
    from plotly.offline import get_plotlyjs

    links = " ".join(f'<a href="#{section.key}">{escape(section.title)}</a>' for section in sections)
    parts = "".join(
        f'<section id="{section.key}"><h2>{escape(section.title)}</h2>{section.body}</section>' for section in sections
    )
    return (
        '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f'<link rel="icon" href="data:,"><title>{escape(title)}</title><style>{STYLE}</style></head>\n<body>'
        f"<h1>{escape(title)}</h1>{head}<nav>{links}</nav>{parts}"
        f"<script>{get_plotlyjs()}</script>\n<script>{SCRIPT}</script></body></html>\n"
    )


def paragraph(text: str, style: str = "") -> str:
    """A paragraph of plain text."""
    return f'<p class="{style}">{escape(text)}</p>' if style else f"<p>{escape(text)}</p>"


def absent(text: str) -> str:
    """What stands in the place of a plot that there is no data for."""
    return paragraph(text, "absent")


def plot(key: str, figure: Any, caption: str) -> str:
    """A Plotly figure with a caption in plain text. Its data stand in the page as JSON, which nothing executes."""
    data = figure.to_json().replace("<", "\\u003c")
    height = int(figure.layout.height or 420)
    return (
        f'<figure><div class="plot" id="plot-{key}" data-figure="data-{key}" style="height:{height}px" role="img" '
        f'aria-label="{escape(caption)}"></div><figcaption>{escape(caption)}</figcaption></figure>'
        f'<script type="application/json" id="data-{key}">{data}</script>'
    )


def table(columns: Sequence[str], rows: Sequence[Sequence[str]], *, numbers: Sequence[int] = (),
          marked: Sequence[int] = ()) -> str:  # fmt: skip
    """A table of plain text.

    Args:
        columns: headings.
        rows: cells.
        numbers: columns set flush right.
        marked: rows that stand out.
    """

    def cells(row: Sequence[str], tag: str) -> str:
        made = (
            f'<{tag} class="n">{escape(cell)}</{tag}>' if index in numbers else f"<{tag}>{escape(cell)}</{tag}>"
            for index, cell in enumerate(row)
        )
        return "".join(made)

    body = "".join(
        f"<tr{' class=real' if index in marked else ''}>{cells(row, 'td')}</tr>" for index, row in enumerate(rows)
    )
    return f'<div class="wide"><table><thead><tr>{cells(columns, "th")}</tr></thead><tbody>{body}</tbody></table></div>'


def details(summary: str, text: str) -> str:
    """Text that is folded away on a screen."""
    return f"<details><summary>{escape(summary)}</summary><pre>{escape(text)}</pre></details>"
