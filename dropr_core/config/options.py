"""Options: a mapping → an attrs class, with every mistake said at its place.

Owns how a class declares its options (`option`, `duration`, `size`, `path`, `secret`, `own`, `given`)
and the `Reader` that fills such a class. Plugins declare their options with the same words, and
`dropr schema`, `dropr init` and the reference read the same declarations (configdocs).
Must not know what any option means, nor read files: values come in, values go out.

    @attrs.frozen(kw_only=True)
    class Options:
        flush: float = options.duration("20ms", doc="How long a commit may wait for company.")

    options.build(Options, {"flush": "50ms"}, "storage", where)

A secret never appears in a mistake or a repr; neither does what came out of a ``${...}``.
"""

import types
from collections.abc import Callable, Hashable, Mapping
from functools import lru_cache
from pathlib import Path
from typing import Any, Literal, TypeVar, Union, cast, get_args, get_origin, get_type_hints

import attrs

from dropr_core.config.interpolation import NOWHERE, SourceLocation, suggest
from dropr_core.config.units import format_duration, format_size, parse_duration, parse_size
from dropr_core.config.yamlfile import Steps, scalar
from dropr_core.errors import ConfigError, DroprError

__all__ = [
    "NOWHERE", "Note", "Reader", "SourceLocation", "build", "duration", "format_duration", "format_size", "given",
    "note_of", "option", "own", "parse_duration", "parse_size", "path", "secret", "size", "suggest",
]  # fmt: skip

T = TypeVar("T")
_NOTE = "dropr"

BAD = object()
"""What a reading function returns after it noted a mistake."""


@attrs.frozen
class Own:
    """A form of its own: how it is read, how the reference names it, what a JSON Schema says of it."""

    read: Callable[["Reader", Any, Steps], Any]
    says: str
    schema: Mapping[str, Any]


@attrs.frozen(kw_only=True)
class Note:
    """What is known of an option besides its type."""

    doc: str = ""
    kind: Literal["", "duration", "size", "given"] = ""
    name: str | None = None
    """The word in the file, where it is not the attribute's."""
    secret: bool = False
    least: float | None = None
    most: float | None = None
    check: Callable[[str], object] | None = None
    """Raises a DroprError for text that may not stand here."""
    check_key: Callable[[str], object] | None = None
    """The same for the keys of a mapping."""
    own: Own | None = None
    unset: str = ""
    """What happens without this option, where the default does not say it."""
    example: str = ""
    """YAML of a good use, for the template."""
    formerly: tuple[str, ...] = ()
    """What it was called in earlier versions: such a word is a mistake that names the present one."""


def option(default: Any = attrs.NOTHING, *, doc: str = "", secret: bool = False, show: bool = True, **note: Any) -> Any:
    """Declare an option whose type is its annotation; without ``default`` it must be given.

    ``doc`` is one or two sentences for the user; without ``show`` the value stays out of the repr. ``note``
    takes what else a `Note` has.
    """
    metadata = {_NOTE: Note(doc=doc, secret=secret, **note)}
    kind: dict[str, Any] = {"factory": default} if isinstance(default, type) else {"default": default}
    return attrs.field(**kind, repr=show and not secret, metadata=metadata)


def duration(default: Any = attrs.NOTHING, *, doc: str = "", **note: Any) -> Any:
    """Declare a duration: ``'1h30m'`` in the file, seconds (float) in the class."""
    value = default if default is attrs.NOTHING or default is None else parse_duration(default)
    return option(value, doc=doc, kind="duration", **note)


def size(default: Any = attrs.NOTHING, *, doc: str = "", **note: Any) -> Any:
    """Declare a size: ``'64KiB'`` in the file, bytes (int) in the class."""
    value = default if default is attrs.NOTHING or default is None else parse_size(default)
    return option(value, doc=doc, kind="size", **note)


def path(default: Any = attrs.NOTHING, *, doc: str = "", **note: Any) -> Any:
    """Declare a path: relative to the file in which it stands, absolute in the class."""
    return option(default, doc=doc, **note)


def secret(default: Any = attrs.NOTHING, *, doc: str = "", **note: Any) -> Any:
    """Declare something that no log, mistake or repr may show."""
    return option(default, doc=doc, secret=True, **note)


def own(read: Callable[["Reader", Any, Steps], Any], says: str, schema: Mapping[str, Any], **rest: Any) -> Any:
    """Declare an option with a form of its own; ``read`` returns the value, or notes a mistake and returns BAD."""
    return option(own=Own(read, says, schema), **rest)


def given(default: Any = attrs.NOTHING, *, repr: bool = True, eq: bool = True) -> Any:  # noqa: A002
    """Declare a field that the program fills and no file may name (a field ``name`` gets the mapping's key)."""
    return attrs.field(default=default, repr=repr, eq=eq, metadata={_NOTE: Note(kind="given")})


def note_of(field: Any) -> Note:
    """The note of an attrs field; an empty one for a field declared without the words above."""
    return cast("Note", field.metadata.get(_NOTE) or Note())


