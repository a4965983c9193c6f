"""What a node tells and hears by files in `run/`: when the system refuses those, an error with words, and no loss."""

import contextlib
import errno
import os
from pathlib import Path

import pytest
import yaml
from click.testing import CliRunner
from support.one_node import KEY, configure

from dropr_core.api.node import Node
from dropr_core.cli.app import application
from dropr_core.errors import StoreError
from dropr_core.system.clock import boot_id, read_clock
from dropr_core.system.exit_codes import Exit

CALLS = ("open", "mkdir", "mkfifo", "link", "unlink", "rename", "replace", "listdir", "scandir", "utime")
EVERY = pytest.mark.parametrize(
    "number", [errno.EROFS, errno.ENOSPC, errno.EMFILE, errno.EACCES], ids=errno.errorcode.get
)


@pytest.fixture
def refuse(monkeypatch):
    """From now on each system call that names something in this directory fails with this error; returns which did."""

    def begin(directory: Path, number: int) -> list[str]:
        refused: list[str] = []
        for name in CALLS:
            real = getattr(os, name)

            def call(*args, _name=name, _real=real, **options):
                paths = [os.fspath(arg) for arg in args if isinstance(arg, str | os.PathLike)]
                exists = _name == "mkdir" and Path(paths[0]).is_dir()  # the system says so first
                if not exists and any(f"{path}/".startswith(f"{directory}/") for path in paths):
                    refused.append(_name)
                    raise OSError(number, os.strerror(number), paths[0])
                return _real(*args, **options)

            monkeypatch.setattr(os, name, call)
        return refused

    return begin


VERBS = {
    "send": ("send", "sent", "--to", "rome", "--channel", "jobs"),
    "receive": ("receive", "jobs", "--wait", "0s"),
    "retry": ("retry",),
    "status": ("status",),
}


def take(node, count):
    return [message.body for message in node.receive("jobs", limit=count, wait=0)]


def send_batch(node):
    with node.batch() as batch:
        batch.send(b"batch", channel="jobs", to="rome")


CALLS_OF_NODE = {
    "send": lambda node: node.send(b"sent", channel="jobs", to="rome"),
    "put": lambda node: node.put(b"put", channel="jobs"),
    "batch": send_batch,
    "find": lambda node: node.find(node.send(b"found", channel="jobs", to="rome").id).status,
    "status": lambda node: node.status(node.send(b"asked", channel="jobs", to="rome").id),
    "wait": lambda node: node.send(b"waits", channel="jobs", to="rome").wait(0),
    "cancel": lambda node: node.send(b"cancelled", channel="jobs", to="rome").cancel(),
    "receive": lambda node: take(node, 1),
    "receive_batches": lambda node: list(node.receive_batches("jobs", limit=1, wait=0)),
    "consumer": lambda node: node.consumer("jobs").close(),
    "retry_now": lambda node: node.retry_now("rome"),
}
NEEDS = {"wait", "receive", "receive_batches", "consumer", "retry_now"}
"""Those for which a file in `run/` is what they are about: they fail. What stores only tells of it, and does not."""


@EVERY
@pytest.mark.parametrize("name", CALLS_OF_NODE)
def test_a_call_of_a_node_ends_well_or_with_an_error_of_ours(tmp_path, refuse, monkeypatch, name, number):
    """What stores succeeds though nobody can be notified; what has to listen says what was refused, and where."""
    with Node.open(configure(tmp_path)) as node:
        node.put(b"before", channel="jobs")
        node.runtime.notifier.close()  # it has looked at no flag yet
        refused = refuse(tmp_path / "data" / "run", number)
        if name in NEEDS:
            with pytest.raises(StoreError) as caught:
                CALLS_OF_NODE[name](node)
            assert os.strerror(number) in str(caught.value)
            assert str(tmp_path / "data" / "run") in str(caught.value)
        else:
            CALLS_OF_NODE[name](node)
        assert refused
        monkeypatch.undo()
        assert take(node, 1) == [b"before"]
        assert take(node, 1) == ([b"put"] if name == "put" else [])
        stored = name not in NEEDS - {"wait"} | {"put", "cancel"}
        peer = node.outbox.peers().get("rome")
        assert (0 if peer is None else peer.waiting) == stored


@EVERY
def test_the_verbs_that_use_it_end_with_words(tmp_path, refuse, monkeypatch, number):
    """`send` stores and says so; `receive` and `retry` name what was refused; `status` shows what it can."""
    file = tmp_path / "node.yaml"
    file.write_text(yaml.safe_dump({
        "node": "shop", "data": "./data", "limits": {"min_free": 0},
        "peers": {"rome": {"url": "http://127.0.0.1:9", "key": KEY}},
    }))  # fmt: skip
    file.chmod(0o600)

    def run(*words):
        return CliRunner().invoke(application(), [*words, "-c", str(file)])

    with Node.open(file) as node:
        node.put(b"before", channel="jobs")
    refuse(tmp_path / "data" / "run", number)
    ran = {name: run(*words) for name, words in VERBS.items()}
    monkeypatch.undo()
    said = {name: result.output for name, result in ran.items()}
    assert ran["send"].exit_code == 0, said
    for name in ("receive", "retry"):
        assert ran[name].exit_code in {Exit.IO_ERROR, Exit.TEMPFAIL}, said
        assert f"{tmp_path}/data/run" in said[name]
        assert os.strerror(number) in said[name]
    assert ran["status"].exit_code in {Exit.OK, Exit.IO_ERROR, Exit.TEMPFAIL}, said
    with Node.open(file) as node:
        assert take(node, 1) == [b"before"]
        assert node.outbox.peers()["rome"].waiting == 1


@pytest.mark.parametrize("ask", [boot_id, lambda: read_clock(Path("/nowhere"))], ids=["boot", "clock"])
def test_time_is_not_begun_anew_for_want_of_file_handles(monkeypatch, ask):
    """What is not known now is no other boot: what was noted since the last one must not look old."""

    def refused(*_args, **_options):
        raise OSError(errno.EMFILE, os.strerror(errno.EMFILE))

    with contextlib.ExitStack() as stack:
        stack.callback(monkeypatch.undo)
        monkeypatch.setattr(Path, "read_text", refused)
        with pytest.raises(OSError, match="Too many open files"):
            ask()
