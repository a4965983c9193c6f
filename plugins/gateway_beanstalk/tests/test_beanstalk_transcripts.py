"""The same bytes to Debian's beanstalkd and to our door: the same bytes come back.

What differs on purpose stands in docs/gateways/beanstalk.md, and here in VARIES and in the tests at the end.
"""

import contextlib
import re
import socket

import pytest
import yaml
from support import clients
from support.beanstalk import Wire
from support.nodes import Road

pytestmark = pytest.mark.e2e

VARIES = {
    "pid", "version", "rusage-utime", "rusage-stime", "uptime", "id", "hostname", "os", "platform", "binlog-max-size",
    "age", "time-left", "pause-time-left", "current-tubes", "total-connections", "kicks", "cmd-stats",
}  # fmt: skip
"""What stats tells of the process, what depends on the moment, how often this test has asked, and
`kicks`, which here counts kick-job alone."""

SUMMED = re.compile("cmd-|total-jobs|job-timeouts")
"""What counts from the beginning of a process."""

WAIT = "reserve-with-timeout 20"
PUT = "put 0 0 60 1\r\na"

SCRIPTS = {
    "life": [
        ("a", "put 10 0 60 5\r\nhello"), ("a", "peek {0}"), ("a", "reserve"), ("a", "peek {0}"),
        ("a", "stats-job {0}"), ("b", "delete {0}"), ("b", "release {0} 0 0"), ("b", "bury {0} 0"), ("b", "touch {0}"),
        ("a", "touch {0}"), ("a", "delete {0}"), ("a", "delete {0}"), ("a", "peek {0}"), ("a", "stats-job {0}"),
        ("a", "touch {0}"), ("a", "release {0} 0 0"), ("a", "bury {0} 0"), ("a", "kick-job {0}"),
        ("a", "reserve-job {0}"), ("a", PUT), ("a", "delete {1}"),
    ],
    "order": [
        *(("a", f"put {priority} 0 60 1\r\nx") for priority in (5, 4294967295, 1024, 5, 0, 1023, 2147483648, 4)),
        ("a", "peek-ready"), ("a", "stats-tube default"), *(("a", "reserve") for _ in range(8)),
        ("a", "reserve-with-timeout 0"), ("a", "release {0} 7 0"), ("a", "release {3} 6 0"), ("a", "reserve"),
        ("a", "reserve"), *(("a", f"delete {{{n}}}") for n in range(8)),
    ],
    "delay": [
        ("a", "put 0 1 60 1\r\nd"), ("a", "put 0 1000 60 1\r\ne"), ("a", "peek-ready"), ("a", "peek-delayed"),
        ("a", "reserve-with-timeout 0"), ("a", "stats-tube default"), ("a", "stats-job {1}"), ("a", WAIT),
        ("a", "stats-job {0}"), ("a", "release {0} 3 1"), ("a", "stats-job {0}"), ("a", WAIT), ("a", "peek-delayed"),
        ("a", "delete {0}"), ("b", "delete {1}"), ("a", "peek-delayed"),
    ],
    "ttr": [
        ("a", "put 0 0 2 1\r\nt"), ("a", "reserve"), ("a", "reserve"), ("a", "reserve-with-timeout 0"),
        ("a", "touch {0}"), ("a", WAIT), ("a", "stats-job {0}"), ("b", "delete {0}"), ("a", "delete {0}"),
    ],
    "ttr of nothing": [
        ("a", "put 0 0 0 1\r\nt"), ("a", "stats-job {0}"), ("a", "reserve"), ("a", "reserve"), ("a", "delete {0}"),
    ],
    "a ready job comes before the margin": [
        ("a", "put 0 0 1 1\r\nt"), ("a", PUT), ("a", "reserve"), ("a", "reserve"), ("a", "reserve"),
        ("a", "delete {0}"), ("a", "delete {1}"),
    ],
    "buried": [
        ("a", PUT), ("a", PUT), ("a", PUT), ("a", "reserve"), ("a", "bury {0} 9"), ("a", "stats-job {0}"),
        ("a", "peek-buried"), ("a", "reserve-job {0}"), ("a", "stats-job {0}"), ("a", "bury {0} 8"),
        ("a", "reserve"), ("a", "bury {1} 7"), ("a", "kick 1"), ("a", "peek-buried"), ("a", "stats-job {0}"),
        ("a", "kick-job {1}"), ("a", "kick-job {1}"), ("a", "kick 10"), ("a", "reserve"), ("a", "reserve"),
        ("a", "reserve"), ("b", "kick-job {0}"), ("a", "bury {2} 0"), ("b", "delete {2}"), ("a", "delete {0}"),
        ("a", "delete {1}"),
    ],
    "kick delayed": [
        ("a", "put 0 100 60 1\r\na"), ("a", "put 0 90 60 1\r\nb"), ("a", PUT), ("a", "reserve"), ("a", "bury {2} 0"),
        ("a", "kick 10"), ("a", "kick 10"), ("a", "kick 10"), ("a", "kick-job {0}"), ("a", "reserve-job {0}"),
        ("a", "reserve-job {0}"), ("b", "reserve-job {0}"), ("a", "delete {0}"), ("b", "delete {1}"),
        ("b", "delete {2}"),
    ],
    "reserve-job of a delayed one": [
        ("a", "put 0 100 60 1\r\na"), ("a", "reserve-job {0}"), ("a", "release {0} 0 100"), ("a", "kick-job {0}"),
        ("a", "reserve"), ("a", "delete {0}"),
    ],
    "tubes": [
        ("a", "list-tube-used"), ("a", "list-tubes-watched"), ("a", "use one"), ("a", "list-tube-used"), ("a", PUT),
        ("a", "watch two"), ("a", "watch one"), ("a", "watch one"), ("a", "list-tubes"), ("a", "list-tubes-watched"),
        ("a", "stats-tube one"), ("a", "stats-tube two"), ("a", "stats-tube three"), ("a", "ignore default"),
        ("a", "ignore three"), ("a", "ignore two"), ("a", "ignore one"), ("a", "reserve"), ("b", "stats-tube one"),
        ("a", "delete {0}"), ("b", "stats-tube one"), ("b", "stats-tube two"), ("a", "use A-z09+/;.$_()"), ("a", PUT),
        ("a", "stats-tube A-z09+/;.$_()"), ("b", "list-tubes"), ("a", "use one"), ("b", "list-tubes"),
        ("b", "peek {1}"), ("b", "stats-job {1}"), ("b", "delete {1}"), ("b", "list-tubes"),
    ],
    "pause": [
        ("a", PUT), ("a", "pause-tube default 1"), ("b", "stats-tube default"), ("a", "reserve-with-timeout 0"),
        ("a", "peek-ready"), ("a", WAIT), ("a", "pause-tube default 100"), ("a", "pause-tube default 0"),
        ("a", "pause-tube nowhere 0"), ("a", "release {0} 0 0"), ("a", WAIT), ("a", "delete {0}"),
    ],
    "a waiter is woken": [
        ("a!", WAIT), ("b", PUT), ("a?", ""), ("a!", WAIT), ("b", "put 0 1 60 1\r\nb"), ("a?", ""),
        ("a", "delete {0}"), ("a", "delete {1}"),
    ],
    "a waiter is woken by a release, a kick and a delete of nothing": [
        ("a", PUT), ("a", "reserve"), ("b!", "reserve"), ("a", "release {0} 0 0"), ("b?", ""), ("b", "bury {0} 0"),
        ("b!", "reserve"), ("a", "kick 1"), ("b?", ""), ("b", "delete {0}"),
    ],
    "a connection ends": [
        ("a", PUT), ("a", "reserve"), ("a", "quit"), ("b", WAIT), ("b", "delete {0}"),
    ],
    "pipelined": [
        ("a", "put 0 0 60 1\r\na\r\nput 1 0 60 1\r\nb\r\nput 2 0 60 1\r\nc", 3),
        ("a", "reserve\r\nreserve\r\nreserve", 3),
        ("a", "delete {0}\r\ndelete {0}\r\nrelease {1} 5 0\r\ndelete {1}\r\nbury {2} 0\r\ndelete {2}", 6),
        ("a", "use x\r\nput 0 0 60 1\r\na\r\nuse default\r\nput 0 0 60 1\r\nb\r\nreserve\r\nwatch x\r\nreserve", 7),
        ("a", "delete {3}\r\ndelete {4}\r\nreserve-with-timeout 0\r\nnonsense\r\nlist-tube-used", 5),
    ],
    "a malformed line does not end a connection": [
        ("a", "put 1 0 60 x"), ("a", "use -x"), ("a", "x" * 300), ("a", "delete x"), ("a", "kick x"), ("a", "put"),
        ("a", "put 1 0 60 3\r\nabcde", 2), ("a", "put 1 0 60 70000\r\n" + "x" * 70000), ("a", "list-tube-used"),
    ],
    "stats": [
        ("a", "stats"), ("a", PUT), ("a", "stats"), ("a", "reserve"), ("a", "stats"), ("b!", "reserve"), ("a", "stats"),
        ("a", "release {0} 0 0"), ("b?", ""), ("b", "bury {0} 3"), ("a", "stats"), ("a", "kick 1"), ("a", "stats"),
        ("a", "delete {0}"), ("a", "stats"),
    ],
}  # fmt: skip
"""Who says what; `!` without waiting for the answer, which is heard at `?`. A third field: how many answers."""

