"""Things of the user's code by their dotted name: ``package.module:name``.

Owns the form of such a name, the import, and what is said when it fails. Must not know what the thing is for.
"""

import importlib
import operator
import re
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

from dropr_core.config.interpolation import suggest
from dropr_core.errors import DroprError, PluginError, UsageError
from dropr_core.system.loading import unforked

_NAME = r"[^\W\d]\w*(\.[^\W\d]\w*)*"
_MODULE = re.compile(_NAME)
_TARGET = re.compile(rf"{_NAME}:{_NAME}")


def check_target(text: str) -> str:
    """``text``, if it has the form ``package.module:name``. Raises UsageError."""
    if not _TARGET.fullmatch(text):
        raise UsageError(f"{text!r} names nothing in a module; write package.module:name")
    return text


def check_module(text: str) -> str:
    """``text``, if it has the form ``package.module``. Raises UsageError."""
    if not _MODULE.fullmatch(text):
        raise UsageError(f"{text!r} names no module; write package.module")
    return text


def search(directory: Path | None) -> None:
    """Have modules of the user's searched there, after everything installed; None: in the current directory.

    A script of an environment does not search the current directory by itself.
    """
    place = str(directory or Path.cwd())
    if place not in sys.path:
        sys.path.append(place)


def load_module(name: str, who: str) -> ModuleType:
    """Import a module of the user's; ``who`` wants it. Raises PluginError with what to do."""
    try:
        with unforked:
            return importlib.import_module(name)
    except (Exception, SystemExit) as error:
        if isinstance(error, ModuleNotFoundError) and error.name and f"{name}.".startswith(f"{error.name}."):
            raise PluginError(
                f"{who}: there is no module {error.name}; start dropr in the directory of your code, name it with the "
                "handler's option path, or install the package"
            ) from None
        raise PluginError(f"{who}: importing {name} fails: {type(error).__name__}: {error}") from (
            None if isinstance(error, DroprError) else error
        )


def load_target(target: str, who: str, what: str = "function") -> Any:
    """Import what ``package.module:name`` stands for. Raises PluginError, for a wrong name with the nearest one."""
    module_name, _, name = target.partition(":")
    module = load_module(module_name, who)
    try:
        return operator.attrgetter(name)(module)
    except AttributeError:
        known = [word for word, value in vars(module).items() if callable(value) and not word.startswith("_")]
        raise PluginError(f"{who}: {module_name} has no {what} {name}{suggest(name, known)}") from None