def fields_of(cls: type) -> Mapping[str, tuple[Any, Any, Note]]:
    """Word in the file → (attrs field, type, note), for everything that a file may name.

    Kept for each class: a file may have ten thousand channels, and to look their types up was half of reading it.
    """
    return _fields_of(cast("Hashable", cls))


@lru_cache(maxsize=256)
def _fields_of(hashable: Hashable) -> Mapping[str, tuple[Any, Any, Note]]:
    cls = cast("type", hashable)
    hints = get_type_hints(cls)
    result = {}
    for field in attrs.fields(cls):
        note = note_of(field)
        if field.init and note.kind != "given":
            result[note.name or (field.alias or field.name).rstrip("_")] = (field, hints[field.name], note)
    return types.MappingProxyType(result)


def build(
    cls: type[T], mapping: Mapping[str, Any] | None, path: str | Steps = (), where: SourceLocation = NOWHERE
) -> T:
    """An instance of ``cls`` from ``mapping``, which stands at ``path`` of ``where``.

    Raises ConfigError with every mistake. References (``${env:X}``) are expanded when the file is
    loaded, not here.
    """
    reader = Reader(where)
    steps = where.find(path) if isinstance(path, str) else path
    result = reader.read(cls, mapping, steps)
    reader.finish()
    return cast("T", result)


def _unknown(cls: type, word: Any, fields: Mapping[str, tuple[Any, Any, Note]]) -> str:
    """What to say of a word that is no option, or no longer one (``Removed`` of the class: word → what to do now)."""
    for name, (_, _, note) in fields.items():
        if word in note.formerly:
            return f"is called {name!r} now; write {name}: in its place"
    gone: Mapping[Any, str] = getattr(cls, "Removed", {})
    if word in gone:
        return f"is no option any more; {gone[word]}"
    return f"no option is called {word!r}{suggest(word, fields)}"


