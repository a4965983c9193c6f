"""The documentation as a site: each page stands under a heading. `make docs` builds it, and CI does."""

from pathlib import Path

import docs_site
import pytest

ROOT = Path(__file__).resolve().parents[2]


def test_each_page_stands_under_one_heading(tmp_path):
    """A new page must be given its place; README, the first page, leads to all others."""
    names = docs_site.copy_pages(tmp_path)
    listed = [line for line in docs_site.trees(names).splitlines() if line in set(names)]
    assert sorted(listed) == sorted(set(names) - {"README"})
    pages = {str(page.relative_to(ROOT).with_suffix("")) for page in (ROOT / "docs").rglob("*.md")}
    assert pages <= {*names, *(name for name in pages if name.startswith("docs/decisions/"))}


def test_a_page_without_a_heading_is_an_error():
    """It is named, and the build ends."""
    with pytest.raises(SystemExit, match="stray/page"):
        docs_site.trees(["README", "stray/page"])
