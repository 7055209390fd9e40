"""YAML as configurations are written in it: the core schema of YAML 1.2, without what can surprise or harm.

PyYAML speaks YAML 1.1, where `on` is a boolean, `12:30` an integer (750) and `1e-3` a string. Here null, true, false,
integers and floats are what they look like, and everything else is a string. Refused, each with line and column: tags
(`!!python/…`), aliases (`*name`, which can multiply a small file into gigabytes), interpolations (`${…}`, which
nothing here would expand), keys that are not strings, keys given twice, and nesting deeper than `MAX_DEPTH`.
"""

import re
from typing import Any, ClassVar

import yaml

MAX_DEPTH = 32
MAX_DIGITS = 100


class YamlError(ValueError):
    """Text that is not an acceptable YAML document; the message, one line, begins with the place."""


def parse_yaml(text: str) -> Any:
    """The plain value of one YAML document: None for an empty one.

    Raises:
        YamlError: says "line 3, column 5: …".
    """
    try:
        return yaml.load(text, Loader=_Loader)
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        place = f"line {mark.line + 1}, column {mark.column + 1}: " if mark is not None else ""
        raise YamlError(f"{place}{error.problem or error.context}") from None
    except yaml.reader.ReaderError as error:
        raise YamlError(f"character {error.position + 1}: {error.reason}") from None


def dump_yaml(plain: Any) -> str:
    """Plain data as YAML text that `parse_yaml` reads back as the same value, and YAML 1.1 readers too."""
    return yaml.dump(plain, Dumper=_Dumper, sort_keys=False, allow_unicode=True)


class _Dumper(yaml.SafeDumper):
    """Also quotes strings that are something else in YAML 1.2 only, such as "1e-3"; see the end of the file."""

    def ignore_aliases(self, data: Any) -> bool:
        """A value that occurs twice is written twice."""
        return True


class _Loader(yaml.SafeLoader):
    """SafeLoader is the base for its parser; what it resolves and constructs is replaced below."""

    yaml_implicit_resolvers: dict[str, Any] = {}  # noqa: RUF012 (so declared in PyYAML's types)
    yaml_constructors: ClassVar[dict[Any, Any]] = {}

    def __init__(self, stream: str) -> None:
        super().__init__(stream)
        self._depth = 0

    def compose_node(self, parent: yaml.Node | None, index: Any) -> yaml.Node | None:
        event = self.peek_event()  # type: ignore[no-untyped-call]
        if isinstance(event, yaml.AliasEvent):
            _refuse(event, f"the alias *{event.anchor} is refused; write the value out")
        if getattr(event, "tag", None) is not None:
            _refuse(event, f"the tag {event.tag} is refused; write a plain value")
        if self._depth == MAX_DEPTH:
            _refuse(event, f"nested deeper than {MAX_DEPTH} levels")
        self._depth += 1
        node = super().compose_node(parent, index)
        self._depth -= 1
        return node

    def construct_plain_mapping(self, node: yaml.MappingNode) -> dict[str, Any]:
        plain: dict[str, Any] = {}
        for key_node, value_node in node.value:
            key = self.construct_object(key_node, deep=True)
            if not isinstance(key, str):
                _refuse(key_node, f"the key {key!r} is not a string; put it in quotes if it is meant as one")
            if key in plain:
                _refuse(key_node, f"the key {key!r} is given twice")
            plain[key] = self.construct_object(value_node, deep=True)
        return plain

    def construct_plain_sequence(self, node: yaml.SequenceNode) -> list[Any]:
        return [self.construct_object(child, deep=True) for child in node.value]

    def construct_string(self, node: yaml.ScalarNode) -> str:
        if "${" in node.value:
            _refuse(node, f"{node.value!r}: nothing expands ${{…}} here; write the value out")
        return str(node.value)

    def construct_integer(self, node: yaml.ScalarNode) -> int:
        if len(node.value) > MAX_DIGITS:
            _refuse(node, f"an integer of {len(node.value)} digits")
        return int(node.value, {"0o": 8, "0x": 16}.get(node.value[:2], 10))

    def construct_float(self, node: yaml.ScalarNode) -> float:
        return float(node.value.replace(".inf", "inf").replace(".nan", "nan"))


def _refuse(at: Any, problem: str) -> None:
    """`at` is an event or a node of PyYAML: what has a start_mark."""
    raise yaml.constructor.ConstructorError(None, None, problem, at.start_mark)


_SCALARS = (
    ("null", r"~|null|", "~n", lambda loader, node: None),
    ("bool", r"true|false", "tf", lambda loader, node: node.value == "true"),
    ("int", r"[-+]?[0-9]+|0o[0-7]+|0x[0-9a-fA-F]+", "-+0123456789", _Loader.construct_integer),
    (
        "float",
        r"[-+]?(?:\.[0-9]+|[0-9]+(?:\.[0-9]*)?)(?:[eE][-+]?[0-9]+)?|[-+]?\.inf|\.nan",
        "-+.0123456789",
        _Loader.construct_float,
    ),
)

for _name, _pattern, _first, _construct in _SCALARS:
    _tag = f"tag:yaml.org,2002:{_name}"
    _starts = [*_first, ""] if _name == "null" else list(_first)
    for _class in (_Loader, _Dumper):
        _class.add_implicit_resolver(_tag, re.compile(rf"^(?:{_pattern})$"), _starts)
    _Loader.add_constructor(_tag, _construct)
_Loader.add_constructor("tag:yaml.org,2002:str", _Loader.construct_string)
_Loader.add_constructor("tag:yaml.org,2002:seq", _Loader.construct_plain_sequence)
_Loader.add_constructor("tag:yaml.org,2002:map", _Loader.construct_plain_mapping)
