"""The foreign clients are there, and one that is missing is never passed over in CI."""

import json
import shutil
import subprocess
from pathlib import Path

import pytest
from support import clients

ROOT = Path(__file__).resolve().parents[2]
DEBIAN = (ROOT / ".ci" / "debian-packages").read_text().split()
NPM = sorted(json.loads((clients.NPM / "package.json").read_text())["dependencies"])


@pytest.mark.parametrize(("ci", "outcome"), [("", pytest.skip.Exception), ("true", pytest.fail.Exception)])
def test_a_missing_client_skips_at_home_and_fails_in_ci(monkeypatch, ci, outcome):
    """The rule for every test with a foreign client."""
    monkeypatch.setenv("CI", ci)
    for ask in (
        lambda: clients.program("no-such-program", "a-package"),
        lambda: clients.module("no_such_module"),
        lambda: clients.perl("No::Such::Package", "libnosuch-perl"),
    ):
        with pytest.raises(outcome):
            ask()


@pytest.mark.parametrize("package", DEBIAN)
def test_a_debian_package_of_the_list_is_installed(package):
    """What .ci/debian-packages names is there."""
    if shutil.which("dpkg-query") is None:
        clients.missing("this is not Debian")
    asked = ["dpkg-query", "-W", "-f=${db:Status-Status}", package]
    if subprocess.run(asked, capture_output=True, check=False).stdout != b"installed":
        clients.missing(f"apt-get install {package}")


@pytest.mark.parametrize("package", NPM)
def test_an_npm_package_of_the_list_is_installed(package):
    """What package.json of the clients names is there."""
    assert clients.run(clients.node(package), "-e", f"require('{package}')", cwd=clients.NPM) == b""
