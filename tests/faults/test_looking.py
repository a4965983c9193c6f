"""Looking at a node needs nothing that can be written: a full disk, a backup mounted read-only, evidence."""

import os
import shutil
import subprocess
import sys
from contextlib import contextmanager

import pytest

import dropr_core as dropr
from dropr_core.system.exit_codes import Exit
from dropr_core.system.locks import FileLock, is_held

YAML = """
node: shop
storage: {storage}
limits: {{min_free: 0}}
peers: {{ware: {{url: "http://127.0.0.1:9", key: "0123456789abcdef0123456789abcdef"}}}}
"""
VERBS = ("status", "count", "list", "fsck")


def can_mount():
    """Whether this test may mount things."""
    return os.geteuid() == 0 and shutil.which("mount") is not None


needs_mount = pytest.mark.skipif(not can_mount() and not os.environ.get("CI"), reason="mounting needs root")


@contextmanager
def mounted(place, *options):
    """Something mounted for as long as the block lasts."""
    subprocess.run(["mount", *options, str(place)], check=True)
    try:
        yield place
    finally:
        subprocess.run(["umount", str(place)], check=True)


def run(directory, *words):
    """A verb in a process of its own."""
    return subprocess.run(
        [sys.executable, "-m", "dropr_core", *words],
        cwd=directory,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


@pytest.fixture(params=["sqlite", "fs"])
def store(request, tmp_path):
    """A node's directory with a message in it, left by a process that ended well."""
    place = tmp_path / "node"
    place.mkdir()
    (place / "dropr.yaml").write_text(YAML.format(storage=request.param))
    with dropr.open(place / "dropr.yaml") as node:
        identity = node.send(b"look at me", to="ware").id
    return place, identity


def look(directory, identity):
    """Every verb that looks, and what they must show."""
    for verb in VERBS:
        done = run(directory, verb)
        assert done.returncode == Exit.OK, (verb, done.stderr)
    assert identity in run(directory, "list").stdout
    assert run(directory, "cat", identity).stdout == "look at me"
    assert "queued" in run(directory, "show", identity).stdout


@needs_mount
@pytest.mark.parametrize("copied", [False, True], ids=["as it was", "without what only helps"])
def test_a_healthy_store_on_a_read_only_mount_can_be_looked_at(store, tmp_path, copied):
    """Also a backup that has the databases alone; fsck finds nothing wrong with it."""
    place, identity = store
    if copied:
        for path in [*place.rglob("*-shm"), *place.rglob("*-wal")]:
            path.unlink()
    target = tmp_path / "mounted"
    target.mkdir()
    with mounted(target, "--bind", str(place)):
        subprocess.run(["mount", "-o", "remount,ro,bind", str(target)], check=True)
        look(target, identity)
        refused = run(target, "send", "x", "--to", "ware")
    assert refused.returncode == Exit.IO_ERROR
    assert "Read-only file system" in refused.stderr


@needs_mount
def test_a_store_on_a_disk_without_any_room_can_be_looked_at(store, tmp_path):
    """Not one byte is free; what is there is shown."""
    place, identity = store
    target = tmp_path / "full"
    target.mkdir()
    with mounted(target, "-t", "tmpfs", "-o", "size=64m", "tmpfs"):
        shutil.copytree(place, target / "node")
        with pytest.raises(OSError, match="No space left"), (target / "fill").open("wb", buffering=0) as file:
            for _ in range(4096):
                file.write(bytes(1024 * 1024))
                file.write(bytes(1024))
        look(target / "node", identity)
        for path in (target / "node").rglob("*-shm"):
            path.unlink()
            refused = run(target / "node", "send", "x", "--to", "ware")
            assert refused.returncode == Exit.TEMPFAIL, refused.stderr
            assert "the disk is full" in refused.stderr
            break  # the storage of files may have room in a segment that it made before


def test_to_ask_who_holds_a_lock_writes_nothing(tmp_path):
    """A file that may only be read tells it; askers neither see each other nor keep the lock from being taken."""
    path = tmp_path / "lock"
    assert not is_held(path)
    assert not path.exists()
    lock = FileLock(path)
    lock.acquire("test")
    path.chmod(0o400)
    assert is_held(path)
    lock.release()
    assert not is_held(path)
    path.chmod(0o600)
    ask = (
        "import sys, pathlib\nfrom dropr_core.system.locks import is_held\n"
        "path = pathlib.Path(sys.argv[1])\nfor _ in range(20000): assert not is_held(path)"
    )
    askers = [subprocess.Popen([sys.executable, "-c", ask, str(path)]) for _ in range(2)]
    assert [asker.wait(60) for asker in askers] == [0, 0]
