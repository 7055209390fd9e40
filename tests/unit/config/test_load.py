"""Files + overrides → a configuration, or an error that a user can act on."""

import json
import string
from pathlib import Path
from typing import Annotated, Any, Literal

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import Field

from braidrec.config.base import Strict
from braidrec.config.load import MAX_CONFIG_BYTES, ConfigError, load_config, to_yaml, validate
from braidrec.config.run import RunConfig


class Cat(Strict):
    kind: Literal["cat", "lion"] = "cat"
    lives: int = 9
    weight: float = 4.0


class Dog(Strict):
    kind: Literal["dog"] = "dog"
    name: str
    toys: tuple[str, ...] = ("ball", "bone")


Pet = Annotated[Cat | Dog, Field(discriminator="kind")]


class Home(Strict):
    """Every shape that a configuration has: nested, optional, in a list, in a mapping, tagged."""

    address: str
    pet: Pet = Cat()
    guest: Pet | None = None
    others: tuple[Pet, ...] = ()
    rooms: dict[str, Cat] = Field(default_factory=dict)
    numbers: tuple[int, ...] = (1, 2)
    locked: bool = False


class Street(Strict):
    home: Home
    country: str = "?"


def write(folder: Path, text: str | bytes, name: str = "street.yaml") -> Path:
    file = folder / name
    file.write_bytes(text if isinstance(text, bytes) else text.encode())
    return file


def refusal(folder: Path, text: str | bytes, *overrides: str) -> str:
    with pytest.raises(ConfigError) as caught:
        load_config(Street, [write(folder, text)], overrides)
    return str(caught.value)


GOOD = "home: {address: Main Street 1}\n"


def test_defaults_fill_what_a_file_leaves_out(tmp_path: Path) -> None:
    config = load_config(Street, [write(tmp_path, GOOD)])
    assert config == Street(home=Home(address="Main Street 1"))


def test_later_files_win_mappings_merge_and_lists_are_replaced(tmp_path: Path) -> None:
    first = write(tmp_path, "home: {address: A, numbers: [1, 2, 3], rooms: {hall: {lives: 1}}}\ncountry: X", "1.yaml")
    second = write(tmp_path, "home: {numbers: [4], rooms: {attic: {lives: 2}}}", "2.yaml")
    third = write(tmp_path, "country: Y", "3.yaml")
    config = load_config(Street, [first, second, third])
    assert config.home.address == "A"
    assert config.home.numbers == (4,)
    assert config.home.rooms == {"hall": Cat(lives=1), "attic": Cat(lives=2)}
    assert config.country == "Y"


def test_an_empty_file_changes_nothing(tmp_path: Path) -> None:
    for text in ("", "# only a comment\n", "---\n", "null\n"):
        assert load_config(Street, [write(tmp_path, GOOD, "1.yaml"), write(tmp_path, text)]).home.address
    assert "home: is required" in refusal(tmp_path, "")


@pytest.mark.parametrize(
    ("override", "path", "value"),
    [
        ("country=NL", ("country",), "NL"),
        ("country=a=b", ("country",), "a=b"),
        ("country='3'", ("country",), "3"),
        (" country = NL ", ("country",), "NL"),
        ("home.locked=true", ("home", "locked"), True),
        ("home.pet.weight=1e-3", ("home", "pet", "weight"), 0.001),
        ("home.pet.weight=5", ("home", "pet", "weight"), 5.0),
        ("home.pet={kind: dog, name: Rex}", ("home", "pet"), Dog(name="Rex")),
        ("home.numbers=[7]", ("home", "numbers"), (7,)),
        ("home.numbers=[]", ("home", "numbers"), ()),
        ("home.numbers.1=7", ("home", "numbers"), (10, 7, 12)),
        ("home.others.0.lives=3", ("home", "others"), (Cat(lives=3),)),
        ("home.rooms.hall.lives=3", ("home", "rooms"), {"hall": Cat(lives=3)}),
        ("home.guest=null", ("home", "guest"), None),
    ],
)
def test_overrides(tmp_path: Path, override: str, path: tuple[str, ...], value: object) -> None:
    text = "home: {address: A, numbers: [10, 11, 12], others: [{kind: cat}]}"
    found: Any = load_config(Street, [write(tmp_path, text)], [override])
    for part in path:
        found = getattr(found, part)
    assert found == value
    assert type(found) is type(value)


def test_a_mapping_given_as_override_merges_and_later_overrides_win(tmp_path: Path) -> None:
    config = load_config(Street, [write(tmp_path, GOOD)], ["home={locked: true}", "country=A", "country=B"])
    assert config.home == Home(address="Main Street 1", locked=True)
    assert config.country == "B"


def test_overrides_alone_are_enough() -> None:
    assert load_config(Street, [], ["home.address=A"]).home.address == "A"
    with pytest.raises(ConfigError, match=r"^--set is not a valid Street:\n  home: is required"):
        load_config(Street, [], ["country=A"])


