"""Dotted keys of plain configurations, by hand."""

import pytest

from braidrec.config.dotted import is_among, leaves, lies_below


def test_leaves_are_what_holds_no_more_keys() -> None:
    plain = {"a": {"b": 1, "c": {"d": [{"e": 2}], "f": {}}}, "g": None}
    assert dict(leaves(plain)) == {"a.b": 1, "a.c.d": [{"e": 2}], "a.c.f": {}, "g": None}
    assert list(leaves({})) == []


@pytest.mark.parametrize(
    ("key", "below", "among"),
    [("data.path", True, True), ("data", False, True), ("database", False, False), ("model.data", False, False)],
)
def test_a_key_lies_below_another_only_after_a_dot(key: str, below: bool, among: bool) -> None:
    assert lies_below(key, "data") == below
    assert is_among(key, ("name", "data")) == among
