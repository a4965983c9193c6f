"""What can be said about the configuration from its classes: schema, reference, template, masked view.

Owns the forms; the facts are the declarations in `node.py` and `schema.py`, so that nothing here
can differ from what is read.
"""

import re
import secrets
from collections.abc import Collection, Iterator, Mapping, Sequence
from pathlib import Path
from types import UnionType
from typing import Any, Literal, Union, get_args, get_origin

import attrs

from dropr_core.config.interpolation import NOWHERE, REFERENCE, SourceLocation
from dropr_core.config.node import NodeConfig
from dropr_core.config.options import Note, fields_of, format_duration, format_size
from dropr_core.config.outboxes import OutboxConfig
from dropr_core.config.retries import RetryRule
from dropr_core.config.schedules import ScheduleConfig
from dropr_core.config.schema import ChannelConfig, Component, GatewayConfig, PeerConfig
from dropr_core.config.units import DURATION_PATTERN, SIZE_PATTERN
from dropr_core.config.yamlfile import Steps

MASK = "***"
_REFERENCE = {"type": "string", "pattern": r"\$\{(?:env|file):"}
_TELLING = re.compile("secret|passw|passphrase|token|credential|authorization|cookie|api_?key|proxy")


def make_key() -> str:
    """A new key for a pair of nodes: 256 random bits as 43 characters."""
    return secrets.token_urlsafe(32)


# ── the effective configuration ──────────────────────────────────────────────────────────────────


def masked(config: NodeConfig, secrets: Collection[Steps] = ()) -> dict[str, Any]:
    """Everything that is in force, defaults included, in the words of the file; secrets masked.

    ``secrets``: where plugins have theirs, as far as that is known. An option of a plugin that came from a ``${...}``
    is shown as it stands in the file.
    """
    view: dict[str, Any] = _View(config.where, secrets).plain(config, ())
    return view


class _View:
    """A configuration as the file would say it."""

    def __init__(self, where: SourceLocation, secrets: Collection[Steps]) -> None:
        self._where, self._secrets = where, secrets

    def plain(self, value: Any, steps: Steps, note: Note | None = None) -> Any:
        if note is not None and note.secret and value:
            return MASK
        if isinstance(value, Component):
            return {"use": value.use} | self._options(value.options, steps)
        if isinstance(value, GatewayConfig):
            return self._fields(value, steps) | self._options(value.options, steps)
        if attrs.has(type(value)):
            return self._fields(value, steps)
        if isinstance(value, Mapping):
            return {word: self.plain(item, (*steps, word)) for word, item in value.items()}
        if isinstance(value, tuple | list):
            return [self.plain(item, (*steps, index)) for index, item in enumerate(value)]
        if note is not None and value is not None and note.kind in {"duration", "size"}:
            return format_duration(value) if note.kind == "duration" else format_size(value)
        return str(value) if isinstance(value, Path) else value

    def _fields(self, value: Any, steps: Steps) -> dict[str, Any]:
        return {
            word: self._hide(getattr(value, field.name), (word,))
            if word == "transports"
            else self.plain(getattr(value, field.name), (*steps, word), note)
            for word, (field, _, note) in fields_of(type(value)).items()
        }

    def _options(self, options: Mapping[str, Any], steps: Steps) -> dict[str, Any]:
        return {word: self._hide(item, (*steps, word)) for word, item in options.items()}

    def _hide(self, value: Any, steps: Steps) -> Any:
        """A plugin's option; where its own class is not at hand to say what is secret, names and forms must do."""
        if isinstance(value, Mapping):
            return {word: self._hide(item, (*steps, word)) for word, item in value.items()}
        if isinstance(value, tuple | list):
            return [self._hide(item, (*steps, index)) for index, item in enumerate(value)]
        original = self._where.references.get(steps)
        names = [step.lower() for step in steps if isinstance(step, str)]
        telling = (
            steps in self._secrets
            or _TELLING.search(names[-1])
            or (isinstance(original or value, str) and "@" in (original or value))
        )
        if original is not None and (REFERENCE.fullmatch(original) or not telling):
            return original
        hidden = telling or self._where.hides(steps)
        return MASK if value and hidden else str(value) if isinstance(value, Path) else value


# ── JSON Schema ──────────────────────────────────────────────────────────────────────────────────


def schema() -> dict[str, Any]:
    """A JSON Schema (draft 2020-12) of the file, for editors."""
    return {"$schema": "https://json-schema.org/draft/2020-12/schema", "title": "dropr node"} | _object(NodeConfig)


def _object(cls: type) -> dict[str, Any]:
    properties, required = {}, []
    for word, (field, kind, note) in fields_of(cls).items():
        properties[word] = _type(kind, note) | ({"description": note.doc} if note.doc else {})
        if field.default is attrs.NOTHING:
            required.append(word)
    out: dict[str, Any] = {"type": "object", "properties": properties, "additionalProperties": False}
    return out | ({"required": required} if required else {})


def _type(kind: Any, note: Note) -> dict[str, Any]:
    if note.own:
        return dict(note.own.schema)
    origin, args = get_origin(kind), get_args(kind)
    if origin in {Union, UnionType}:
        kind = next(arg for arg in args if arg is not type(None))
        origin, args = get_origin(kind), get_args(kind)
    if note.kind in {"duration", "size"}:
        # A reference is followed before the value is read; what it stands for, no schema can know.
        pattern = DURATION_PATTERN if note.kind == "duration" else SIZE_PATTERN
        return {"anyOf": [{"const": 0}, {"type": "string", "pattern": pattern}, _REFERENCE]}
    if origin is Literal:
        return {"enum": list(args)}
    if origin is tuple:
        items = _type(args[0], Note())
        return {"oneOf": [items, {"type": "array", "items": items}]}
    if origin is not None:
        return {"type": "object", "additionalProperties": _type(args[1], Note())}
    if attrs.has(kind):
        return _object(kind)
    bounds = {word: value for word, value in (("minimum", note.least), ("maximum", note.most)) if value is not None}
    names = {bool: "boolean", int: "integer", float: "number", str: "string", Path: "string"}
    return {"type": names[kind]} | bounds if kind in names else {}


