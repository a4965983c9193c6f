"""Strict YAML: text → plain values, and the line on which each of them stands.

Owns the subset of YAML that dropr reads: mappings with text keys, lists, text, whole and decimal
numbers, ``true``/``false`` and ``null``. Whatever YAML 1.1 would turn into something that nobody
meant is text here (``no``, ``on``, ``0755``, ``12:30:00``, ``2026-01-31``); equal keys, tags,
anchors and aliases are refused. Must not know what any key means.
"""

import re
from collections.abc import Mapping
from typing import Any

import attrs
import yaml

from dropr_core.errors import ConfigError

Steps = tuple[str | int, ...]
"""The way to a value from the top of the file: keys of mappings and indexes of lists."""

MAX_DEPTH = 32

_WORDS: Mapping[str, bool | None] = {"true": True, "false": False, "null": None, "~": None, "": None}
_INTEGER = re.compile(r"[-+]?(?:0|[1-9][0-9]{0,17})")
_DECIMAL = re.compile(r"[-+]?(?:0|[1-9][0-9]{0,17})(?:\.[0-9]{1,17})(?:[eE][-+]?[0-9]{1,2})?")
_HINTS = {
    "found character '\\t' that cannot start any token": "indent with spaces, not with tabs",
    "mapping values are not allowed here": "put text that holds ': ' in quotes, and check the indentation",
    "but found another document": "one file holds one node; remove the '---' between them",
}


@attrs.frozen
class Document:
    """What stands in one file."""

    mapping: dict[str, Any]
    lines: Mapping[Steps, int]
    """For each value the line of its key or, in a list, of itself; counted from 1."""


def read(text: str, name: str) -> Document:
    """Read one YAML document whose top is a mapping (or nothing at all).

    ``name`` stands for the file in mistakes. Raises ConfigError with every mistake found; a mistake of
    syntax hides those after it. Values never appear in a mistake: one of them may be a key.
    """
    problems: list[str] = []
    try:
        root = _Loader(text, name, problems).get_single_node()
    except yaml.MarkedYAMLError as error:
        raise ConfigError([*problems, _syntax(error, text, name)]) from None
    except yaml.reader.ReaderError as error:
        line = text.count("\n", 0, error.position) + 1
        raise ConfigError([f"{name}:{line}: a character that YAML does not allow; remove it"]) from None
    walk = _Walk(name, problems)
    value = {} if root is None else walk.value(root, ())
    if value is None:  # nothing but comments below a '---'
        value = {}
    if not isinstance(value, dict):
        walk.problems.append(f"{name}:1: the file must be a mapping; begin with a line like 'node: shop'")
    if walk.problems:
        raise ConfigError(walk.problems)
    return Document(value, walk.lines)


def scalar(text: str) -> str | int | float | bool | None:
    """The value of text that stands in a file without quotes."""
    if text in _WORDS:
        return _WORDS[text]
    if _INTEGER.fullmatch(text):
        return int(text)
    if _DECIMAL.fullmatch(text):
        return float(text)
    return text


class _Loader(yaml.SafeLoader):
    """Composes nodes only (never objects) and notes what dropr does not read."""

    def __init__(self, text: str, name: str, problems: list[str]) -> None:
        super().__init__(text)
        self._file = name
        self._depth = 0
        self._problems = problems

    def compose_node(self, parent: yaml.Node | None, index: int) -> yaml.Node | None:
        event: Any = self.peek_event()  # type: ignore[no-untyped-call]
        line = event.start_mark.line + 1
        if isinstance(event, yaml.AliasEvent):
            self.get_event()  # type: ignore[no-untyped-call]
            self._refuse(line, "an alias ('*...')", "write the value out")
            return yaml.ScalarNode("", "", event.start_mark, event.end_mark)  # type: ignore[arg-type]
        if event.anchor is not None:
            self._refuse(line, "an anchor ('&...')", "remove it, there are no aliases")
            self.anchors.pop(event.anchor, None)
        if event.tag is not None:
            self._refuse(line, "a tag ('!...')", "remove it")
        self._depth += 1
        if self._depth > MAX_DEPTH:
            raise yaml.MarkedYAMLError(problem=f"nested more than {MAX_DEPTH} deep", problem_mark=event.start_mark)
        node: yaml.Node | None = super().compose_node(parent, index)
        self._depth -= 1
        return node

    def _refuse(self, line: int, what: str, instead: str) -> None:
        self._problems.append(f"{self._file}:{line}: {what} is not read here; {instead}")


class _Walk:
    """Turns nodes into values and remembers their lines."""

    def __init__(self, name: str, problems: list[str]) -> None:
        self.name, self.problems = name, problems
        self.lines: dict[Steps, int] = {}

    def value(self, node: yaml.Node, steps: Steps) -> Any:
        self.lines.setdefault(steps, node.start_mark.line + 1)
        if isinstance(node, yaml.MappingNode):
            return self._mapping(node, steps)
        if isinstance(node, yaml.SequenceNode):
            return [self.value(item, (*steps, index)) for index, item in enumerate(node.value)]
        return _scalar(node)

    def _mapping(self, node: yaml.MappingNode, steps: Steps) -> dict[str, Any]:
        result: dict[str, Any] = {}
        for key_node, value_node in node.value:
            line = key_node.start_mark.line + 1
            key = _scalar(key_node) if isinstance(key_node, yaml.ScalarNode) else None
            if not isinstance(key, str):
                shown = f"'{key_node.value}'" if isinstance(key_node, yaml.ScalarNode) else "a list or mapping"
                self._mistake(line, steps, f"the key {shown} is not text; put it in quotes")
            elif key in result:
                first = self.lines[(*steps, key)]
                self._mistake(line, steps, f"the key '{key}' stands here again, first in line {first}; keep one")
            else:
                self.lines[(*steps, key)] = line
                result[key] = self.value(value_node, (*steps, key))
        return result

    def _mistake(self, line: int, steps: Steps, text: str) -> None:
        path = f"{format_steps(steps)}: " if steps else ""
        self.problems.append(f"{self.name}:{line}: {path}{text}")


def _scalar(node: Any) -> Any:
    """Quoted text is text; only without quotes may it be something else."""
    return scalar(node.value) if node.style is None else node.value


def format_steps(steps: Steps) -> str:
    """``channels.prices.to[1]``; a key that could be misread is put in quotes."""
    text = ""
    for step in steps:
        if isinstance(step, int):
            text += f"[{step}]"
        else:
            text += ("." if text else "") + (str(step) if re.fullmatch(r"[\w/-]+", str(step)) else repr(step))
    return text


def _syntax(error: yaml.MarkedYAMLError, text: str, name: str) -> str:
    """One line for a mistake of syntax, without the excerpt that PyYAML adds: it may show a key."""
    mark = error.problem_mark or error.context_mark
    number = mark.line if mark else 0
    problem = error.problem or error.context or "this is not YAML"
    if problem.startswith("found undefined tag handle") or "while parsing a tag" in (error.context or ""):
        problem = "a tag is not read here"
    lines = text.splitlines()
    if any("${" in line for line in lines[max(0, number - 1) : number + 1]):
        hint = 'put "${...}" in quotes'
    else:
        hint = _HINTS.get(problem, "check the indentation, quotes and brackets here and just above")
    return f"{name}:{number + 1}: {problem}; {hint}"
