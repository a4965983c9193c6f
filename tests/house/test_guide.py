"""The guide is complete: every argument, option, header, variable and error that a user meets stands in it."""

import importlib
import inspect
import re
from pathlib import Path

import attrs
import pytest

import dropr_core
from dropr_core import errors
from dropr_core.api.node import Node
from dropr_core.api.send_options import SendOptions

ROOT = Path(__file__).resolve().parents[2]
GUIDE = ROOT / "docs" / "guide"
HANDLERS = ("python", "webhook", "command")


def page(name):
    """The text of a page of the guide."""
    return (GUIDE / f"{name}.md").read_text(encoding="utf-8")


def told(text):
    """Everything that stands in backticks, in pieces."""
    prose = re.sub(r"^```.*?^```", "", text, flags=re.DOTALL | re.MULTILINE)
    return set(re.findall(r"\w+", " ".join(re.findall(r"`([^`\n]+)`", prose))))


def arguments(function):
    """The names of a function's arguments by keyword."""
    return {name for name, given in inspect.signature(function).parameters.items() if given.kind is given.KEYWORD_ONLY}


def test_every_argument_of_the_node_is_explained():
    """Whatever `send`, `put`, `receive` and its lists take by keyword is told in python.md."""
    taken = set(SendOptions.__annotations__)
    for verb in (Node.send, Node.put, Node.put_all, Node.batch, Node.receive, Node.receive_batches):
        taken |= arguments(verb)
    assert len(taken) > 15
    assert not taken - told(page("python"))


def test_every_error_is_explained():
    """A program that uses a node meets no error of which the guide says nothing: its name, or that of its parent."""
    inside = {"ProtocolError", "BadEnvelope", "BadFrame", "BadBody", "TransportError", "Unreachable", "Unanswered",
              "Refused", "Held", "Retry", "Reject"}  # fmt: skip
    public = {
        name for name, value in vars(errors).items() if isinstance(value, type) and value.__module__ == errors.__name__
    }
    assert public >= inside
    assert not public - inside - told(page("python"))


@pytest.mark.parametrize("name", HANDLERS)
def test_every_option_of_the_handlers_is_explained(name):
    """handlers.md names each option of the three handlers in the box."""
    options = importlib.import_module(f"dropr_core.builtin.handlers.{name}").Options
    assert not {field.name for field in attrs.fields(options)} - told(page("handlers"))


def test_every_variable_and_header_of_the_handlers_is_explained():
    """What a program finds in its environment and a web server in its headers stands in handlers.md."""
    text = page("handlers")
    for name, pattern in (("command", r'"(DROPR_\w+)"'), ("webhook", r'"((?:X-)?Dropr-\w+)"')):
        code = (ROOT / "dropr_core" / "builtin" / "handlers" / f"{name}.py").read_text(encoding="utf-8")
        found = set(re.findall(pattern, code))
        assert len(found) > 3
        assert not {one for one in found if f"`{one}`" not in text}


def test_the_public_names_that_the_guide_uses_are_there():
    """Each ``dropr.name`` of the guide is a public name of the package."""
    used = {name for path in GUIDE.glob("*.md") for name in re.findall(r"\bdropr\.([A-Za-z]\w*)", path.read_text())}
    used -= {"json", "md", "storage", "token", "transport", "yaml"}
    used = {name for name in used if not re.fullmatch(r"[EW]\d{3}", name)}  # of Django's checks
    assert {"open", "aopen", "Retry"} <= used
    assert not {name for name in used if name not in dropr_core.__all__}


def test_the_guarantee_is_the_same_wherever_it_stands():
    """The six points of the README are, word for word, those of docs/guarantees.md."""

    def points(path):
        text = path.read_text(encoding="utf-8").split("## The guarantee\n")[1].split("\n## ")[0]
        return [
            " ".join(point.split())
            for point in re.findall(r"^\d\. (.*?)(?=^\d\. |\n\n|\Z)", text, re.MULTILINE | re.DOTALL)
        ]

    ours = points(ROOT / "README.md")
    assert len(ours) == 6
    assert ours == points(ROOT / "docs" / "guarantees.md")


def test_every_page_of_the_guide_is_in_its_index():
    """Nobody has to guess that a page is there."""
    index = page("README")
    assert not [path.name for path in GUIDE.glob("*.md") if path.name != "README.md" and f"({path.name})" not in index]
