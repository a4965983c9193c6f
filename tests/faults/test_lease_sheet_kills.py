"""A consumer that holds messages ahead is killed between any two of its calls, and so is who settles for it.

Each point is tried in a process of its own: it is killed with SIGKILL when it is about to make its n-th call of any
function, of Python or of C. So every system call, every statement and every mark has a point before it and one after.
By default some dozens of points are tried, spread over all; with DROPR_DEEP all of them.
"""

import os
import shutil
import signal
import sys
import warnings

import pytest

from dropr_core.api.node import Node
from dropr_core.api.runtime import Runtime
from dropr_core.config.node import from_mapping
from dropr_core.contracts.storage import Ack
from dropr_core.model import envelope
from dropr_core.model.message import Message
from dropr_core.testing.builders import CHANNEL, SENDER, Source, job, new_id
from dropr_core.testing.lease_sheet_contract import Holder

POINTS = 10**9 if os.environ.get("DROPR_DEEP") else 20
TOTAL = 9
STORAGES = ("sqlite", "fs")


def open_node(directory, storage):
    """The node whose store stands in a directory."""
    mapping = {
        "node": "ware",
        "data": str(directory),
        "storage": storage,
        "limits": {"min_free": 0},
        "peers": {SENDER: {"mode": "pull", "key": "k" * 40}},
        "channels": {CHANNEL: {"attempts": 5}},
    }
    return Node(Runtime.open(from_mapping(mapping, directory.parent)))


class Dying:
    """Counts the calls of this process, and kills it before one of them."""

    def __init__(self, point):
        self.point, self.count = point, 0

    def __call__(self, _frame, event, _argument):
        if event in {"call", "c_call"}:
            self.count += 1
            if self.count == self.point:
                os.kill(os.getpid(), signal.SIGKILL)


def in_child(act, point):
    """Act in a process of its own that is killed before its call number ``point`` (0: never). What it said; at last the
    number of its calls, if it came to an end.
    """
    reading, writing = os.pipe()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        child = os.fork()
    if child == 0:
        code = 1
        try:
            os.close(reading)

            def say(*words):
                os.write(writing, b" ".join(str(word).encode() for word in words) + b"\n")

            dying = Dying(point)
            act(say, lambda: sys.setprofile(dying))
            sys.setprofile(None)
            say("end", dying.count)
            code = 0
        except BaseException:
            sys.setprofile(None)
            sys.excepthook(*sys.exc_info())
        finally:
            os._exit(code)
    os.close(writing)
    with os.fdopen(reading, "rb") as pipe:
        said = [line.split() for line in pipe.read().decode().splitlines()]
    status = os.waitpid(child, 0)[1]
    assert os.WIFSIGNALED(status) or os.WEXITSTATUS(status) == 0, "the child met an error"
    return said


def points(act, whole, scratch):
    """The numbers of the calls before which to kill, and a fresh copy of a store for each."""
    place = scratch / "counted"
    shutil.copytree(whole, place)
    (*_, (word, count)) = in_child(act(place), 0)
    assert word == "end"
    shutil.rmtree(place)
    step = max(1, int(count) // POINTS)
    for number in range(1, int(count) + 1, step):
        place = scratch / f"point-{number}"
        shutil.copytree(whole, place)
        yield number, place
        shutil.rmtree(place)


def rest_of(node):
    """Number and attempt of all that comes now."""
    return [(int(message.body), message.attempt) for message in node.receive(CHANNEL, wait=0)]


@pytest.fixture(params=STORAGES)
def storage(request):
    """A storage with lease sheets."""
    return request.param


def test_a_consumer_killed_anywhere(storage, tmp_path):
    """What a loop body had finished before the next one began is never handled again; what no body had seen comes as if
    for the first time; nothing is lost, and each receipt is given once.
    """
    whole = tmp_path / "whole"
    node = open_node(whole, storage)
    numbers = {node.put(b"%d" % number, channel=CHANNEL): number for number in range(TOTAL)}
    node.close()

    def act(place):
        def run(say, arm):
            node = open_node(place, storage)
            loop = node.receive(CHANNEL, wait=0)
            arm()
            for message in loop:
                say("begin", numbers[message.id])
                if numbers[message.id] % 3 == 0:
                    message.ack(b"result")
                    say("acked", numbers[message.id])
            node.close()

        return run

    tried = 0
    for number, place in points(act, whole, tmp_path):
        said = in_child(act(place), number)
        begun = [int(one[1]) for one in said if one[0] == "begin"]
        acked = {int(one[1]) for one in said if one[0] == "acked"}
        node = open_node(place, storage)
        rest = dict(rest_of(node))
        what = (number, said, rest)
        done = set(begun[:-1]) | acked
        assert begun == sorted(begun), what
        assert not done & rest.keys(), what
        for one, attempt in rest.items():
            unseen = one not in begun
            first = one == len(begun)
            assert attempt in ({1, 2} if first else {1} if unseen else {2}), what
        assert set(range(TOTAL)) - set(begun) <= rest.keys() | {len(begun)}, what
        assert node.inbox.counts()[CHANNEL]["processed"] == TOTAL, what
        node.close()
        tried += 1
    assert tried >= 20


def test_a_reaper_killed_anywhere(storage, tmp_path):
    """Who settles for a dead consumer may be killed at any point: whoever comes next finds it undone or done, each
    message as the sheet said, each receipt once; and at the end no file of the dead is left.
    """
    whole = tmp_path / "whole"
    node = open_node(whole, storage)
    Source(node.inbox).push(*_jobs())
    holder = Holder(node.inbox)
    claims = holder.hold(7)
    holder.begin(claims[0], claims[1])
    assert holder.sheet.done_with(holder.lines[claims[0].number], Ack(claims[0], b"42", "text/plain"))
    holder.done(claims[2])
    node.inbox.sheets.abandon(holder.name)
    assert not node.inbox.sheets.left_by(holder.name).silent
    node.close()

    def act(place):
        def run(_say, arm):
            node = open_node(place, storage)
            arm()
            node.inbox.reap({CHANNEL: 5})
            sys.setprofile(None)
            node.close()

        return run

    for number, place in points(act, whole, tmp_path):
        in_child(act(place), number)
        node = open_node(place, storage)
        node.inbox.reap({CHANNEL: 5})
        assert rest_of(node) == [(1, 2), *((one, 1) for one in range(3, TOTAL))], number
        rows = node.inbox.outcomes(SENDER, None, 0, 100)[1]
        assert [row.result for row in rows].count(b"42") == 1, number
        assert len({row.id for row in rows}) == len(rows) == TOTAL, number
        node.inbox.reap({})
        node.close()
        assert list((place / "consumers").iterdir()) == [], number


def _jobs():
    """Messages whose bodies are their numbers, and whose sender wants receipts."""
    for number in range(TOTAL):
        identity = new_id()
        message = Message(id=identity, sender=SENDER, channel=CHANNEL, receipt=True)
        yield job(envelope.encode(message, b"%d" % number), id=identity, receipt=True)
