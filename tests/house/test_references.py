"""What code and pages refer to is in this repository: sections, lists, files, anchors; and fragments can be read."""

import re
import subprocess
from pathlib import Path

import house
import pytest

ROOT = Path(__file__).resolve().parents[2]
SELF = Path(__file__).resolve()
NUMBERED = "what-survives-what.md"

ELSEWHERE = re.compile(r"\b(RFC|Raft|cpython|CPython|POSIX|sqlite\.org|SQLite's|https?:)")
"""Public documents, which may be cited by section."""

DANGLING = {
    "a section of a paper that is not here": r"\bsemantics\b,? (?:section )?\d|\b[Ss]ection \d+",
    "a number without its list": r"\((?:invariant )?[IPMRT]\d+\)|\btargets? [A-Z]\d|\bissues? #?\d+\b",
    "a paper that is not here": r"\b(?:reliability|design) (?:plan|paper)\b|\b(?:see|as|in) the design\b",
    "a file that is not here": r"\bsemantics\.md\b|\breliability\.md\b|\btargets\.md\b|\bfaults\.md\b",
}

FAULT = re.compile(r"\bfaults? \d+")

MENTIONED = re.compile(r"(?<![\w.$/{<-])((?:[\w-]+/)*[\w-]+\.(?:py|md))\b")
MADE_UP = {
    "sitecustomize.py", "nasty_transport.py", "dropr_user_code.py", "dropr_broken_code.py", "dropr_kit_code.py",
    "api.md", "conf.py", "index.md",
}  # fmt: skip
"""Files that tests write, or that exist only in an example."""


def tracked():
    """Name and text of every file under version control."""
    listed = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, check=False)
    if listed.returncode != 0:
        pytest.skip("not a git work tree")
    for name in listed.stdout.decode().split("\0"):
        path = ROOT / name
        if name and path.is_file() and path.resolve() != SELF:
            try:
                yield name, path.read_text(encoding="utf-8")
            except UnicodeDecodeError:
                continue


def dangling(text):
    """Each line that refers to something that only its author has, and the kind of reference."""
    for number, line in enumerate(text.splitlines(), 1):
        if ELSEWHERE.search(line):
            continue
        for what, pattern in DANGLING.items():
            if match := re.search(pattern, line):
                yield number, f"{what}: {match.group()}"


@pytest.mark.parametrize(
    "line",
    ["every rule of semantics section 3", "keep the others out (I8)", "reaches targets P3", "the reliability plan",
     "see the design", "as in section 4 above", "(issue 12)"],
)  # fmt: skip
def test_the_search_finds_dangling_references(line):
    """Each kind of reference that once led nowhere is found, and public documents are not."""
    assert list(dangling(line))
    assert not list(dangling("the window of RFC 4303 section 3.4.3, Raft section 5.3 and cpython issue 109564"))


def test_no_reference_leads_out_of_the_repository():
    """No file refers to a section, a number or a paper that a reader of this repository does not have."""
    assert [f"{name}:{number}: {what}" for name, text in tracked() for number, what in dangling(text)] == []


def test_a_numbered_fault_says_where_the_list_is():
    """Who reads of fault 53 in the code is told in the same comment where the ninety faults stand."""
    lost = []
    for name, text in tracked():
        if name.endswith(".py") and not name.startswith("tests/") and "/tests/" not in name:
            lines = text.splitlines()
            for index, line in enumerate(lines):
                if FAULT.search(line) and NUMBERED not in " ".join(lines[max(0, index - 1) : index + 2]):
                    lost.append(f"{name}:{index + 1}")
    assert lost == []


def prose(name, text):
    """A page without its blocks of code, a program as it is."""
    return re.sub(r"^```.*?^```", "", text, flags=re.DOTALL | re.MULTILINE) if name.endswith(".md") else text


def test_files_that_are_mentioned_are_there():
    """A file of this project that a page, a docstring or a comment names is there under that name."""
    files = [(name, text) for name, text in tracked() if name.endswith((".py", ".md")) and "templates/" not in name]
    names = {Path(name).name for name, _ in tracked()}
    lost = [
        f"{name}: {mentioned}"
        for name, text in files
        if not name.startswith(("docs/guide/", "docs/operations/", "docs/plugins/", "tests/", "CHANGELOG"))
        for mentioned in MENTIONED.findall(prose(name, text))
        if Path(mentioned).name not in names | MADE_UP | {SELF.name}
    ]
    assert lost == []


def anchor(title):
    """The anchor of a heading, as the common hosts make it."""
    return re.sub(r"[^\w\- ]", "", title.strip().lower().replace("`", "")).replace(" ", "-")


def test_links_between_pages_lead_somewhere():
    """Each relative link in a page names a file, and each anchor a heading of it."""
    pages = {name: text for name, text in tracked() if name.endswith(".md")}
    lost = []
    for name, text in pages.items():
        for target in re.findall(r"\]\(([^)\s]+)\)", prose(name, text)):
            if re.match(r"[a-z]+:", target):
                continue
            path, _, heading = target.partition("#")
            file = (ROOT / name).parent / path if path else ROOT / name
            if not file.exists():
                lost.append(f"{name}: {target}")
            elif heading and file.suffix == ".md":
                titles = re.findall(r"^#+ (.+)$", file.read_text(encoding="utf-8"), re.MULTILINE)
                if heading not in {anchor(title) for title in titles}:
                    lost.append(f"{name}: {target}")
    assert lost == []


def test_the_drawing_of_the_rooms_is_their_table():
    """In docs/architecture.md the floors of the drawing are those of the table that the house is held to."""
    page = (ROOT / "docs" / "architecture.md").read_text(encoding="utf-8")
    lines = page.split("```")[1].splitlines()
    drawn = {int(floor[1]): line for line in lines if (floor := re.match(r" ?(\d+)   ", line))}
    for room, (floor, _) in house.floor_plan(ROOT).items():
        if room != "dropr_core":
            assert re.search(rf"\b{room}\b", drawn[floor]), f"{room} is on floor {floor}"


def test_every_invariant_of_the_checker_is_explained():
    """The numbers that begin the checker's messages are rows of docs/guarantees.md."""
    page = (ROOT / "docs" / "guarantees.md").read_text(encoding="utf-8")
    code = (ROOT / "dropr_core" / "testing" / "checker.py").read_text(encoding="utf-8")
    used = set(re.findall(r'"(I\d+)"', code))
    assert used
    assert used <= set(re.findall(r"^\| (I\d+) \|", page, re.MULTILINE))


def test_fragments_of_the_changelog_can_be_read():
    """Each file in changelog.d has a name that towncrier understands and a sentence for the user."""
    kinds = "added|changed|fixed|removed|security"
    for path in (ROOT / "changelog.d").iterdir():
        if path.name != "README.md":
            assert re.fullmatch(rf"(\+[\w-]+|\d+)\.({kinds})\.md", path.name), path.name
            assert path.read_text(encoding="utf-8").strip().endswith("."), path.name