TIMED, TRIES = ("delay", "ttr", "a ready job comes before the margin", "pause", "a waiter is woken"), 5
"""Scripts of which a part must be over within a second, at both: a machine that pauses spoils a try, not all."""


class Side:
    """One of the two servers: its connections, and the ids that it gave."""

    def __init__(self, port):
        self.port, self.ids, self._wires = port, [], {}
        self._stack = contextlib.ExitStack()
        self._before = {}
        with Wire(port) as wire:
            self._before = _told(wire.ask("stats"))
            assert wire.ask("quit") == b""  # it does not count any more

    def wire(self, name):
        """The connection of that name."""
        if name not in self._wires:
            self._wires[name] = self._stack.enter_context(Wire(self.port))
        return self._wires[name]

    def play(self, who, command, answers=1):
        """One step of a script; what came back, ids replaced by their order."""
        wire = self.wire(who[0])
        if command:
            wire.send(command.format(*self.ids).encode() + b"\r\n")
        if who.endswith("!"):
            self.await_waiting(self._wires.keys() - {who[0]})
            return []
        return [self.plain(wire.answer()) for _ in range(answers if command != "quit" else 1)]

    def await_waiting(self, others):
        """Whoever asked without waiting for an answer is waiting now, for the server says so."""
        with Wire(self.port) as other:
            while b"current-waiting: 0" in other.ask("stats"):
                pass
            assert other.ask("quit") == b""

    def plain(self, answer):
        """An answer without what differs from one server to another."""
        head, _, rest = answer.partition(b"\r\n")
        words = head.split()
        if words[:1] == [b"OK"]:
            told = yaml.safe_load(rest)
            return self.plain_facts(told) if isinstance(told, dict) else sorted(told)
        if len(words) > 1 and words[0] in (b"INSERTED", b"RESERVED", b"FOUND"):
            if words[0] == b"INSERTED":
                self.ids.append(int(words[1]))
            return [words[0], self.ids.index(int(words[1])), *words[2:], rest]
        return answer

    def plain_facts(self, told):
        """Statistics without what differs; what is counted from the beginning of a process, from that of a script."""
        if "state" in told:
            told["job"] = self.ids.index(told["id"])
        elif "pid" in told:
            told = {key: value - self._before[key] if SUMMED.match(key) else value for key, value in told.items()}
        return {key: value for key, value in told.items() if key not in VARIES}

    def close(self):
        """End its connections, and delete what a failed script left."""
        for wire in self._wires.values():
            with contextlib.suppress(OSError):
                wire.socket.shutdown(socket.SHUT_WR)
                while wire.answer():
                    pass
        self._stack.close()
        with Wire(self.port) as wire:
            for number in self.ids:
                wire.ask(f"delete {number}")
            assert wire.ask("quit") == b""