UNKNOWN_KEYS = [
    ("hom: {}", "hom: unknown key. Did you mean home? Valid keys here: country, home"),
    ("home: {adress: x}", "home.adress: unknown key. Did you mean address? Valid keys here: address, guest, locked,"),
    ("home: {pet: {kind: cat, live: 1}}", "home.pet.live: unknown key. Did you mean lives?"),
    ("home: {pet: {kind: lion, name: x}}", "home.pet.name: unknown key. Valid keys here: kind, lives, weight"),
    ("home: {guest: {kind: dog, toy: x}}", "home.guest.toy: unknown key. Did you mean toys?"),
    ("home: {others: [{kind: cat}, {kind: dog, lives: 3}]}", "home.others.1.lives: unknown key. Valid keys here:"),
    ("home: {rooms: {lives: {liv: 3}}}", "home.rooms.lives.liv: unknown key. Did you mean lives?"),
]  # fmt: skip


@pytest.mark.parametrize(("text", "message"), UNKNOWN_KEYS)
def test_unknown_keys_name_the_valid_ones_and_the_nearest(tmp_path: Path, text: str, message: str) -> None:
    assert f"\n  {message}" in refusal(tmp_path, text)


WRONG_VALUES = [
    ("home: {numbers: ['3']}", "home.numbers.0: must be an integer, not '3'; write it without quotes"),
    ("home: {numbers: [3.0]}", "home.numbers.0: must be an integer, not 3.0"),
    ("home: {numbers: [true]}", "home.numbers.0: must be an integer, not true"),
    ("home: {numbers: 3}", "home.numbers: must be a list, not 3"),
    ("home: {pet: {kind: cat, weight: '4'}}", "home.pet.weight: must be a number, not '4'; write it without quotes"),
    ("home: {pet: {kind: cat, weight: heavy}}", "home.pet.weight: must be a number, not 'heavy'"),
    ("home: {pet: {kind: cat, weight: .nan}}", "home.pet.weight: must be a finite number, not nan"),
    ("home: {pet: {kind: cat, weight: -.inf}}", "home.pet.weight: must be a finite number, not -inf"),
    ("home: {pet: {kind: cat, weight: 1e999}}", "home.pet.weight: must be a finite number, not inf"),
    ("home: {pet: {kind: ct}}", "home.pet.kind: must be one of cat, lion, dog, not 'ct'. Did you mean cat?"),
    ("home: {guest: {lives: 3}}", "home.guest: says no kind; add kind: one of cat, lion, dog"),
    ("home: {others: [{name: x}]}", "home.others.0: says no kind; add kind: one of cat, lion, dog"),
    ("home: {pet: {name: x}}", "home.pet.name: unknown key. Valid keys here: kind, lives, weight"),
    ("home: {pet: 3}", "home.pet: must be a mapping of keys, not 3"),
    ("home: {pet: null}", "home.pet: must be a mapping of keys, not null"),
    ("home: {pet: {kind: dog}}", "home.pet.name: is required and was not given; add it to the file or"),
    ("home: {rooms: [1]}", "home.rooms: must be a mapping of keys, not [1]"),
    ("home: {locked: 'yes'}", "home.locked: must be true or false, not 'yes'"),
    ("home: {locked: 1}", "home.locked: must be true or false, not 1"),
    ("home: {address: 3}", "home.address: must be a string, not 3; put it in quotes"),
    ("home: []", "home: must be a mapping of keys, not []"),
    ("country: A", "home: is required and was not given; add it to the file or pass --set home.address=…"),
    ("home: {address: [" + "1, " * 1000 + "]}", "characters)"),
]  # fmt: skip


@pytest.mark.parametrize(("text", "message"), WRONG_VALUES)
def test_wrong_values_are_refused_with_the_mend(tmp_path: Path, text: str, message: str) -> None:
    error = refusal(tmp_path, text)
    assert error.startswith(f"{tmp_path / 'street.yaml'} is not a valid Street:\n  ")
    assert message in error
    assert all(len(line) < 300 for line in error.splitlines())


