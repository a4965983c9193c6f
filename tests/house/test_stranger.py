"""A stranger's plugin: `dropr new plugin` writes one, it is installed beside a built core, and its tests pass.

Everything after the build of the wheel happens in a fresh virtual environment, which knows the libraries of
this one (so no network is needed) but not its dropr.
"""

import json
import os
import subprocess
import sys
import sysconfig
from pathlib import Path

import pytest

from dropr_core.cli.new import SORTS, render
from dropr_core.errors import BadName

ROOT = Path(__file__).resolve().parents[2]
KINDS = ["serializer", "handler", "observer", "transport", "gateway", "storage"]


def run(*words, cwd=None):
    """Run a program outside of this repository's environment; its output. It must end well."""
    env = {key: value for key, value in os.environ.items() if not key.startswith(("PYTHON", "PYTEST", "DROPR_"))}
    done = subprocess.run(
        [str(word) for word in words], check=False, cwd=cwd, env=env, capture_output=True, text=True, timeout=300
    )
    assert done.returncode == 0, f"{' '.join(map(str, words))}\n{done.stdout[-4000:]}\n{done.stderr[-4000:]}"
    return done.stdout


@pytest.fixture(scope="module")
def elsewhere(tmp_path_factory):
    """(python of a fresh environment, directory of the generated packages): core from a wheel, one plugin a kind."""
    place = tmp_path_factory.mktemp("stranger")
    pip = (sys.executable, "-m", "pip", "--disable-pip-version-check", "--quiet")
    sqlite = ROOT / "plugins" / "storage_sqlite"  # the nodes of a transport's test keep their messages in it
    run(*pip, "wheel", "--no-deps", "--no-build-isolation", "--wheel-dir", place / "wheels", ROOT, sqlite)
    run(sys.executable, "-m", "venv", "--without-pip", place / "venv")
    python = place / "venv" / "bin" / "python"
    there = (*pip, "--python", python, "install", "--no-deps", "--no-index", "--no-build-isolation")
    run(*there, *(place / "wheels").glob("*.whl"))
    # A path in a .pth file is searched, but its own .pth files (those of editable installs) are not read.
    site = Path(run(python, "-c", "import sysconfig; print(sysconfig.get_paths()['purelib'])").strip())
    here = sysconfig.get_paths()
    (site / "libraries.pth").write_text(f"{here['purelib']}\n{here['platlib']}\n")
    (place / "new").mkdir()
    for kind in KINDS:
        run(place / "venv" / "bin" / "dropr", "new", "plugin", kind, "my-own", cwd=place / "new")
    # Their builder stands in the environment of this test: the fresh one sees it through the .pth file.
    run(*there, *(place / "new" / f"dropr-{kind}-my-own" for kind in KINDS))
    return python, place / "new"


def test_core_comes_from_the_wheel(elsewhere):
    """The fresh environment has no way back into this repository."""
    python, place = elsewhere
    code = "import dropr_core, sys; print(dropr_core.__file__); print(sys.path)"
    where, path = run(python, "-c", code, cwd=place).splitlines()
    assert where.startswith(str(python.parent.parent))
    assert str(ROOT) not in eval(path)


def test_dropr_lists_the_strangers_plugins(elsewhere):
    """`dropr plugins` shows each, with its package and without a complaint."""
    python, place = elsewhere
    listed = json.loads(run(python.parent / "dropr", "plugins", "--json", cwd=place))["plugins"]
    mine = {line["kind"]: line for line in listed if line["name"] == "my-own"}
    assert set(mine) == set(KINDS)
    assert {line["distribution"] for line in mine.values()} == {f"dropr-{kind}-my-own" for kind in KINDS}
    assert [line["error"] for line in mine.values()] == [""] * len(KINDS)


@pytest.mark.timeout(300)
@pytest.mark.parametrize("kind", KINDS)
def test_a_generated_plugin_passes_its_contract(elsewhere, kind):
    """The package as it was written, installed and not in its own directory's path, passes its own tests."""
    python, place = elsewhere
    package = place / f"dropr-{kind}-my-own"
    said = run(python, "-P", "-m", "pytest", "-q", "-rs", "-p", "no:cacheprovider", cwd=package)
    assert " passed" in said
    assert "failed" not in said
    assert "several processes may not use" not in said, "the tests of killed processes were skipped"


@pytest.mark.parametrize("kind", KINDS)
def test_a_generated_plugin_is_clean(elsewhere, kind):
    """Strict types and our own lint find nothing in it."""
    pytest.importorskip("mypy")
    _, place = elsewhere
    package = place / f"dropr-{kind}-my-own" / f"dropr_{kind}_my_own"
    run(sys.executable, "-m", "mypy", "--strict", "--cache-dir", place / "mypy", package, cwd=place)
    # The order of imports depends on what else lies around; everything else does not.
    run(sys.executable, "-m", "ruff", "check", "--no-cache", "--config", ROOT / "pyproject.toml", "--ignore", "I001",
        package)  # fmt: skip


def test_new_overwrites_nothing(elsewhere):
    """A directory that is there is left as it is, and said."""
    python, place = elsewhere
    before = sorted(path.stat().st_mtime_ns for path in (place / "dropr-storage-my-own").rglob("*"))
    command = [python.parent / "dropr", "new", "plugin", "storage", "my-own"]
    done = subprocess.run(command, check=False, cwd=place, capture_output=True, text=True)
    assert done.returncode == 73
    assert "exists already and is left as it is" in done.stderr
    assert sorted(path.stat().st_mtime_ns for path in (place / "dropr-storage-my-own").rglob("*")) == before


@pytest.mark.parametrize("name", ["", "Pigeon", "1st", "a b", "a--b", "../up", "a" * 41, "päckchen"])
def test_a_name_that_cannot_be_a_package_is_refused(name):
    """Before anything is written."""
    with pytest.raises(BadName, match="small letters"):
        render("storage", name)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("name", ["x", "my-own", "my_own2"])
def test_every_rendered_file_is_whole(kind, name):
    """No placeholder is left in any file, and the code compiles."""
    texts = render(kind, name)
    assert set(SORTS) == set(KINDS)
    for path, text in texts.items():
        if path.endswith(".py"):
            compile(text, path, "exec")
        assert not any(word in text for word in ("$name", "$module", "$Class", "$kind", "$distribution"))
    assert "DROPR_CONTRACT = 1" in texts[f"dropr_{kind}_{name.replace('-', '_')}/__init__.py"]
