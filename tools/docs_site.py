"""Build the documentation site from the pages as they stand in the repository: `make docs`.

Owns the site's order (which page under which heading) and its build with Sphinx and MyST: README is the first page, and
the pages below docs/ keep their places, so every link that works in the repository works in the site. A warning is an
error: a page that stands under no heading, or a link that leads nowhere, fails the build. Reads no network. Must not
know what the pages say.

    python tools/docs_site.py OUTPUT
"""

import shutil
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]

ORDER: tuple[tuple[str, tuple[str, ...]], ...] = (
    ("How-to", ("docs/guide/README", "docs/guide/*")),
    ("Examples", ("examples/README", "examples/*")),
    ("Operations", ("docs/operations", "docs/operations/README", "docs/operations/*")),
    ("Gateways", ("docs/gateways/README", "docs/gateways/*")),
    ("Plugins", ("docs/plugins/README", "docs/plugins/*")),
    (
        "Reference",
        (
            "docs/configuration", "docs/cli", "docs/api", "docs/errors", "docs/limits", "docs/compatibility",
            "docs/wire-protocol",
            "docs/transports/*", "docs/formats/*",
        ),
    ),
    (
        "Explanation",
        (
            "docs/comparison", "docs/concepts", "docs/guarantees", "docs/what-survives-what", "docs/security",
            "docs/performance", "docs/scale", "docs/architecture",
        ),
    ),
    (
        "Project",
        (
            "CONTRIBUTING", "changelog.d/README", "bench/README", "tests/last_release/README", "docs/decisions/index",
        ),
    ),
)  # fmt: skip
"""Heading → pages without their endings; a star stands for those of a folder that are not named before."""

CONFIGURATION = """
project = "dropr"
extensions = ["myst_parser", "sphinx.ext.autodoc"]
root_doc = "README"
html_theme = "furo"
html_title = "dropr"
html_show_sphinx = False
html_copy_source = False
myst_heading_anchors = 4
myst_enable_extensions = ["colon_fence"]
autodoc_typehints = "description"
autodoc_member_order = "bysource"
suppress_warnings = ["misc.highlighting_failure", "myst.xref_ambiguous", "docutils", "ref.python"]
exclude_patterns = []

# Names that signatures have for type checkers alone; autodoc wants to read them.
from dropr_core.api import effects, received

received.Pending = effects.Pending
"""
# docutils: docstrings are plain text here, and what looks like markup in them is none.

API = """# The Python API

What `import dropr_core as dropr` has. Written from the code.

```{eval-rst}
.. automodule:: dropr_core.api.node
   :members:
.. automodule:: dropr_core.api.aio
   :members:
.. automodule:: dropr_core.api.sent
   :members:
.. automodule:: dropr_core.api.received
   :members:
.. automodule:: dropr_core.errors
   :members:
.. automodule:: dropr_core.hookspecs
   :members:
```
"""


def copy_pages(source: Path) -> list[str]:
    """Every page, in its place; their names without the ending."""
    found = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").rglob("*.md"))]
    outside = ("bench", "changelog.d", "tests/last_release")  # what pages link to outside docs/
    found += [ROOT / folder / "README.md" for folder in outside]
    found += sorted((ROOT / "examples").rglob("README.md"))
    names = []
    for page in found:
        name = page.relative_to(ROOT)
        target = source / name
        target.parent.mkdir(parents=True, exist_ok=True)
        text = page.read_text(encoding="utf-8")
        target.write_text(text.replace("(docs/decisions/)", "(docs/decisions/index.md)"), encoding="utf-8")
        names.append(str(name.with_suffix("")))
    for page in sorted((ROOT / "examples").rglob("*")):  # the programs that those pages show
        if page.suffix in {".py", ".yaml", ".toml"}:
            target = source / page.relative_to(ROOT)
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(page, target)
    (source / "docs" / "api.md").write_text(API, encoding="utf-8")
    decisions = sorted(name for name in names if name.startswith("docs/decisions/"))
    listed = "\n".join(f"* [{_title(source / f'{name}.md')}]({Path(name).name}.md)" for name in decisions)
    tree = _toctree("", [Path(name).name for name in decisions])
    (source / "docs" / "decisions" / "index.md").write_text(f"# Decisions\n\n{listed}\n\n{tree}", encoding="utf-8")
    return [*(name for name in names if name not in decisions), "docs/api", "docs/decisions/index"]


def _title(page: Path) -> str:
    return page.read_text(encoding="utf-8").split("\n", 1)[0].lstrip("# ")


def _toctree(caption: str, pages: list[str]) -> str:
    heading = f":caption: {caption}\n" if caption else ""
    return "```{toctree}\n:hidden:\n" + heading + "\n" + "\n".join(pages) + "\n```\n\n"


def trees(names: list[str]) -> str:
    """All pages under their headings. Raises SystemExit for one that stands under none."""
    left = [name for name in names if name != "README"]
    text = ""
    for caption, patterns in ORDER:
        pages = []
        for pattern in patterns:
            folder = pattern.removesuffix("*")
            for name in [one for one in left if one == pattern or (folder != pattern and one.startswith(folder))]:
                left.remove(name)
                pages.append(name)
        if pages:
            text += _toctree(caption, pages)
    if left:
        raise SystemExit(f"under no heading of the site (tools/docs_site.py): {', '.join(left)}")
    return text


def main(output: str) -> int:
    """Build it; 0 if nothing was wrong."""
    from sphinx.cmd.build import main as build

    with tempfile.TemporaryDirectory(prefix="dropr-docs-") as scratch:
        source = Path(scratch) / "source"
        source.mkdir()
        names = copy_pages(source)
        (source / "conf.py").write_text(CONFIGURATION, encoding="utf-8")
        first = source / "README.md"
        first.write_text(f"{first.read_text(encoding='utf-8')}\n\n{trees(names)}", encoding="utf-8")
        shutil.rmtree(output, ignore_errors=True)
        code = build(["-q", "-W", "--keep-going", "-b", "html", "-d", f"{scratch}/doctrees", str(source), output])
    if code == 0:
        shutil.copyfile(Path(output) / "README.html", Path(output) / "index.html")
        sys.stdout.write(f"the site: {output}/index.html\n")
    return code


if __name__ == "__main__":
    sys.exit(main(sys.argv[1] if len(sys.argv) > 1 else "site"))
