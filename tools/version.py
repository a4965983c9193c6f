"""The version of dropr, everywhere that it stands.

    python tools/version.py                 # says it, and where another one stands
    python tools/version.py 0.2.0.dev0      # writes it into every place

All distributions of this repository have one version, and each of them needs a core of that version or a later one of
the same line. Owns the list of places; `tests/house/test_versions.py` holds the tree to it. Must not know how wheels
are made.
"""

import re
import sys
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
SHAPE = re.compile(r"(\d+)\.(\d+)\.(\d+)(?:\.dev\d+|rc\d+)?")


def current() -> str:
    """The version that core itself says."""
    text = (ROOT / "dropr_core/__init__.py").read_text(encoding="utf-8")
    found = re.search(r'^__version__ = "(.+)"$', text, re.MULTILINE)
    assert found is not None
    return found[1]


def ceiling(version: str) -> str:
    """Below which core a plugin of that version works: the next line, which may have changed what plugins use."""
    found = SHAPE.fullmatch(version)
    if found is None:
        raise ValueError(f"{version!r} is no version such as 0.2.0, 0.2.0rc1 or 0.2.0.dev0")
    return f"{found[1]}.{int(found[2]) + 1}"


def places(version: str) -> Iterator[tuple[Path, str, str]]:
    """(file, pattern, what stands there with this version)."""
    own = (r'(?m)^version = "[^"]+"$', f'version = "{version}"')
    yield ROOT / "dropr_core/__init__.py", r'(?m)^__version__ = "[^"]+"$', f'__version__ = "{version}"'
    yield ROOT / "pyproject.toml", *own
    yield ROOT / "contrib/kubernetes/node.yaml", r"image: dropr:\S+", f"image: dropr:{version}"
    for project in sorted(ROOT.glob("plugins/*/pyproject.toml")):
        yield project, *own
        yield project, r'(?<=")(dropr-[a-z-]+(?:\[[a-z,]+\])?)>=[^"]+(?=")', rf"\g<1>>={version},<{ceiling(version)}"


def rewrite(version: str) -> dict[Path, str]:
    """Each file as it has to be. Raises LookupError if a place is not there any more."""
    texts: dict[Path, str] = {}
    for path, pattern, wanted in places(version):
        before = texts.get(path) or path.read_text(encoding="utf-8")
        texts[path], count = re.subn(pattern, wanted, before)
        if not count:
            raise LookupError(f"{path.relative_to(ROOT)} has no {pattern}: mend tools/version.py")
    return texts


def wrong() -> list[str]:
    """Files that do not say core's version, or whose requirements are of another line."""
    texts = rewrite(current())
    return [str(path.relative_to(ROOT)) for path, text in texts.items() if path.read_text(encoding="utf-8") != text]


def main(words: list[str]) -> int:
    """Says the version, or writes it; the exit code."""
    if not words:
        sys.stdout.writelines(f"{line}\n" for line in (current(), *(f"another one in {name}" for name in wrong())))
        return bool(wrong())
    try:
        for path, text in rewrite(words[0]).items():
            path.write_text(text, encoding="utf-8")
    except (ValueError, LookupError) as error:
        sys.stderr.write(f"{error}\n")
        return 64
    sys.stdout.write(f"{words[0]}: now `make .venv/.installed`, so that the environment knows it, too\n")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
