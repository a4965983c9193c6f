"""A disk that fails under running processes and works again: nothing is lost, nothing is restarted, all of it flows.

Errors come from a real file system, so they strike every system call of dropr and its libraries. For EMFILE the
processes have no file handles left.
"""

import asyncio
import contextlib
import resource
import subprocess
import sys
import time

import pytest
from support.nodes import Road, eventually

import dropr_core as dropr
from dropr_core.errors import StoreError
from dropr_core.system.exit_codes import Exit
from powercut.acting import DEEP
from powercut.disk.client import PowerCut

pytestmark = pytest.mark.powercut

SCENES = [("sqlite", "ENOSPC"), ("fs", "EROFS")]
if DEEP:
    SCENES += [
        ("sqlite", "EROFS"),
        ("sqlite", "EIO"),
        ("sqlite", "EMFILE"),
        ("fs", "ENOSPC"),
        ("fs", "EIO"),
        ("fs", "EMFILE"),
    ]
LONG = 60.0
"""Seconds until what should flow is taken as stuck. It flows within two where the machine has nothing else to do."""
HANDLER = """
import pathlib, time
HERE = pathlib.Path(__file__).parent

def handle(work):
    with (HERE / "handled").open("a") as file:
        file.write(work.body.decode() + "\\n")
    while (HERE / "hold").exists():
        time.sleep(0.01)
"""


@pytest.fixture
def disk(tmp_path):
    with PowerCut(tmp_path / "backing") as mounted:
        yield mounted


both = pytest.mark.parametrize("storage", ["sqlite", "fs"])


@contextlib.contextmanager
def failing(disk, fault, place, processes=()):
    """Everything that changes something in a node's directory fails; or its processes have no file handles left."""
    if fault == "EMFILE":
        limits = {one.pid: resource.prlimit(one.pid, resource.RLIMIT_NOFILE) for one in processes}
        for pid, (_, most) in limits.items():
            resource.prlimit(pid, resource.RLIMIT_NOFILE, (3, most))
        yield
        for pid, before in limits.items():
            resource.prlimit(pid, resource.RLIMIT_NOFILE, before)
    else:
        for operation in ("any", "open-write"):
            disk.fault(operation, fault, f"/{place}/*", times=-1)
        yield
        disk.clear()


def say_trouble(processes):
    """Lines about a failing store in the logs of some processes. A handler that fails is told of for each attempt."""
    words = ("the store failed", "flush failed", "Too many open files", "down: busy", "can be fetched", "cannot fetch")
    lines = [line for one in processes for line in one.text.splitlines() if any(word in line for word in words)]
    return [line for line in lines if " on jobs failed: " not in line and not line.startswith("    | ")]


@pytest.fixture
def road(tmp_path, disk, storage):
    """`shop` sends to `ware`, whose worker handles `jobs`; both stores stand on the disk."""
    built = Road(tmp_path)
    module = built.write_handlers(HANDLER)
    handled = {"channels": {"jobs": {"handler": f"python:{module}:handle"}}, "worker": {"threads": 2}}
    built.build(
        "shop", "ware",
        shop={"storage": storage, "data": f"{disk.path}/shop"},
        ware={"storage": storage, "data": f"{disk.path}/ware", **handled},
    )  # fmt: skip
    yield built
    built.close()


@pytest.mark.parametrize(("storage", "fault"), SCENES)
def test_all_flows_again_when_a_disk_works_again(road, disk, tmp_path, fault):
    """Daemon, server and worker of the sender's node and then of the receiver's meet the error with messages on their
    way, in work, and with receipts to come. When it is over everything that was promised arrives, was handled once, and
    has its receipt; no process was restarted, and none wrote a line for each try.
    """
    shop, ware = road.places["shop"], road.places["ware"]
    processes = {"shop": [shop.run("daemon")], "ware": [ware.run("server"), ware.run("worker")]}
    everybody = [*processes["shop"], *processes["ware"]]
    handled, hold = tmp_path / "handled", tmp_path / "hold"
    handled.touch()
    with shop.opened() as node:
        sent = []

        def send(word):
            sent.append(node.send(f"{word} {len(sent)}", channel="jobs", to="ware", receipt=True))

        for place in ("shop", "ware"):
            hold.touch()
            for _ in range(4):
                send(f"before {place}")
            eventually(lambda: handled.read_text().count(f"before {place}") == 2, LONG)  # noqa: B023
            with failing(disk, fault, place, processes[place]):
                hold.unlink()
                for _ in range(3):
                    with contextlib.suppress(StoreError) if place == "shop" else contextlib.nullcontext():
                        send("during")
                eventually(lambda: say_trouble(processes[place]), LONG)  # noqa: B023
                time.sleep(1.2)  # a second try of everybody
            send("after")
            eventually(lambda: all(message.status.state == "processed" for message in sent), LONG)
    assert all(process.alive for process in everybody)
    lines = handled.read_text().splitlines()
    assert len(lines) == len(set(lines)) == len(sent)
    assert len(say_trouble(everybody)) <= 12, say_trouble(everybody)


