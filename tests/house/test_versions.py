"""The version of dropr, in every place where it stands, and the last release as test data."""

import shutil
import tarfile
from pathlib import Path

import pytest
import version

import dropr_core
from dropr_core.cli.new import render

ROOT = Path(__file__).resolve().parents[2]


def test_every_place_says_the_version_of_core():
    """All distributions have core's version, and need a core of the same line; `make version` mends it."""
    assert version.current() == dropr_core.__version__
    assert version.wrong() == []


def test_another_version_is_written_into_every_place(tmp_path, monkeypatch):
    """`make version` leaves no place behind, takes no word that is no version, and changes nothing then."""
    for path in {path for path, _, _ in version.places("1.2.3")}:
        target = tmp_path / path.relative_to(ROOT)
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(path, target)
    monkeypatch.setattr(version, "ROOT", tmp_path)
    assert version.main(["next"]) == 64
    assert version.wrong() == []
    assert version.main(["7.8.9rc1"]) == 0
    assert (version.current(), version.wrong()) == ("7.8.9rc1", [])
    project = (tmp_path / "plugins/storage_fs/pyproject.toml").read_text()
    assert 'version = "7.8.9rc1"' in project
    assert '"dropr-core>=7.8.9rc1,<7.9"' in project
    (tmp_path / "plugins/storage_fs/pyproject.toml").write_text(project.replace(",<7.9", ",<7.8"))
    assert version.wrong() == ["plugins/storage_fs/pyproject.toml"]


@pytest.mark.parametrize(("this", "next_line"), [("0.1.0", "0.2"), ("0.2.0.dev0", "0.3"), ("1.9.3rc2", "1.10")])
def test_a_plugin_of_ours_takes_cores_of_its_own_line(this, next_line):
    """The next line may have changed what plugins use beyond their contract."""
    assert version.ceiling(this) == next_line


def test_a_plugin_of_a_stranger_has_no_ceiling():
    """It is held by the number of its contract when it is loaded, not by a range that nobody can know."""
    (needs,) = [line for line in render("storage", "own")["pyproject.toml"].splitlines() if line.startswith("depend")]
    assert f'"dropr-core>={dropr_core.__version__}"' in needs


def test_the_last_release_is_there_and_is_an_older_one():
    """Its wheels, all of one version, and the commit they were built from; less than a megabyte together."""
    (archive,) = (ROOT / "tests" / "last_release").glob("dropr-*.tar.xz")
    with tarfile.open(archive) as opened:
        names = opened.getnames()
        commit = opened.extractfile("COMMIT").read()
    release = archive.name.removeprefix("dropr-").removesuffix(".tar.xz")
    assert len(commit) == 41
    assert {name.split("-")[1] for name in names if name.endswith(".whl")} == {release}
    assert min(name.split("-")[0] for name in names if name.endswith(".whl")) == "dropr_core"
    assert release != dropr_core.__version__
    assert archive.stat().st_size < 1 << 20