# ── the reference ────────────────────────────────────────────────────────────────────────────────

_INTRODUCTION = """\
# Configuration reference

Generated from the classes that read it; a test keeps the two together. One YAML file describes one node.
`dropr check` says every mistake at once, `dropr config` shows what is in force, `dropr init` writes a file to begin
with, `dropr schema` prints a JSON Schema for editors.

Durations and sizes have units: `250ms`, `5m`, `1h30m`, `1d`; `64KiB` (1024), `4MB` (1000 * 1000). `${env:NAME}` and
`${file:PATH}` stand for an environment variable and a file's content; a relative path is relative to the file.
Unknown and doubled keys are refused; so are `yes`, `no`, `on` and `off` in the place of `true` and `false`. Plugins
are named as `NAME`, or `{use: NAME, option: value}`.
"""


def reference() -> str:
    """docs/configuration.md."""
    parts = [_INTRODUCTION, "## The file\n", _table(NodeConfig)]
    for title, cls in _sections():
        parts += [f"\n## {title}\n", f"{(cls.__doc__ or '').strip()}\n", _table(cls)]
    return "\n".join(parts)


def _sections() -> Iterator[tuple[str, type]]:
    for word, (_, kind, _note) in fields_of(NodeConfig).items():
        if word == "peers":
            yield "`peers.NAME`", PeerConfig
        elif word == "channels":
            yield "`channels.NAME`", ChannelConfig
            yield "`channels.NAME.retry.EXCEPTION`", RetryRule
        elif word == "schedules":
            yield "`schedules.NAME`", ScheduleConfig
        elif word == "outboxes":
            yield "`outboxes.NAME`", OutboxConfig
        elif word == "gateways":
            yield "`gateways.NAME`", GatewayConfig
        elif attrs.has(kind) and word != "storage":
            yield f"`{word}`", kind


def _table(cls: type) -> str:
    lines = ["| option | what | default |", "|---|---|---|"]
    for word, (field, _, note) in fields_of(cls).items():
        lines.append(f"| `{word}` | {note.doc} | {_default(field, note)} |")
    return "\n".join(lines) + "\n"


def _default(field: Any, note: Note) -> str:
    if field.default is attrs.NOTHING:
        return "must be given"
    if note.unset:
        return note.unset
    if isinstance(field.default, attrs.Factory) or field.default in ((), None):  # type: ignore[arg-type]
        return "none"
    text = _View(NOWHERE, ()).plain(field.default, (), note)
    if isinstance(text, dict):
        text = text["use"]
    return f"`{str(text).lower() if isinstance(text, bool) else text}`"


# ── the template ─────────────────────────────────────────────────────────────────────────────────


def init_text(
    node: str = "shop",
    peer: str | None = "warehouse",
    url: str = "http://127.0.0.1:8420",
    key: str = "${file:pair.key}",
    listen: Sequence[str] = (),
) -> str:
    """A commented file to begin with; every option that is commented out stands at its default.

    Whatever has no default value stands with nothing after it, which is as good as not being there. Without a ``peer``
    there is none yet, as for a node that will invite others or be invited.
    """
    off = "# " if peer is None else ""
    example = peer or "warehouse"
    listens = ", ".join(f'"{one}"' for one in listen)
    lines = [
        f"# The dropr node '{node}'. `dropr check` says what is wrong with it, `dropr config` what is in force.",
        f"node: {node}",
        "",
        *([f"listen: [{listens}]     # URLs at which peers reach this node", ""] if listen else []),
        "# The other nodes. The key is the same on both sides."
        + ("" if peer else " `dropr invite NAME` and `dropr join TOKEN` write them here."),
        "peers:",
        f"  {off}{example}:",
        f'  {off}  url: "{url}"',
        f'  {off}  key: "{key}"',
        *_comments(PeerConfig, "  #   " if off else "    # ", skip=("url", "key")),
        "",
        "# What is sent on a channel goes to its peers; what arrives on it goes to its handler, if it has one.",
        "channels:",
        "  orders:",
        f"    {off}to: {example}",
        "    serializer: json",
        *_comments(ChannelConfig, "    # ", skip=("to", "serializer")),
        "",
        *([] if listen else ['# listen: ["http://127.0.0.1:8421"]     # URLs at which peers reach this node']),
        "# groups: {everywhere: [" + example + "]}",
    ]
    lines += _comments(NodeConfig, "# ", skip=("node", "peers", "channels", "listen", "groups", "limits", "delivery",
                                               "worker", "angel", "monitor"))  # fmt: skip
    for title, cls in _sections():
        name = title.strip("`")
        if name in {"limits", "delivery", "worker", "angel", "monitor"}:
            lines += ["", f"# {name}:", *_comments(cls, "#   ")]
    return "\n".join(lines) + "\n"


def _comments(cls: type, indent: str, skip: tuple[str, ...] = ()) -> list[str]:
    lines = []
    for word, (field, _, note) in fields_of(cls).items():
        if word in skip:
            continue
        default = _default(field, note).strip("`")
        shown = f"{word}: {default}" if not note.unset and default != "none" else f"{word}:"
        tail = f" ({note.unset})" if note.unset else ""
        lines.append(f"{indent}{shown:<28}# {note.doc}{tail}")
    return lines