@contextlib.contextmanager
def lone(disk, storage, tmp_path):
    """A node by itself on the disk, with two messages in its queue; its file, and the node."""
    file = tmp_path / "lone.yaml"
    file.write_text(f"node: lone\ndata: {disk.path}/lone\nstorage: {storage}\nlimits: {{min_free: 0}}\n")
    with dropr.open(file) as node:
        for word in ("one", "two"):
            node.put(word, channel="jobs")
        yield file, node


def bodies(messages):
    return [message.body for message in messages]


def the_rest(node, taken):
    """What was given out before, and what is now until the last one has come: what was done may have been noted."""
    seen = set(taken)
    for message in node.receive("jobs", timeout=LONG):
        message.ack()
        seen.add(message.body)
        if message.body == b"two":
            break
    return seen


@both
@pytest.mark.parametrize("fault", ["ENOSPC", "EROFS", "EIO"])
def test_a_loop_that_receives_ends_with_a_clear_error_and_the_next_one_gets_the_message(disk, storage, tmp_path, fault):
    """The store fails while the loop body works: what cannot be acknowledged comes again, in the same process too."""
    with lone(disk, storage, tmp_path) as (_, node):
        taken = []
        with pytest.raises(StoreError) as caught:
            for message in node.receive("jobs", wait=0, prefetch=2):
                taken.append(message.body)
                for operation in ("any", "open-write"):
                    disk.fault(operation, fault, times=-1)
        assert f"{disk.path}/lone" in str(caught.value)
        disk.clear()
        assert taken == [b"one"]
        assert the_rest(node, taken) == {b"one", b"two"}


@both
@pytest.mark.parametrize("fault", ["ENOSPC", "EROFS", "EIO", "EMFILE"])
def test_a_store_that_could_be_opened_only_to_read_is_opened_anew(disk, storage, tmp_path, fault):
    """What is needed for the first time while nothing can be opened for writing: that does not last."""
    with lone(disk, storage, tmp_path) as (_, node):
        consumer = node.consumer("jobs")
        for operation in ("any", "open-write"):
            disk.fault(operation, fault, times=-1)
        for _ in range(3):
            with contextlib.suppress(StoreError):
                consumer.claim(1)
        disk.clear()
        for message in consumer.claim(2):
            message.ack()
        consumer.close()
        node.put("three", channel="jobs")
        assert b"three" in bodies(node.receive("jobs", wait=0))


@both
def test_an_asynchronous_loop_does_the_same(disk, storage, tmp_path):
    """The twin of the blocking loop: the error is raised, nothing hangs, the messages are there for the next loop."""

    async def go(file):
        async with dropr.aopen(file) as node:
            taken = []
            with pytest.raises(StoreError):
                async for message in node.receive("jobs", wait=0, prefetch=2):
                    taken.append(message.body)
                    for operation in ("any", "open-write"):
                        disk.fault(operation, "ENOSPC", times=-1)
            disk.clear()
            return await asyncio.to_thread(the_rest, node.node, taken)

    with lone(disk, storage, tmp_path) as (file, _):
        assert asyncio.run(go(file)) == {b"one", b"two"}


@both
@pytest.mark.parametrize("fault", ["ENOSPC", "EROFS"])
def test_the_command_receive_says_what_failed_and_keeps_the_message(disk, storage, tmp_path, fault):
    """Its exit code is that of the store, what it says is no traceback, and the message is given out again."""
    with lone(disk, storage, tmp_path) as (file, node):
        for operation in ("any", "open-write"):
            disk.fault(operation, fault, times=-1)
        words = ["receive", "jobs", "--limit", "1", "--wait", "0s", "-c", str(file)]
        ended = subprocess.run(
            [sys.executable, "-m", "dropr_core", *words], capture_output=True, text=True, timeout=250, check=False
        )
        disk.clear()
        assert ended.returncode in {Exit.IO_ERROR, Exit.TEMPFAIL, Exit.NO_PERMISSION}, ended.stderr
        assert "Traceback" not in ended.stderr
        assert f"{disk.path}/lone" in ended.stderr
        assert the_rest(node, ended.stdout.encode().split()) == {b"one", b"two"}
