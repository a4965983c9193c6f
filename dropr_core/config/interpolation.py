"""Where a configuration stands, and what its references ``${env:X}`` and ``${file:x}`` stand for.

Owns `SourceLocation` (file, lines, directory) and `expand`. What came out of a reference is treated as secret:
its place is remembered so that no mistake and no listing shows it. Must not know any option.
"""

import os
import re
import stat
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import attrs

from dropr_core.config.yamlfile import Steps, format_steps
from dropr_core.system.loading import unforked

MAX_REFERENCE = 64 * 1024
"""Bytes of a file named by ``${file:...}``: it is for keys and passwords."""

REFERENCE = re.compile(r"\$(\$\{)|\$\{([^{}]*)(\}?)")


@attrs.frozen
class SourceLocation:
    """The place of a configuration, for mistakes and for relative paths."""

    name: str = ""
    """The file as the user named it; empty when the options come from a program."""
    directory: Path = Path()
    lines: Mapping[Steps, int] = attrs.field(factory=dict, repr=False)
    references: Mapping[Steps, str] = attrs.field(factory=dict, repr=False)
    """Which values came from a ``${...}``, and their text in the file."""
    mistakes: tuple[tuple[Steps, str], ...] = attrs.field(default=(), repr=False)
    """References that could not be followed."""

    def line(self, steps: Steps) -> int:
        """The line of ``steps``, or of the nearest thing around it; 0 if no file is known."""
        while steps and steps not in self.lines:
            steps = steps[:-1]
        return self.lines.get(steps, 0)

    def find(self, path: str) -> Steps:
        """The steps of a path written with dots; names that hold dots themselves are known from the file."""
        for steps in self.lines:
            if ".".join(map(str, steps)) == path:
                return steps
        return tuple(path.split(".")) if path else ()

    def hides(self, steps: Steps) -> bool:
        """Whether the value at ``steps``, or one around it, came out of a reference."""
        return any(steps[:count] in self.references for count in range(1, len(steps) + 1))

    def say(self, steps: Steps, text: str) -> str:
        """``file:line: path: text``."""
        line = self.line(steps)
        place = f"{self.name}:{line}" if line else self.name
        return ": ".join(part for part in (place, format_steps(steps), text) if part)


NOWHERE = SourceLocation()


def expand(tree: Mapping[str, Any], where: SourceLocation) -> tuple[dict[str, Any], SourceLocation]:
    """Follow every reference in ``tree``; ``$${`` stands for ``${`` itself.

    Returns the tree with the values in place, and ``where`` with the places of the references and the
    mistakes: a reference that cannot be followed stays as it is.
    """
    walk = _Walk(where)
    result = {key: walk.value(item, (key,)) for key, item in tree.items()}
    return result, attrs.evolve(where, references=walk.references, mistakes=tuple(walk.mistakes))


def suggest(word: object, known: Iterable[str]) -> str:
    """``; did you mean 'x'?``, or the list of what is known, or nothing."""
    with unforked:
        import difflib  # only for a mistake

    names = sorted(known)
    close = difflib.get_close_matches(str(word), names, n=1)
    if close:
        return f"; did you mean '{close[0]}'?"
    return f"; use one of {', '.join(names)}" if 0 < len(names) <= 30 else ""


class _Walk:
    def __init__(self, where: SourceLocation) -> None:
        self.directory = where.directory
        self.references: dict[Steps, str] = {}
        self.mistakes: list[tuple[Steps, str]] = []

    def value(self, value: Any, steps: Steps) -> Any:
        if isinstance(value, Mapping):
            return {key: self.value(item, (*steps, key)) for key, item in value.items()}
        if isinstance(value, list | tuple):
            return [self.value(item, (*steps, index)) for index, item in enumerate(value)]
        if isinstance(value, str) and "${" in value:
            try:
                return REFERENCE.sub(lambda match: self.follow(match, value, steps), value)
            except _CannotFollow as error:
                self.mistakes.append((steps, str(error)))
        return value

    def follow(self, match: re.Match[str], text: str, steps: Steps) -> str:
        if match[1]:
            return match[1]
        kind, colon, name = match[2].partition(":")
        if not match[3]:
            raise _CannotFollow("'${' has no '}'; close it, or write '$${' for the two characters themselves")
        self.references[steps] = text
        if kind == "env" and name:
            return _from_environment(name)
        if kind == "file" and name:
            return _from_file(self.directory, name)
        if re.fullmatch(r"[A-Za-z_][A-Za-z0-9_]*", match[2]) and not colon:
            raise _CannotFollow(f"'${{{match[2]}}}' is no reference; write '${{env:{match[2]}}}'")
        raise _CannotFollow("not a reference; write '${env:NAME}' or '${file:path}', or '$${' for the characters")


class _CannotFollow(Exception):
    """Why a reference has no value; never leaves this file."""


def _from_environment(name: str) -> str:
    value = os.environ.get(name)
    if value is None:
        raise _CannotFollow(f"the environment variable {name} is not set; set it, or use ${{file:...}}")
    return value


def _from_file(directory: Path, name: str) -> str:
    """The text of the file without its final newline; only a file that strangers cannot read counts as secret."""
    try:
        path = directory / Path(name).expanduser()
        # Not blocking, so that a FIFO cannot stop the start. Path.open takes no such flags.
        descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
        try:
            status = os.fstat(descriptor)
            if not stat.S_ISREG(status.st_mode):
                raise _CannotFollow(f"{path} is no regular file; name a file that holds the value")
            # A file of root may be readable by a group: that is how a service is handed its keys.
            allowed = 0o740 if status.st_uid == 0 and os.geteuid() != 0 else 0o700
            mode = stat.S_IMODE(status.st_mode)
            if mode & ~allowed:
                raise _CannotFollow(f"others may open {path} (mode {mode:o}); run: chmod 600 {path}")
            data = os.read(descriptor, MAX_REFERENCE + 1)
        finally:
            os.close(descriptor)
    except FileNotFoundError:
        raise _CannotFollow(f"there is no file {directory / name}; make it, or correct the path") from None
    except (OSError, ValueError, RuntimeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "not a usable path"
        raise _CannotFollow(f"cannot read {directory / name} ({reason}); the user running dropr must own it") from None
    if len(data) > MAX_REFERENCE:
        raise _CannotFollow(f"{path} is bigger than 64 KiB; a reference is for a key or a password")
    try:
        text = data.decode()
    except UnicodeDecodeError:
        raise _CannotFollow(f"{path} is not UTF-8 text; a key is text, make one with: dropr keygen") from None
    return text.removesuffix("\n").removesuffix("\r")
