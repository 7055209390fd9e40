"""The YAML that configurations are written in: the core schema of YAML 1.2, safely."""

import math

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from braidrec.config.yaml_text import MAX_DEPTH, YamlError, dump_yaml, parse_yaml

# YAML 1.2.2, section 10.3.2 (core schema), in its lower-case spellings.
SCALARS = [
    ("null", None),
    ("~", None),
    ("", None),
    ("true", True),
    ("false", False),
    ("0", 0),
    ("-12", -12),
    ("+3", 3),
    ("010", 10),
    ("0o17", 15),
    ("0x1f", 31),
    ("1e-3", 0.001),
    ("-.5", -0.5),
    ("12.", 12.0),
    ("6.02E+23", 6.02e23),
    ("-.inf", -math.inf),
    # Not numbers or booleans in 1.2, although YAML 1.1 makes them so.
    ("on", "on"),
    ("No", "No"),
    ("12:30:45", "12:30:45"),
    ("1_000", "1_000"),
    ("2020-01-01", "2020-01-01"),
    ("'3'", "3"),
    ('"a\\tb"', "a\tb"),
    ("<<", "<<"),
    ("=", "="),
]


@pytest.mark.parametrize(("text", "value"), SCALARS)
def test_scalars_are_what_they_look_like(text: str, value: object) -> None:
    parsed = parse_yaml(text)
    assert parsed == value
    assert type(parsed) is type(value)
    assert parse_yaml(f"key: [{text or '~'}]") == {"key": [value]}


def test_nan_is_read_as_such() -> None:
    assert math.isnan(parse_yaml(".nan"))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("a: &x [1]\nb: *x", "line 2, column 4: the alias *x is refused; write the value out"),
        ("a: !!python/name:os.system", "line 1, column 4: the tag tag:yaml.org,2002:python/name:os.system is refused"),
        ("a: !!int '3'", "line 1, column 4: the tag tag:yaml.org,2002:int is refused"),
        ("a: !mine {b: 1}", "line 1, column 4: the tag !mine is refused"),
        ("a: 1\nb: {c: 1, c: 2}", "line 2, column 11: the key 'c' is given twice"),
        ("a:\n  3: x", "line 2, column 3: the key 3 is not a string; put it in quotes"),
        ("? [1]\n: x", "line 1, column 3: the key [1] is not a string"),
        ("a: x${HOME}", "line 1, column 4: 'x${HOME}': nothing expands ${…} here"),
        ("a: [1", "line 1, column 6: expected ',' or ']'"),
        ("a: 1\n\tb: 2", "line 2, column 1: found character '\\t' that cannot start any token"),
        ("a: 1\n---\nb: 2", "line 2, column 1: but found another document"),
        ("a\x00b", "character 2: special characters are not allowed"),
        ("a: " + "9" * 5000, "line 1, column 4: an integer of 5000 digits"),
        ("- " * 5000, f"line 1, column {2 * MAX_DEPTH + 1}: nested deeper than {MAX_DEPTH} levels"),
        ("[" * 5000, f"nested deeper than {MAX_DEPTH} levels"),
    ],
)
def test_refusals_say_where_and_what(text: str, message: str) -> None:
    with pytest.raises(YamlError) as caught:
        parse_yaml(text)
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


def test_the_deepest_nesting_that_is_accepted() -> None:
    levels = MAX_DEPTH - 1  # the scalar inside is a level too
    parsed = parse_yaml("[" * levels + "1" + "]" * levels)
    for _ in range(levels):
        (parsed,) = parsed
    assert parsed == 1


def test_a_billion_laughs_ends_at_the_first_alias() -> None:
    lines = ["l0: &l0 [x, x, x, x, x, x, x, x, x]"]
    lines += [f"l{level}: &l{level} [{', '.join([f'*l{level - 1}'] * 9)}]" for level in range(1, 20)]
    with pytest.raises(YamlError, match=r"line 2, column 10: the alias \*l0 is refused"):
        parse_yaml("\n".join(lines))


# Without what PyYAML itself cannot write readably: control characters, surrogates, and line breaks other than \n.
TEXT = st.text(st.characters(exclude_categories=["Cs", "Cc"], exclude_characters="\x85\u2028\u2029")).filter(
    lambda text: "${" not in text
)
PLAIN = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**70), 2**70) | st.floats(allow_nan=False) | TEXT,
    lambda children: st.lists(children, max_size=4) | st.dictionaries(TEXT, children, max_size=4),
    max_leaves=20,
)


@settings(deadline=None)
@given(PLAIN)
@example("1e-3")
@example("0o17")
@example("on")
@example("")
@example({"a": "null", "~": [1.0, 1, "1", True, "true"]})
def test_what_is_written_is_read_back_the_same(plain: object) -> None:
    back = parse_yaml(dump_yaml(plain))
    assert back == plain
    assert repr(back) == repr(plain)  # 1, 1.0 and True are equal, but not the same


@settings(deadline=None)
@given(st.text() | st.binary().map(lambda raw: raw.decode("utf-8", "replace")))
def test_any_text_is_read_or_refused_in_one_line(text: str) -> None:
    problem = ""
    try:
        parse_yaml(text)
    except YamlError as error:
        problem = str(error)
    assert "\n" not in problem
