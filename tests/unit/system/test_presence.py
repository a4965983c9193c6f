"""Reports of running processes live exactly as long as their processes."""

import os
import signal
import subprocess
import sys

from dropr_core.system.presence import Presence, living

STAY = """
import pathlib, sys
from dropr_core.system.presence import Presence
Presence(pathlib.Path(sys.argv[1]), "server").announce({"urls": ["x"]})
print("here", flush=True)
sys.stdin.read()
"""


def test_a_report_is_shown_until_its_process_is_killed_and_then_swept_by_the_next(tmp_path):
    """kill -9 ends it at once; the file that stays is removed by the next process of that role."""
    with subprocess.Popen(
        [sys.executable, "-c", STAY, str(tmp_path)], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as child:
        child.stdout.readline()
        assert list(living(tmp_path, "server")) == [{"pid": child.pid, "urls": ["x"]}]
        child.send_signal(signal.SIGKILL)
        child.wait()
        assert list(living(tmp_path, "server")) == []
    left = tmp_path / f"server-{child.pid}.json"
    assert left.exists()
    other = Presence(tmp_path, "worker")
    other.announce({})
    assert left.exists()
    mine = Presence(tmp_path, "server")
    mine.announce({})
    assert {path.name for path in tmp_path.iterdir()} == {f"server-{os.getpid()}.json", f"worker-{os.getpid()}.json"}
    mine.withdraw()
    mine.withdraw()
    other.withdraw()
    assert list(tmp_path.iterdir()) == []


def test_a_forked_child_does_not_keep_the_report_of_its_parent(tmp_path):
    """What the child inherits is given up at once: when the parent is gone, so is its report."""
    presence = Presence(tmp_path, "server")
    presence.announce({})
    reader, writer = os.pipe()
    told, tell = os.pipe()
    child = os.fork()
    if child == 0:
        os.close(writer)
        os.write(tell, b"I run")
        os.read(reader, 1)
        os._exit(0)
    try:
        os.read(told, 5)
        presence.release()
        assert list(living(tmp_path, "server")) == []
    finally:
        os.close(writer)
        os.waitpid(child, 0)
        for fd in (reader, told, tell):
            os.close(fd)


def test_what_cannot_be_removed_is_no_error(tmp_path):
    """A process that stops on a disk that is read-only by now ends as ever."""
    presence = Presence(tmp_path, "server")
    presence.announce({})
    presence.path.unlink()
    presence.path.mkdir()
    presence.withdraw()
    assert list(living(tmp_path, "server")) == []
