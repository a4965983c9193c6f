"""The examples work as their pages say: every block of a page is run, in a copy of its folder, on free ports."""

import shutil
import sys
from pathlib import Path

import pytest
from support.pages import Reader, blocks_of

EXAMPLES = Path(__file__).resolve().parents[2] / "examples"
FOLDERS = sorted(page.parent for page in EXAMPLES.glob("*/README.md"))

pytestmark = pytest.mark.e2e


@pytest.mark.parametrize("folder", FOLDERS, ids=lambda folder: folder.name)
@pytest.mark.timeout(300)
def test_an_example_works_as_its_page_says(folder, tmp_path):
    """Whoever types in what the page of an example shows, in its folder, sees what the page says."""
    place = tmp_path / folder.name
    shutil.copytree(folder, place, ignore=shutil.ignore_patterns("__pycache__"))
    reader = Reader(place, path=Path(sys.executable).parent)
    reader.take_over(place)
    try:
        for block in blocks_of((folder / "README.md").read_text(encoding="utf-8")):
            reader.do(block)
    finally:
        reader.close()


def test_every_example_has_its_page():
    """Each folder has a page, and the page of all examples names each of them."""
    folders = {path.name for path in EXAMPLES.iterdir() if path.is_dir() and path.name != "__pycache__"}
    assert folders == {folder.name for folder in FOLDERS}
    listed = (EXAMPLES / "README.md").read_text(encoding="utf-8")
    assert [name for name in folders if f"({name}/README.md)" not in listed] == []
