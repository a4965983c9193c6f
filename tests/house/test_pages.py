"""README, guide, run-books and the pages of gateways work as written: each block is run, or says why it cannot be."""

import subprocess
import sys
from pathlib import Path

import pytest
from support.pages import RUNNABLE, Reader, blocks_of

ROOT = Path(__file__).resolve().parents[2]
PAGES = [
    ROOT / "README.md",
    *(page for room in ("guide", "gateways", "operations") for page in sorted((ROOT / "docs" / room).glob("*.md"))),
]

pytestmark = pytest.mark.e2e


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
@pytest.mark.timeout(300)
def test_a_page_works_as_written(page, tmp_path):
    """Whoever types in what a page shows, from top to bottom, sees what the page says."""
    reader = Reader(tmp_path, path=Path(sys.executable).parent)
    try:
        for block in blocks_of(page.read_text(encoding="utf-8")):
            reader.do(block)
    finally:
        reader.close()


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_what_cannot_run_says_why(page):
    """A block is left out for a reason that can be read, and each page but the index shows something that runs."""
    blocks = blocks_of(page.read_text(encoding="utf-8"))
    assert all(len(block.notes["not run"]) > 10 for block in blocks if "not run" in block.notes)
    run = [block for block in blocks if block.kind in RUNNABLE and "not run" not in block.notes]
    assert run or (page.stem == "README" and page.parent != ROOT)


@pytest.mark.parametrize("target", ["demo", "dist"])
def test_who_only_looks_needs_no_linter(target):
    """`make demo` and `make dist` work where the tools of developers cannot be installed."""
    made = subprocess.run(["make", "-n", "-B", target], cwd=ROOT, capture_output=True, text=True, check=True).stdout
    assert "pip install" in made
    assert "[dev]" not in made


PAGE = """
`shop.yaml`:

```yaml
node: shop
```

    touch one && test -s shop.yaml

```text
nothing
```

<!-- fails: 3 -->

```sh
exit 3
```

**Terminal 2, another.**

```python
print("one  two")
```

```text
one…two
```
"""


WORKS = """
    mkdir below && cd below

<!-- fails: 3 -->

```sh
(exit 3)
echo never
```

    echo "$(basename $PWD)"

```text
below
```
"""


def test_the_runner_goes_on_after_what_shall_fail(tmp_path):
    """A block that ends with the code that the page names is fine, and the terminal is where it was."""
    reader = Reader(tmp_path, path=Path(sys.executable).parent)
    try:
        for block in blocks_of(WORKS):
            reader.do(block)
    finally:
        reader.close()


def test_the_runner_reads_a_page():
    """Files, indented and fenced blocks, terminals and notes are found."""
    found = [(block.kind, block.terminal, block.file, block.notes) for block in blocks_of(PAGE)]
    assert found == [
        ("yaml", 1, "shop.yaml", {}), ("sh", 1, None, {}), ("text", 1, None, {}), ("sh", 1, None, {"fails": "3"}),
        ("python", 2, None, {}), ("text", 2, None, {}),
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("page", "says"),
    [(PAGE, "expected\nnothing"), ("    false\n", "failed"), ("<!-- fails: 3 -->\n\n    exit 4\n", "line 3: exit 4"),
     ("```python\n1 / 0\n```\n", "ZeroDivisionError"), ("```\nwhat\n```\n", "nobody knows")],
)  # fmt: skip
def test_the_runner_notices_what_does_not_work(page, says, tmp_path):
    """A block that fails, ends otherwise or prints something else than the page says fails the test."""
    reader = Reader(tmp_path, path=Path(sys.executable).parent)
    try:
        with pytest.raises(AssertionError, match=says):
            for block in blocks_of(page):
                reader.do(block)
    finally:
        reader.close()
