"""What a request costs a gateway that is awake: no task, a commit shared by all that came, few calls.

Without sockets: eight connections whose bytes arrive in one step of the event loop, one command each, until each of
them was answered. What is counted is the same on a busy machine.
"""

import asyncio
import logging
import sys
from collections import Counter

import apsw
import pytest
from dropr_gateway_beanstalk import BeanstalkGateway
from dropr_gateway_beanstalk import Options as Beanstalk
from dropr_gateway_gearman import GearmanGateway
from dropr_gateway_gearman import Options as Gearman
from dropr_gateway_gearman.packets import REQUEST, Kind, encode
from dropr_gateway_memcache import MemcacheGateway
from dropr_gateway_memcache import Options as Memcache

from budgets.counting import Statements
from budgets.operations import BODY, open_node
from dropr_core.gateway.budget import Budget
from dropr_core.gateway.desk import NodeDesk
from dropr_core.gateway.hub import Hub
from dropr_core.gateway.line import StreamLine

CONNECTIONS, ROUNDS = 8, 20
FORGIVEN = 1.05


class Wire(asyncio.Transport):
    """Takes what is answered."""

    def __init__(self):
        super().__init__()
        self.said = b""

    def set_write_buffer_limits(self, high=None, low=None):
        """Of no use here."""

    def is_closing(self):
        """Never."""
        return False

    def get_write_buffer_size(self):
        """It reads at once."""
        return 0

    def write(self, data):
        """An answer."""
        self.said += data

    def close(self):
        """It is over."""

    def take(self):
        """What was answered since."""
        said, self.said = self.said, b""
        return said


def job(answer):
    """The id of the job in an answer of beanstalk, the handle in one of Gearman."""
    return answer.split(b" ", 2)[1] if answer.startswith(b"RESERVED") else answer[12:].split(b"\0", 1)[0]


def gearman(kind, *arguments):
    return encode(kind, *arguments, magic=REQUEST)


BENCH, GRAB = gearman(Kind.CAN_DO, b"default"), gearman(Kind.GRAB_JOB)
DIALECTS = {
    "beanstalk": (
        lambda context: BeanstalkGateway(Beanstalk(), context.log), b"",
        [lambda _: b"put 65536 0 60 %d\r\n%s\r\n" % (len(BODY), BODY)],
        [lambda _: b"reserve\r\n", lambda answer: b"delete %s\r\n" % job(answer)],
    ),
    "memcache": (
        lambda _: MemcacheGateway(Memcache()), b"",
        [lambda _: b"set default 0 0 %d\r\n%s\r\n" % (len(BODY), BODY)],
        [lambda _: b"get default\r\n"],
    ),
    "gearman": (
        lambda context: GearmanGateway(Gearman(), context), BENCH,
        [lambda _: gearman(Kind.SUBMIT_JOB_BG, b"default", b"", BODY)],
        [lambda answer: (gearman(Kind.WORK_COMPLETE, job(answer), b"") if answer else b"") + GRAB],
    ),
}  # fmt: skip
"""How one is made, how its connections begin, what puts and what takes a message; each is said when the one before it
was answered.
"""

MOST = {
    "beanstalk": {"put": (164, 0.875), "take": (342, 2.04)},
    "memcache": {"put": (161, 0.875), "take": (226, 2.04)},
    "gearman": {"put": (206, 0.875), "take": (299, 2.0)},
}
"""Calls of functions, and statements of SQL, for one message."""


class Meter:
    """Counts what the event loop does."""

    def __init__(self, loop, statements):
        self.statements, self.tasks, self.calls = statements, 0, Counter()
        loop.set_task_factory(self._task)

    def _task(self, loop, work, **more):
        self.tasks += 1
        return asyncio.Task(work, loop=loop, **more)

    def _note(self, frame, event, argument):
        if event == "call":
            self.calls[frame.f_code.co_qualname] += 1
        elif event == "c_call":
            self.calls[argument.__qualname__] += 1

    def begin(self):
        self.tasks = 0
        self.calls.clear()
        self.statements.calls.clear()
        self.statements._counting = True
        sys.setprofile(self._note)

    def end(self):
        sys.setprofile(None)
        self.statements._counting = False
        calls = self.calls.total() - self.calls["sleep"] - self.calls["__sleep0"]
        return self.tasks, calls, self.statements.calls.total()


async def talk(lines, says):
    """Rounds in which all connections say the next thing at once, and wait until everybody has an answer."""
    answers = [b""] * len(lines)
    for _ in range(ROUNDS):
        for say in says:
            for at, (line, _) in enumerate(lines):
                line.data_received(say(answers[at]))
            while not all(wire.said for _, wire in lines):  # noqa: ASYNC110 - pass by pass
                await asyncio.sleep(0)
            answers = [wire.take() for _, wire in lines]
        if answers[0].startswith(b"DELETED"):
            answers = [b""] * len(lines)


@pytest.mark.parametrize("dialect", sorted(DIALECTS))
def test_a_request_costs_no_task_and_few_calls(dialect, tmp_path):
    """Eight connections, one command each at the same time: one commit for all, and no task wakes."""
    make, hello, puts, takes = DIALECTS[dialect]
    statements = Statements()
    apsw.connection_hooks.append(statements.install)
    found = {}

    async def main(node):
        loop, log = asyncio.get_running_loop(), logging.getLogger("dropr.test")
        hub = Hub(node.runtime, loop, log, 1 << 20)
        work = hub._inbox_work
        work._clock, work._expected = lambda: 0.0, 0.0  # so quick that the loop does every turn
        gateway, budget, lines, serving = make(node.runtime.context(log)), Budget(1 << 26), [], []
        for _ in range(CONNECTIONS):
            line, wire = StreamLine(hub.stopping, lambda _: None, budget), Wire()
            line.connection_made(wire)
            serving.append(loop.create_task(gateway.serve(line, NodeDesk(hub, "test", budget))))
            lines.append((line, wire))
            while not line.waits:  # noqa: ASYNC110 - pass by pass
                await asyncio.sleep(0)
            if hello:
                line.data_received(hello)
                while not line.waits:  # noqa: ASYNC110 - pass by pass
                    await asyncio.sleep(0)
        meter = Meter(loop, statements)
        for what, says in (("put", puts), ("put", puts), ("take", takes), ("put", puts), ("take", takes)):
            meter.begin()
            await talk(lines, says)
            found[what] = meter.end()
        for line, _ in lines:
            line.eof_received()
        await asyncio.wait(serving)
        hub.stop()
        await hub.close()

    node = open_node(tmp_path, "sqlite")
    try:
        asyncio.run(main(node))
    finally:
        apsw.connection_hooks.remove(statements.install)
        node.close()
    for what, (tasks, calls, sql) in found.items():
        messages = CONNECTIONS * ROUNDS
        print(f"{dialect}, {what}: {tasks} tasks, {calls / messages:.1f} calls, {sql / messages:.3f} statements")
        assert tasks == 0, f"{what}: {tasks} tasks for {messages} messages"
        most_calls, most_sql = MOST[dialect][what]
        assert calls / messages <= most_calls * FORGIVEN, what
        assert sql / messages <= most_sql * FORGIVEN, what
