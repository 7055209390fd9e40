"""The page of curves holds the right points and needs no network."""

import re
from pathlib import Path

from braidrec.tracking.curves import write_curves

HISTORY = [
    (1, {"train/loss": 0.6931, "train/bpr_term": 0.5, "train/learning_rate": 0.25, "valid/recall@20": 0.125}),
    (2, {"train/loss": 0.4321}),
    (3, {"train/loss": 0.3333, "valid/recall@20": 0.375, "seconds/train": 77.0}),
]


def test_page(tmp_path: Path) -> None:
    page = tmp_path / "deep" / "curves.html"
    write_curves(HISTORY, page, title="my <run>", best_epoch=3)
    html = page.read_text()
    assert not re.search(r"<(script|link)[^>]+(src|href)=", html), "nothing may be loaded from elsewhere"
    traces = re.search(r"Plotly\.newPlot\(\s*\"[^\"]+\",\s*(\[.*?\]),\s*\{\"template\"", html, re.S)
    assert traces is not None
    assert '"name":"loss"' in traces[1]
    assert '"name":"bpr_term"' in traces[1]
    assert '"name":"recall@20"' in traces[1]
    assert "learning_rate" not in traces[1]
    assert "77.0" not in traces[1]
    assert "best: epoch 3" in html


def test_an_empty_history_makes_a_page(tmp_path: Path) -> None:
    write_curves([], tmp_path / "curves.html", title="nothing")
    assert (tmp_path / "curves.html").stat().st_size > 0
