"""A command that root runs in somebody's store leaves nothing that the owner cannot use."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
from support.nodes import Road, eventually, take_all

from dropr_core.system.ownership import keep_owner, open_private

SOMEBODY, GROUP = 12345, 12346
ROOT = os.geteuid() == 0
pytestmark = pytest.mark.skipif(not ROOT, reason="only root can make files for others")


@pytest.fixture
def road(tmp_path):
    made = Road(tmp_path)
    yield made
    made.close()


@pytest.mark.parametrize("storage", ["sqlite", "fs"])
def test_whatever_root_makes_in_a_store_belongs_to_the_owner_of_its_directory(road, storage, tmp_path):
    """Stores, large bodies, locks, wake-ups, reports and notes, made by every kind of process and by commands."""
    shop, ware = road.build("shop", "ware", shop={"storage": storage}, ware={"storage": storage})
    for place in (shop, ware):
        os.chown(place.directory, SOMEBODY, GROUP)
    large = tmp_path / "large"
    large.write_bytes(os.urandom(300_000))

    def cli(place, *words):
        command = [sys.executable, "-m", "dropr_core", *words, "-c", str(place.file)]
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout

    cli(shop, "send", "small", "--to", "ware")
    cli(shop, "send", "--file", str(large), "--to", "ware")
    cli(shop, "retry", "ware")
    for place in (ware, shop):
        place.run("server")
        place.run("daemon")
    with ware.opened() as there:
        assert len(take_all(there, "common", at_least=2)) == 2
    cli(shop, "status")
    eventually(lambda: "ware" in cli(ware, "status", "--json") and list((shop.data / "run").glob("*.json")))
    wrong = [
        str(path.relative_to(road.directory))
        for place in (shop, ware)
        for path in [place.data, *place.data.rglob("*")]
        if owner(path) not in {(SOMEBODY, GROUP), None}
    ]
    assert wrong == []


def owner(path: Path):
    """Whose a file is; None if it is gone by now."""
    try:
        found = path.lstat()
    except FileNotFoundError:
        return None
    return found.st_uid, found.st_gid


def test_root_gives_away_nothing_that_it_did_not_make(tmp_path):
    """A name of a file of root's elsewhere (a hard link, put there by the owner of the directory) leaves it root's."""
    os.chown(tmp_path, SOMEBODY, GROUP)
    secret = tmp_path / "secret"
    secret.write_text("root only")
    os.link(secret, tmp_path / "bait")
    fd = open_private(tmp_path / "bait", os.O_CREAT | os.O_RDWR)
    os.close(fd)
    assert owner(secret) == (0, 0)
    made = open_private(tmp_path / "made", os.O_CREAT | os.O_RDWR)
    keep_owner(made, tmp_path)
    os.close(made)
    assert owner(tmp_path / "made") == (SOMEBODY, GROUP)
