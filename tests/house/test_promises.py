"""docs/what-survives-what.md says what is true: each test that it names is there, each fault has its row."""

import re
from pathlib import Path

from dropr_core.cli.app import SECTIONS

ROOT = Path(__file__).resolve().parents[2]
PAGE = (ROOT / "docs" / "what-survives-what.md").read_text(encoding="utf-8")
OUTSIDE = {88}
"""Faults of systems that dropr does not run on."""


def written():
    """The name of every test of core, plugins and contracts."""
    folders = (ROOT / "tests", ROOT / "plugins", ROOT / "dropr_core" / "testing")
    texts = (path.read_text(encoding="utf-8") for folder in folders for path in folder.rglob("*.py"))
    return {name for text in texts for name in re.findall(r"def (test_\w+)", text)}


def rows(title):
    """The cells of each row of the table under a title."""
    section = PAGE.split(f"## {title}")[1].split("\n## ")[0]
    lines = [line for line in section.splitlines() if re.match(r"\| \d", line)]
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in lines]


def numbers(cell):
    """``1–5`` is 1 to 5, ``71, 72`` is both."""
    ends = [int(number) for number in re.findall(r"\d+", cell)]
    return range(ends[0], ends[-1] + 1)


def test_every_test_that_the_page_names_exists():
    """A promise that names a test is held by it."""
    named = set(re.findall(r"`(test_\w+)`", PAGE))
    assert len(named) > 100
    assert not named - written()


def test_every_test_that_any_page_names_exists():
    """What a page says is held by a test, is held by one that is there."""
    there = written()
    for path in (ROOT / "docs").rglob("*.md"):
        named = set(re.findall(r"`(test_\w+)`(?!\.py)", path.read_text(encoding="utf-8")))
        assert not named - there, path.name


def test_every_fault_and_every_defect_has_a_row_with_a_test():
    """Ninety faults and sixteen defects, each once, each with a test (or said to be outside)."""
    for title, count in (("Ninety faults", 90), ("Sixteen defects", 16)):
        listed = [(number, row[-1]) for row in rows(title) for number in numbers(row[0])]
        assert [number for number, _ in listed] == list(range(1, count + 1))
        assert {number for number, tests in listed if "`test_" not in tests} <= OUTSIDE


def sources():
    """Everything that tells people what to type: the pages, and the messages of core and plugins."""
    yield from (ROOT / "README.md", *(ROOT / "docs").rglob("*.md"))
    for folder in ("dropr_core", "plugins"):
        yield from (path for path in (ROOT / folder).rglob("*.py") if "/tests/" not in str(path))


def test_every_command_that_is_told_to_people_exists():
    """Nobody is sent to a verb that is not there, at three in the morning least of all."""
    verbs = {verb for _, group in SECTIONS for verb in group} | {
        "peer",
        "node",
        "pair",
    }  # the last is a word of the derivation of keys, in quotes
    for path in sources():
        text = path.read_text(encoding="utf-8")
        told = re.findall(r"""[`'"]dropr ([a-z]+)\b|^ {4}dropr ([a-z]+)""", text, re.MULTILINE)
        assert {one or other for one, other in told} <= verbs, path


def test_every_refusal_of_the_protocol_is_in_its_description():
    """Who writes another end of the wire knows every code that can come."""
    page = (ROOT / "docs" / "wire-protocol.md").read_text(encoding="utf-8").split("## Refusal codes")[1].split("##")[0]
    told = set()
    for room in ("protocol", "serving"):
        for path in (ROOT / "dropr_core" / room).glob("*.py"):
            told |= set(re.findall(r'(?:Refused|_Unwanted)\("([a-z_]+)"', path.read_text(encoding="utf-8")))
    assert len(told) > 10
    assert not {code for code in told if f"`{code}`" not in page}


def test_every_test_of_a_fault_has_a_number_of_the_list():
    """A test named after a fault or a defect names one that is in the table."""
    for name in written():
        if match := re.match(r"test_(fault|ancestor)_(\d+)_", name):
            assert 1 <= int(match[2]) <= (90 if match[1] == "fault" else 16), name