def test_every_problem_is_listed_on_a_line_of_its_own(tmp_path: Path) -> None:
    lines = refusal(tmp_path, "home: {address: 3, numbers: [a, b]}\ncontry: x").splitlines()
    assert [line.split(":")[0].strip() for line in lines[1:]] == [
        "home.address",
        "home.numbers.0",
        "home.numbers.1",
        "contry",
    ]


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("country", "--set 'country': expected key=value, as in --set training.epochs=20"),
        ("=3", "expected key=value"),
        ("home..pet=3", "expected key=value"),
        ("home.pet[0]=3", "expected key=value"),
        (".=3", "expected key=value"),
        ("a b=3", "expected key=value"),
        ("country=[1", "--set 'country=[1': the value at line 1, column 3: expected ',' or ']'"),
        ("country=*x", "the alias *x is refused"),
        ("country=${HOME}", "nothing expands ${…} here"),
        ("country=NL\nhome: {}", "the value at line 2, column 5"),
        ("home.numbers.7=3", "--set 'home.numbers.7=3': there is no such list element"),
        ("home.numbers.x=3", "--set 'home.numbers.x=3': there is no such list element"),
        ("home.numbers.x.y=3", "--set 'home.numbers.x.y=3': there is no such list element"),
        ("home.address.x=3", "home.address: must be a string, not {'x': 3}"),
        ("home.others.0=3", "home.others: must be a list, not {'0': 3}"),
        ("contry=x", "contry: unknown key. Did you mean country?"),
        ("a" + ".a" * 5000 + "=1", "nested deeper than 32 levels"),
    ],
)
def test_overrides_that_cannot_be_applied(tmp_path: Path, override: str, message: str) -> None:
    assert message in refusal(tmp_path, "home: {address: A, numbers: [1, 2]}", override)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (b"country: \xff\xfe", "street.yaml: not UTF-8 (invalid start byte at byte 9)"),
        ("[1, 2]", "street.yaml: the top level must be a mapping of keys, not [1, 2]"),
        ("just words", "street.yaml: the top level must be a mapping of keys, not 'just words'"),
        ("home: {", "street.yaml: line 1, column 8: "),
        ("a: &a 1\nb: *a", "street.yaml: line 2, column 4: the alias *a is refused"),
        ("home: {address: ${oc.env:HOME}}", "street.yaml: line 1, column "),
        ("a: 1\na: 2", "street.yaml: line 2, column 1: the key 'a' is given twice"),
        (b"# " + b"x" * MAX_CONFIG_BYTES, f"street.yaml: {MAX_CONFIG_BYTES + 2} bytes; a configuration has at most"),
    ],
)
def test_files_that_cannot_be_read(tmp_path: Path, text: str | bytes, message: str) -> None:
    assert message in refusal(tmp_path, text)


def test_missing_files_and_folders_are_named_with_where_was_looked(tmp_path: Path) -> None:
    for file in (tmp_path / "none.yaml", tmp_path):
        with pytest.raises(ConfigError) as caught:
            load_config(Street, [file])
        assert str(caught.value) == f"{file}: no such configuration file (looked in {Path.cwd()})"


def test_plain_data_that_is_no_configuration_value_is_refused() -> None:
    with pytest.raises(ConfigError, match="here: Object of type set is not JSON serializable; use strings, numbers"):
        validate(Street, {"home": {1, 2}}, "here")


def test_a_configuration_is_frozen_and_survives_being_written(tmp_path: Path) -> None:
    config = load_config(Street, [write(tmp_path, GOOD)], ["country='1e-3'", "home.pet={kind: dog, name: 'on'}"])
    with pytest.raises(ValueError, match="frozen"):
        config.country = "x"
    assert load_config(Street, [write(tmp_path, to_yaml(config), "resolved.yaml")]) == config
    assert "toys:" in to_yaml(config), "defaults are written out"
    assert validate(Street, json.loads(json.dumps(config.to_plain())), "stored") == config


def test_run_config_explains_what_does_not_fit_together() -> None:
    with pytest.raises(ConfigError) as caught:
        load_config(RunConfig, [], ["data.path=x", "training.batch_size=2048", "workers.num=3"])
    assert str(caught.value).endswith(
        "\n  (top level): training.batch_size=2048 is not divisible by workers.num (3): use 2046 or 2049"
    )


# Keys that exist as well as ones that do not, so that the fuzz gets past the first level.
KEYS = st.sampled_from([*Street.model_fields, *Home.model_fields, *Dog.model_fields, *Cat.model_fields, "0"]) | st.text(
    string.printable, max_size=5
)
PLAIN = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8) | st.sampled_from(["cat", "dog"]),
    lambda children: st.lists(children, max_size=3) | st.dictionaries(KEYS, children, max_size=5),
    max_leaves=25,
)


def outcome(kind: type[Strict], files: list[Path], overrides: list[str]) -> Strict | str:
    """The configuration, or the message of the one error that is allowed."""
    try:
        return load_config(kind, files, overrides)
    except ConfigError as error:
        return str(error)


@settings(deadline=None)
@given(PLAIN)
def test_any_plain_data_is_valid_or_a_config_error(plain: object) -> None:
    lines = []
    try:
        config = validate(Street, plain, "fuzz")
    except ConfigError as error:
        lines = str(error).splitlines()
    else:
        assert validate(Street, config.to_plain(), "again") == config
    assert len(lines) != 1
    assert all(len(line) < 400 for line in lines)


@settings(deadline=None)
@given(key=st.lists(KEYS, min_size=1, max_size=4).map(".".join), value=PLAIN.map(json.dumps) | st.text(max_size=20))
def test_any_override_is_applied_or_a_config_error(key: str, value: str) -> None:
    assert outcome(Street, [], ["home.address=x", "home.numbers=[1, 2]", f"{key}={value}"])


@settings(deadline=None)
@given(st.dictionaries(KEYS, PLAIN, max_size=4).map(json.dumps) | st.text(max_size=60))
def test_any_file_is_a_configuration_or_a_config_error(tmp_path_factory: pytest.TempPathFactory, text: str) -> None:
    file = tmp_path_factory.getbasetemp() / "fuzz.yaml"
    file.write_text(text, encoding="utf-8", errors="replace")
    result = outcome(Street, [file], [])
    assert isinstance(result, Street) or result.startswith(str(file))