def _told(answer):
    return yaml.safe_load(answer.partition(b"\r\n")[2])


@pytest.fixture(scope="module")
def servers(tmp_path_factory):
    """The ports of the original and of our door."""
    beanstalkd = clients.program("beanstalkd", "beanstalkd")
    directory = tmp_path_factory.mktemp("transcripts")
    road = Road(directory)
    try:
        (place,) = road.build("shop", shop={"gateways": {"beanstalk": {"listen": "tcp://127.0.0.1:0"}}})
        place.run("gateway")
        ours = int(place.doors()["beanstalk"][0].rpartition(":")[2])
        with clients.server([beanstalkd, "-l", "127.0.0.1", "-p", "{port}"], directory / "beanstalkd.log") as theirs:
            yield theirs, ours
    finally:
        road.close()


def played(servers, script):
    """What differs when both are asked the same, on connections that end with the script."""
    with contextlib.ExitStack() as stack:
        theirs, ours = (stack.enter_context(contextlib.closing(Side(port))) for port in servers)
        differ = []
        for step in script:
            original, mine = theirs.play(*step), ours.play(*step)
            if mine != original:
                differ.append((step, f"ours: {mine}", f"theirs: {original}"))
        return differ


@pytest.mark.parametrize("name", ["stats", *(name for name in SCRIPTS if name != "stats")])
def test_both_answer_alike(servers, name):
    """Each step of a script is answered by our door as by the original."""
    for _ in range(TRIES if name in TIMED else 1):
        differ = played(servers, SCRIPTS[name])
        if not differ:
            break
    assert differ == []
