"""Adding an entry to a node's YAML file without touching anything else in it.

Owns where in the text a new entry goes, the proof that the text then says the same as before and this entry besides,
and the replacement of the file in one step, with the old one kept beside it. Comments, order, quotes and blank lines
stay as their author wrote them, because nothing but the new lines is written. Must not know what the entry means.
"""

import json
import os
import re
import stat
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

from dropr_core.config import yamlfile
from dropr_core.config.yamlfile import format_steps
from dropr_core.errors import ConfigError
from dropr_core.system.files import sync_directory, write_at

_PLAIN = re.compile(r"[A-Za-z_][A-Za-z0-9_-]*")


def add_entry(text: str, name: str, steps: tuple[str, ...], value: Mapping[str, Any] | str) -> str:
    """``text`` with ``value`` at ``steps``, where nothing stands yet; mappings around it are made as needed.

    ``name`` stands for the file in mistakes. Raises ConfigError: something stands there, or the file is written in a
    way into which nothing can be put; then it says what to write by hand.
    """
    before = yamlfile.read(text, name).mapping
    root = yaml.compose(text, Loader=yaml.SafeLoader)
    node, depth = root, 0
    while isinstance(node, yaml.MappingNode) and depth < len(steps):
        child = _child(node, steps[depth])
        if child is None or (_is_nothing(child) and depth + 1 < len(steps)):
            break
        node, depth = child, depth + 1
    if depth == len(steps):
        raise ConfigError([f"{name}: {format_steps(steps)} stands there already; remove it first, or leave it"])
    if root is None:
        made = text + ("" if not text or text.endswith("\n") else "\n") + _lines(steps, value, 0, "  ")
    elif not isinstance(node, yaml.MappingNode):
        raise ConfigError([f"{name}: {format_steps(steps[:depth])} is no mapping; {_by_hand(steps, value)}"])
    else:
        made = _insert(text, root, node, steps[depth:], value)
    if _same(made, name, before, steps, value):
        return made
    raise ConfigError([f"{name}: its form is too unusual to add something to it; {_by_hand(steps, value)}"])


def _child(node: yaml.MappingNode, key: str) -> yaml.Node | None:
    return next((value for word, value in node.value if word.value == key), None)


def _is_nothing(node: yaml.Node) -> bool:
    """``peers:`` with nothing after it."""
    return isinstance(node, yaml.ScalarNode) and node.style is None and node.value in {"", "~", "null"}


def _insert(
    text: str, root: yaml.Node, node: yaml.MappingNode, steps: tuple[str, ...], value: Mapping[str, Any] | str
) -> str:
    """The text with the entry at the end of the mapping ``node``."""
    empty = _child(node, steps[0])
    if empty is not None:  # `peers:` with nothing behind it gets what was missing
        if node.flow_style:
            flow = " " + _flow(_nest(steps[1:], value))
            return text[: empty.start_mark.index] + flow + text[empty.end_mark.index :]
        word = next(word for word, item in node.value if item is empty)
        column = word.start_mark.column
        head = text[: empty.start_mark.index].rstrip(" ") if empty.value else text[: _end_of_key(text, word)]
        at = _line_end(text, max(empty.end_mark.index if empty.value else 0, len(head)))
        rest = text[len(head) + (len(empty.value) + 1 if empty.value else 0) : at]
        return _put(head + rest, text[at:], _lines(steps[1:], value, column + _indent(root), " " * _indent(root)))
    if node.flow_style:
        entry = f"{_word(steps[0])}: {_flow(_nest(steps[1:], value))}"
        # Right behind the last value, whatever comma or comment follows it.
        at = int(node.value[-1][1].end_mark.index if node.value else node.start_mark.index + 1)
        return text[:at] + (", " if node.value else "") + entry + text[at:]
    at = _line_end(text, _last(node))
    return _put(text[:at], text[at:], _lines(steps, value, node.value[0][0].start_mark.column, " " * _indent(root)))


def _put(before: str, after: str, lines: str) -> str:
    return (before if not before or before.endswith("\n") else before + "\n") + lines + after


def _end_of_key(text: str, word: yaml.Node) -> int:
    return text.index(":", word.end_mark.index) + 1


def _line_end(text: str, index: int) -> int:
    """Just behind the line in which ``index`` stands."""
    found = text.find("\n", index)
    return len(text) if found < 0 else found + 1


def _last(node: yaml.Node) -> int:
    """Where the last thing in a mapping really ends. A block's own end mark stands behind the comments after it."""
    if isinstance(node, yaml.MappingNode) and not node.flow_style and node.value:
        key, value = node.value[-1]
        return key.end_mark.index if _is_nothing(value) and not value.value else _last(value)
    if isinstance(node, yaml.SequenceNode) and not node.flow_style and node.value:
        return _last(node.value[-1])
    end = int(node.end_mark.index)
    if isinstance(node, yaml.ScalarNode) and node.style in {"|", ">"}:
        text = node.end_mark.buffer
        return end - 1 if text is None or node.end_mark.column == 0 else end
    return end


