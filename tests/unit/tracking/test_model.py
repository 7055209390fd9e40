"""The saved model, loaded as a stranger would load it, against a naive ranking."""

import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from braidrec.tracking.model import save_recommender

USERS, ITEMS, DIM = 7, 11, 3


@pytest.fixture(scope="module")
def parts() -> dict[str, Any]:
    random = np.random.default_rng(0)
    # Small whole numbers: many equal scores, and every product is exact.
    return {
        "user_vectors": random.integers(-1, 2, (USERS, DIM)).astype(np.float32),
        "item_vectors": random.integers(-1, 2, (ITEMS, DIM)).astype(np.float32),
        "user_ids": [f"u{number}" for number in range(USERS)],
        "item_ids": [f"i{number}" for number in range(ITEMS)],
        "seen": (np.array([6, 0, 0, 2], dtype=np.int32), np.array([1, 4, 2, 3], dtype=np.int32)),
    }


@pytest.fixture(scope="module")
def folder(parts: dict[str, Any], tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("saved") / "model"
    save_recommender(folder, **parts)
    return folder


@pytest.fixture(scope="module")
def model(folder: Path) -> Any:
    import mlflow

    return mlflow.pyfunc.load_model(str(folder))


def naive(parts: dict[str, Any], user: str, k: int, exclude: bool) -> list[tuple[str, int, str, float]]:
    row = parts["user_ids"].index(user)
    seen = {int(item) for who, item in zip(*parts["seen"], strict=True) if who == row} if exclude else set()
    scored = [
        (-float(parts["user_vectors"][row] @ parts["item_vectors"][item]), item)
        for item in range(ITEMS)
        if item not in seen
    ]
    return [(user, rank, f"i{item}", -minus) for rank, (minus, item) in enumerate(sorted(scored)[:k], start=1)]


@pytest.mark.parametrize("exclude", [True, False])
@pytest.mark.parametrize("k", [1, 4, ITEMS, 100])
def test_answers_are_the_naive_ranking(model: Any, parts: dict[str, Any], k: int, exclude: bool) -> None:
    asked = ["u6", "u0", "u0", "u2", "u5"]
    answer = model.predict(pd.DataFrame({"user_id": asked}), params={"k": k, "exclude_seen": exclude})
    expected = [line for user in asked for line in naive(parts, user, k, exclude)]
    assert list(answer.itertuples(index=False, name=None)) == expected


def test_tiles_do_not_matter(model: Any, parts: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    served = model.unwrap_python_model()
    frame = pd.DataFrame({"user_id": parts["user_ids"]})
    whole = served.predict(None, frame)
    monkeypatch.setitem(type(served)._answer.__globals__, "_TILE_SCORES", 2 * ITEMS)
    pd.testing.assert_frame_equal(served.predict(None, frame), whole)
    assert len(whole) == 7 * 10 - 1, "u0 has seen two of eleven: nine are left; all others get ten"


def test_defaults_signature_and_example(model: Any, parts: dict[str, Any]) -> None:
    answer = model.predict(model.input_example)
    assert list(answer.itertuples(index=False, name=None)) == naive(parts, "u0", 10, True) + naive(
        parts, "u1", 10, True
    )
    assert model.metadata.signature.inputs.input_names() == ["user_id"]
    assert [param.name for param in model.metadata.signature.params] == ["k", "exclude_seen"]


def test_nobody_asked(model: Any) -> None:
    answer = model.predict(pd.DataFrame({"user_id": pd.Series([], dtype=str)}))
    assert list(answer.columns) == ["user_id", "rank", "item_id", "score"]
    assert len(answer) == 0


def test_wrong_questions(model: Any) -> None:
    with pytest.raises(Exception, match="1 unknown users, the first is 'stranger'"):
        model.predict(pd.DataFrame({"user_id": ["u1", "stranger"]}))
    with pytest.raises(Exception, match="k=0: must be at least 1"):
        model.predict(pd.DataFrame({"user_id": ["u1"]}), params={"k": 0})


@pytest.mark.slow
def test_nothing_is_pickled_and_nothing_of_the_library_is_needed(folder: Path) -> None:
    assert sorted(file.name for file in folder.rglob("*") if file.suffix in {".pkl", ".pickle", ".pt", ".bin"}) == []
    code = (
        "import sys; sys.modules['braidrec'] = sys.modules['torch'] = None\n"
        "import mlflow, pandas as pd\n"
        "model = mlflow.pyfunc.load_model(sys.argv[1])\n"
        "print(len(model.predict(pd.DataFrame({'user_id': ['u1']}), params={'k': 3})))\n"
    )
    result = subprocess.run([sys.executable, "-c", code, str(folder)], capture_output=True, text=True, check=True)
    assert result.stdout.split() == ["3"]


def test_without_interactions_there_is_nothing_to_leave_out(parts: dict[str, Any], tmp_path: Path) -> None:
    import mlflow

    save_recommender(tmp_path / "model", **{**parts, "seen": None})
    model = mlflow.pyfunc.load_model(str(tmp_path / "model"))
    frame = pd.DataFrame({"user_id": ["u0"]})
    assert len(model.predict(frame, params={"k": 100})) == ITEMS
    with pytest.raises(Exception, match="saved without the users' interactions"):
        model.predict(frame, params={"exclude_seen": True})


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"user_ids": ["u0"]}, r"user vectors of shape \(7, 3\) for 1 ids"),
        ({"item_ids": ["i0"] * ITEMS}, "10 item ids occur twice"),
        ({"item_vectors": np.ones((ITEMS, 2), np.float32)}, "user vectors have 3 dimensions, item vectors 2"),
        ({"item_vectors": np.full((ITEMS, DIM), np.nan, np.float32)}, "vector of item 'i0' holds NaN"),
        ({"seen": (np.array([7], np.int32), np.array([0], np.int32))}, "user rows 7…7 where there are 7 users"),
        ({"seen": (np.array([1, 2], np.int32), np.array([0], np.int32))}, "2 user rows and 1 item rows"),
    ],
)
def test_parts_that_do_not_fit(parts: dict[str, Any], tmp_path: Path, change: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        save_recommender(tmp_path / "model", **{**parts, **change})
