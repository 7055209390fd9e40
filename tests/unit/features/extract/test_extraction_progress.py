"""What a person is told while an extraction runs."""

import io

from rich.console import Console

from braidrec.features.extract.manifest import NO_MEDIUM
from braidrec.features.extract.pipeline import Answer
from braidrec.features.extract.progress import ExtractionProgress


class Clock:
    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


def answer(encoded=0, kept=0, kept_failed=0, **failed):
    named = {name.replace("_", " "): count for name, count in failed.items()}
    return Answer(encoded=encoded, kept=kept, failed=named, kept_failed=kept_failed)


def test_rate_and_eta_count_what_this_run_does():
    clock, out = Clock(), io.StringIO()
    progress = ExtractionProgress(1000, "images", Console(file=out, width=200), clock)
    with progress:
        clock.now += 4
        progress.add(answer(encoded=40))
        assert out.getvalue() == "", "not before ten seconds have passed"
        clock.now += 6
        progress.add(answer(encoded=50, kept=400, kept_failed=30, missing_file=10, rejected_before=30))
    # 90 encoded and 10 newly rejected in 10 s: 10 a second; 1000 − 90 − 400 − 40 are left
    assert out.getvalue().split("  ") == [
        "530 of 1,000 images", "10/s", "ETA 0:00:47", "400 done before", "40 failed\n",
    ]  # fmt: skip
    assert (progress.num_new, progress.seconds) == (100, 10)


def test_what_the_manifest_does_not_have_is_not_broken():
    progress = ExtractionProgress(10, "texts", Console(file=io.StringIO()), Clock())
    progress.add(answer(corrupt_image=2, **{NO_MEDIUM.replace(" ", "_"): 3}))
    assert (progress.num_failed, progress.num_broken) == (5, 2)


def test_before_anything_is_done_there_is_no_eta():
    clock, out = Clock(), io.StringIO()
    progress = ExtractionProgress(10, "texts", Console(file=out, width=200), clock)
    clock.now += 20
    progress.add(answer(kept=4))
    assert "4 of 10 texts  0.0/s  ETA ?" in out.getvalue()