def _indent(root: yaml.Node) -> int:
    """By how much this file indents."""
    for _, value in root.value if isinstance(root, yaml.MappingNode) else ():
        if isinstance(value, yaml.MappingNode) and not value.flow_style and value.start_mark.column:
            return int(value.start_mark.column)
    return 2


def _lines(steps: tuple[str, ...], value: Mapping[str, Any] | str, column: int, indent: str) -> str:
    """The entry as lines of a block: the way to it in steps, itself in one line."""
    lines = []
    for depth, step in enumerate(steps):
        pad = " " * column + indent * depth
        lines.append(f"{pad}{_word(step)}:" + (f" {_flow(value)}" if depth == len(steps) - 1 else ""))
    return "\n".join(lines) + "\n"


def _nest(steps: tuple[str, ...], value: Mapping[str, Any] | str) -> Mapping[str, Any] | str:
    for step in reversed(steps):
        value = {step: value}
    return value


def _flow(value: Any) -> str:
    if isinstance(value, Mapping):
        return "{" + ", ".join(f"{_word(key)}: {_flow(item)}" for key, item in value.items()) + "}"
    if isinstance(value, list | tuple):
        return "[" + ", ".join(_flow(item) for item in value) + "]"
    if isinstance(value, str):
        return _word(value)
    return json.dumps(value)


def _word(text: str) -> str:
    """A text as it stands in YAML: in quotes unless it is a plain word that means nothing else."""
    if _PLAIN.fullmatch(text) and isinstance(yaml.safe_load(text), str) and isinstance(yamlfile.scalar(text), str):
        return text
    return json.dumps(text, ensure_ascii=False)


def _by_hand(steps: tuple[str, ...], value: Mapping[str, Any] | str) -> str:
    return f"write it there by hand: {_word(steps[0])}: {_flow(_nest(steps[1:], value))}"


def _same(made: str, name: str, before: Mapping[str, Any], steps: tuple[str, ...], value: Any) -> bool:
    """Whether the new text says what the old one said, and the entry besides."""
    try:
        after: Any = yamlfile.read(made, name).mapping
    except ConfigError:
        return False
    at = after
    for step in steps[:-1]:
        at = at.get(step) if isinstance(at, Mapping) else None
    if not isinstance(at, dict) or at.pop(steps[-1], None) != _plain(value):
        return False
    same: bool = _without_nothing(after) == _without_nothing(before)
    return same


def _plain(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {key: _plain(item) for key, item in value.items()}
    return [_plain(item) for item in value] if isinstance(value, tuple) else value


def _without_nothing(value: Any) -> Any:
    """Without mappings that are empty: those around the entry may be new."""
    if not isinstance(value, Mapping):
        return value
    kept = {key: _without_nothing(item) for key, item in value.items()}
    return {key: item for key, item in kept.items() if item is not None and item != {}}


def read_config(path: Path) -> str:
    """The text of a configuration as it stands, line ends too. Raises OSError, UnicodeDecodeError."""
    return path.read_bytes().decode("utf-8")


def replace_config(path: Path, old: str, new: str) -> Path:
    """Make ``new`` the text of a configuration that says ``old``, in one step; the old one stays as ``FILE.bak``.

    Permissions and owner stay; a symbolic link stays one, what it leads to is replaced. Returns the backup's path.
    Raises OSError, and ConfigError if somebody else changed the file meanwhile.
    """
    real = path.resolve()
    status = real.stat()
    if read_config(real) != old:
        raise ConfigError([f"{path}: it was changed meanwhile by somebody else; try again"])
    backup = real.with_name(f"{real.name}.bak")
    _write(backup, old, status)
    _write(real, new, status)
    sync_directory(real.parent)
    return backup


def _write(path: Path, text: str, like: os.stat_result) -> None:
    temporary = path.with_name(f".{path.name}.{os.getpid()}.new")
    temporary.unlink(missing_ok=True)
    fd = os.open(temporary, os.O_CREAT | os.O_EXCL | os.O_WRONLY | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
    try:
        try:
            write_at(fd, text.encode(), 0)
            if os.geteuid() == 0 or os.getegid() != like.st_gid:
                os.fchown(fd, like.st_uid if os.geteuid() == 0 else -1, like.st_gid)
            os.fchmod(fd, stat.S_IMODE(like.st_mode))
            os.fsync(fd)
        finally:
            os.close(fd)
        temporary.replace(path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
