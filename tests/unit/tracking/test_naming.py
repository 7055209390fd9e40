"""Names and values that MLflow accepts; the oracle is MLflow's own validation."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from braidrec.tracking.naming import MAX_PARAMETER, flatten, metric_name, parameters, redact, shorten, tags


@pytest.mark.parametrize(
    ("ours", "theirs"),
    [
        ("valid/recall@20", "valid/recall_at_20"),
        ("seconds/forward_backward", "seconds/forward_backward"),
        ("test/ndcg@10[cold items]", "test/ndcg_at_10_cold items_"),
        ("/a//b/../c/.", "a/b/c"),
        ("memory (MiB), peak", "memory _MiB__ peak"),
    ],
)
def test_metric_names(ours: str, theirs: str) -> None:
    assert metric_name(ours) == theirs


@settings(max_examples=300, deadline=None)
@given(st.text(min_size=1, max_size=600))
def test_every_name_is_accepted_by_mlflow_or_refused_with_a_reason(name: str) -> None:
    from mlflow.utils.validation import _validate_metric_name, _validate_param_name, _validate_tag_name

    if all(part in ("", ".", "..") for part in name.split("/")):
        with pytest.raises(ValueError, match="cannot name anything"):
            metric_name(name)
        return
    accepted = metric_name(name)
    _validate_metric_name(accepted)
    _validate_param_name(accepted)
    _validate_tag_name(accepted)
    assert len(accepted) <= 250


def test_long_names_stay_apart() -> None:
    assert metric_name("x" * 300 + "a") != metric_name("x" * 300 + "b")


def test_flatten_by_hand() -> None:
    config = {
        "seed": 42,
        "data": {"path": "x"},
        "at": [10, 20],
        "name": None,
        "on": True,
        "tags": {},
        "a": {"b": {"c": 0.5}},
    }
    assert dict(flatten(config)) == {
        "seed": "42",
        "data.path": "x",
        "at": "[10, 20]",
        "name": "null",
        "on": "true",
        "tags": "{}",
        "a.b.c": "0.5",
    }


def test_long_values_are_shortened_and_say_so() -> None:
    value = parameters({"note": "é" * 10_000})["note"]
    assert len(value) == MAX_PARAMETER
    assert value.endswith("the whole value is in config.yaml)")
    assert shorten("x" * 10, 10) == "x" * 10


def test_no_password_is_logged() -> None:
    text = "uri: postgresql://me:s3cret@host:5432/db and http://u:p@h"
    assert redact(text) == "uri: postgresql://me:***@host:5432/db and http://u:***@h"
    assert redact("s3://bucket/a:b@c") == "s3://bucket/a:b@c"
    assert tags({"where@x": "http://u:p@h"}) == {"where_at_x": "http://u:***@h"}
    assert parameters({"tracking": {"uri": "http://u:p@h"}}) == {"tracking.uri": "http://u:***@h"}