class Reader:
    """Reads values at paths and collects the mistakes, so that all of them are said at once."""

    def __init__(self, where: SourceLocation) -> None:
        self.where = where
        self._problems: list[tuple[int, str]] = []
        self._wrong: set[Steps] = set()
        for steps, text in where.mistakes:
            self.mistake(steps, text)

    def mistake(self, steps: Steps, text: str) -> Any:
        """Note that ``text`` is wrong at ``steps``; returns BAD."""
        if steps not in self._wrong:  # one mistake for each place: the first is the cause
            self._wrong.add(steps)
            self._problems.append((self.where.line(steps), self.where.say(steps, text)))
        return BAD

    def wrong(self, *steps: str | int) -> bool:
        """Whether a mistake was noted at this place or below it."""
        return any(path[: len(steps)] == steps for path in self._wrong)

    def finish(self) -> None:
        """Raise ConfigError if there was any mistake, in the order of the lines."""
        if self._problems:
            raise ConfigError([text for _, text in sorted(self._problems, key=lambda problem: problem[0])])

    def show(self, value: object, steps: Steps, *, secret: bool = False) -> str:
        """``value`` for a mistake, unless it may be secret."""
        if value is None:
            return "nothing"
        if isinstance(value, Mapping):
            return "a mapping"
        if isinstance(value, list | tuple):
            return "a list"
        if secret or self.where.hides(steps):
            return "the value"
        text = str(value).lower() if isinstance(value, bool) else repr(value)
        return text if len(text) <= 60 else text[:57] + "..."

    def read(self, cls: type[T], value: object, steps: Steps, **filled: Any) -> T | None:
        """An instance of the attrs class ``cls``; ``filled`` gives the fields that no file names.

        After a mistake the instance holds defaults in place of what was wrong, or is None; it serves only
        to look for more mistakes.
        """
        if value is None:
            value = {}
        if not isinstance(value, Mapping):
            self.mistake(steps, f"expected a mapping, found {self.show(value, steps)}")
            return None
        fields = fields_of(cls)
        before = len(self._problems)
        for word in value:
            if word not in fields:
                self.mistake((*steps, word), _unknown(cls, word, fields))
        arguments = dict(filled)
        for word, (field, kind, note) in fields.items():
            # A word with nothing after it is as good as none: sections are often left empty.
            if value.get(word) is not None or (word in value and field.default is attrs.NOTHING):
                result = self.value(kind, note, value[word], (*steps, word))
                if result is not BAD:
                    arguments[field.alias] = result
                elif field.default is attrs.NOTHING:
                    arguments[field.alias] = None
            elif field.default is attrs.NOTHING and field.alias not in arguments:
                self.mistake((*steps, word), f"is missing; {note.doc or 'it has no default'}")
                arguments[field.alias] = None
        try:
            return cls(**arguments)
        except (ValueError, TypeError, DroprError) as error:
            if len(self._problems) == before:
                hidden = any(note.secret for _, _, note in fields.values())
                self.mistake(steps, "the options do not fit together" if hidden else str(error))
            return None

    def value(self, kind: Any, note: Note, value: Any, steps: Steps) -> Any:
        """``value`` as ``kind``, or BAD after a mistake was noted."""
        if steps in self._wrong:
            return BAD
        if note.own:
            return note.own.read(self, value, steps)
        origin, args = get_origin(kind), get_args(kind)
        if origin in (Union, types.UnionType) and type(None) in args:
            if value is None:
                return None
            kind = next(arg for arg in args if arg is not type(None))
            origin, args = get_origin(kind), get_args(kind)
        if note.kind in ("duration", "size"):
            return self._measure(note, value, steps)
        if kind is Any:
            return value
        if origin is Literal:
            return self._choice(args, note, value, steps)
        if origin is tuple:
            if value is None:
                return ()
            items = value if isinstance(value, list | tuple) else [value]
            results = [self.value(args[0], note, item, (*steps, index)) for index, item in enumerate(items)]
            return BAD if any(result is BAD for result in results) else tuple(results)
        if origin in (dict, Mapping):
            return self._mapping(args[1], note, value, steps)
        if attrs.has(kind):
            result = self.read(kind, value, steps)
            return BAD if result is None else result
        return self._scalar(kind, note, value, steps)

    def text(self, value: object, steps: Steps, note: Note = Note(), what: str = "text") -> Any:
        """Text that ``note.check`` lets pass, or BAD."""
        if not isinstance(value, str):
            hint = "; put it in quotes" if isinstance(value, int | float) else ""
            return self.mistake(steps, f"expected {what}, found {self.show(value, steps, secret=note.secret)}{hint}")
        if note.check:
            try:
                note.check(value)
            except DroprError as error:
                hidden = note.secret or self.where.hides(steps)
                return self.mistake(steps, "this value may not stand here" if hidden else str(error))
        return value

    def _scalar(self, kind: Any, note: Note, value: object, steps: Steps) -> Any:
        if kind is Path:
            if isinstance(value, Path):
                return self.where.directory / value
            text = self.text(value, steps, note, "a path")
            return BAD if text is BAD else self._path(text, steps)
        if kind is str:
            return self.text(value, steps, note)
        if isinstance(value, str) and self.where.hides(steps):
            value = scalar(value.strip())
        shown = self.show(value, steps, secret=note.secret)
        if kind is bool:
            return value if type(value) is bool else self.mistake(steps, f"expected true or false, found {shown}")
        if kind is float and type(value) is int:
            value = float(value)
        if type(value) is not kind:
            what = {int: "a whole number", float: "a number"}.get(kind, getattr(kind, "__name__", str(kind)))
            return self.mistake(steps, f"expected {what}, found {shown}")
        return self._bounds(note, cast("float", value), steps, str)

    def _measure(self, note: Note, value: object, steps: Steps) -> Any:
        parse: Callable[..., float] = parse_duration if note.kind == "duration" else parse_size
        show: Callable[[Any], str] = format_duration if note.kind == "duration" else format_size
        try:
            result = parse(value, strict=True)
        except DroprError as error:
            hidden = value is None or note.secret or self.where.hides(steps)
            shown = self.show(value, steps, secret=note.secret)
            return self.mistake(steps, f"expected a {note.kind}, found {shown}" if hidden else str(error))
        return self._bounds(note, result, steps, show)

    def _bounds(self, note: Note, value: float, steps: Steps, show: Callable[[Any], str]) -> Any:
        shown = "the value" if note.secret or self.where.hides(steps) else show(value)
        if note.least is not None and value < note.least:
            return self.mistake(steps, f"{shown} is too small; use at least {show(note.least)}")
        if note.most is not None and value > note.most:
            return self.mistake(steps, f"{shown} is too big; use at most {show(note.most)}")
        return value

    def _path(self, text: str, steps: Steps) -> Any:
        try:
            return self.where.directory / Path(text).expanduser()
        except RuntimeError:
            return self.mistake(steps, f"{self.show(text, steps)}: the home directory is not known; write the path out")

    def _choice(self, choices: tuple[Any, ...], note: Note, value: object, steps: Steps) -> Any:
        if isinstance(value, str) and self.where.hides(steps) and value not in choices:
            value = scalar(value)
        for choice in choices:
            if type(choice) is type(value) and choice == value:
                return choice
        words = [str(choice).lower() for choice in choices]
        shown = self.show(value, steps, secret=note.secret)
        return self.mistake(steps, f"expected {', '.join(words[:-1])} or {words[-1]}, found {shown}")

    def _mapping(self, kind: Any, note: Note, value: object, steps: Steps) -> Any:
        if value is None:
            return {}
        if not isinstance(value, Mapping):
            return self.mistake(steps, f"expected a mapping, found {self.show(value, steps)}")
        results = {}
        for key, item in value.items():
            below = (*steps, key)
            if not isinstance(key, str):
                self.mistake(below, "the key is not text; put it in quotes")
            elif note.check_key and self.text(key, below, Note(check=note.check_key)) is BAD:
                continue
            elif attrs.has(kind) and "name" in attrs.fields_dict(kind) and "name" not in fields_of(kind):
                results[key] = self.read(kind, item, below, name=key)
            else:
                results[key] = self.value(kind, Note(secret=note.secret), item, below)
        return types.MappingProxyType({key: item for key, item in results.items() if item not in (None, BAD)})
