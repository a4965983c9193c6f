r"""What every gateway must do, as tests that a plugin author inherits.

    class TestMine(GatewayContract):
        @pytest.fixture
        def gateway_case(self):
            return GatewayCase(
                make=lambda context: Mine(Options()),
                put=lambda channel, body: b"put %s %s\n" % (channel.encode(), body),
                stored=lambda answer: answer.count(b"stored\n"),
                take=lambda channel: b"take %s\n" % channel.encode(),
                bodies=lambda answer: re.findall(rb"job (.*)\n", answer),
                done=lambda answer: b"done\n",
                bodies_to_try=[b"plain"],
                garbage=[b"\xff\x00\n"],
            )

Owns the behaviour that contracts/gateway.py asks of a gateway. Must not know any dialect: the case writes its requests
and reads its answers.
"""

import contextlib
import random
import threading
import tracemalloc
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import ClassVar

import attrs
import pytest

from dropr_core.contracts.context import Context
from dropr_core.contracts.gateway import Gateway
from dropr_core.errors import QueueFull
from dropr_core.gateway import line as lines
from dropr_core.testing.contract import Contract, shut
from dropr_core.testing.gateway_host import Caller, GatewayHost


@attrs.frozen
class GatewayCase:
    """What the tests need to know about a dialect."""

    make: Callable[[Context], Gateway]
    """A new gateway, as the YAML would make it."""
    put: Callable[[str, bytes], bytes]
    """The request that puts a body into a channel."""
    stored: Callable[[bytes], int]
    """How many puts the bytes answered so far say to be stored."""
    take: Callable[[str], bytes]
    """The request that waits for the next message of a channel and takes it."""
    bodies: Callable[[bytes], list[bytes]]
    """The bodies that are whole in the bytes answered so far, in their order."""
    done: Callable[[bytes], bytes] | None = None
    """The request that acknowledges the last message in those bytes; None for a dialect in which taking is all."""
    hello: bytes = b""
    """What a client says first."""
    greeted: Callable[[bytes], bool] = lambda _answer: True
    """Whether the answer to it is whole."""
    bodies_to_try: Sequence[bytes] = (b"", b"plain", bytes(range(256)), b"\r\n.\r\n", b"x" * 60_000)
    """Bodies that come out as they were put: all bytes, where the dialect can."""
    garbage: Sequence[bytes] = (b"\x00" * 64, b"\xff\xfe\r\n\r\n", b"GET / HTTP/1.0\r\n\r\n")
    """Bytes that are no requests."""


MOST = 16 << 20
"""Bytes of memory that one connection may take which says nothing sensible."""
FULL = "the kit says that the disk is full"


class GatewayContract(Contract):
    """Inherit, and override the fixture `gateway_case`."""

    channel: ClassVar[str] = "kit.mail"
    idle: ClassVar[int] = 200
    """Connections that say nothing."""
    slow: ClassVar[float] = 1.0
    """Seconds after which a reader that takes nothing is cut off in these tests."""

    @pytest.fixture
    def gateway_case(self) -> GatewayCase:
        """Override this."""
        raise NotImplementedError("write the fixture gateway_case in your test class")

    @pytest.fixture
    def host(self, gateway_case: GatewayCase, tmp_path: Path) -> Iterator[GatewayHost]:
        """The gateway at work."""
        host = GatewayHost(tmp_path, gateway_case.make)
        try:
            yield host
        finally:
            shut(host, 4 * self.patience)

    # ── what the tests are written with ──────────────────────────────────────────────────────────

    @contextlib.contextmanager
    def caller(self, host: GatewayHost, case: GatewayCase, receive_buffer: int = 0) -> Iterator[Caller]:
        """A connection that has said hello."""
        with Caller(host.url, receive_buffer, self.patience) as caller:
            self.greet(caller, case)
            yield caller

    def greet(self, caller: Caller, case: GatewayCase) -> None:
        """Say hello."""
        if case.hello:
            caller.say(case.hello)
            caller.hear(case.greeted, "the answer to its hello")

    def put(self, caller: Caller, case: GatewayCase, *bodies: bytes) -> None:
        """Put bodies one by one, each stored."""
        for body in bodies:
            wanted = case.stored(caller.answer) + 1
            caller.say(case.put(self.channel, body))
            self.hear_stored(caller, case, wanted)

    def hear_stored(self, caller: Caller, case: GatewayCase, count: int, what: str = "the answer to a put") -> None:
        """Wait until so many puts are answered as stored."""
        caller.hear(lambda answer: case.stored(answer) >= count, what)

    def take(self, caller: Caller, case: GatewayCase, count: int = 1, *, settle: bool = True) -> list[bytes]:
        """Take messages one by one."""
        got = []
        for _ in range(count):
            caller.answer = b""
            caller.say(case.take(self.channel))
            got.append(caller.hear(case.bodies, "a message")[0])
            if settle and case.done is not None:
                caller.say(case.done(caller.answer))
        return got

    def works(self, host: GatewayHost, case: GatewayCase) -> None:
        """The gateway serves somebody else, and has logged no fault."""
        with self.caller(host, case) as caller:
            self.put(caller, case, b"still here")
        assert not host.faults.found, host.faults.found

    # ── what is put and taken ────────────────────────────────────────────────────────────────────

    def test_what_one_connection_puts_another_takes(self, host: GatewayHost, gateway_case: GatewayCase) -> None:
        """Every body comes out as it was put, in the order in which they were put, on another connection."""
        bodies = list(gateway_case.bodies_to_try)
        with self.caller(host, gateway_case) as one, self.caller(host, gateway_case) as two:
            self.put(one, gateway_case, *bodies)
            assert self.take(two, gateway_case, len(bodies)) == bodies

    def test_who_waits_gets_what_is_put_later(self, host: GatewayHost, gateway_case: GatewayCase) -> None:
        """A connection that waits for a message is served as soon as there is one."""
        with self.caller(host, gateway_case) as one, self.caller(host, gateway_case) as two:
            one.say(gateway_case.take(self.channel))
            one.listen(0.3)  # a gateway that does not wait has answered by then
            self.put(two, gateway_case, b"later")
            one.hear(lambda answer: gateway_case.bodies(answer) == [b"later"], "the message that was put later")

    def test_requests_that_come_at_once_are_all_answered(self, host: GatewayHost, gateway_case: GatewayCase) -> None:
        """A hundred requests in one piece are answered one by one, in their order."""
        bodies = [b"%d" % number for number in range(100)]
        with self.caller(host, gateway_case) as caller:
            before = gateway_case.stored(caller.answer)
            caller.say(b"".join(gateway_case.put(self.channel, body) for body in bodies))
            caller.hear(lambda answer: gateway_case.stored(answer) >= before + 100, "the hundredth answer")
            assert host.waiting(self.channel) == 100
            assert self.take(caller, gateway_case, 100) == bodies

    def test_a_request_may_come_in_pieces(self, host: GatewayHost, gateway_case: GatewayCase) -> None:
        """Cut anywhere, a request is the same request."""
        request = gateway_case.put(self.channel, b"in pieces")
        with self.caller(host, gateway_case) as caller:
            for cut in range(1, len(request)):
                wanted = gateway_case.stored(caller.answer) + 1
                caller.say(request[:cut])
                caller.listen(0.002)
                caller.say(request[cut:])
                self.hear_stored(caller, gateway_case, wanted, f"the answer to a put that was cut at {cut}")
            assert set(self.take(caller, gateway_case, len(request) - 1)) == {b"in pieces"}

    # ── connections that die ─────────────────────────────────────────────────────────────────────

    @pytest.mark.parametrize("abrupt", [False, True])
    def test_a_connection_that_dies_while_it_puts(
        self, host: GatewayHost, gateway_case: GatewayCase, *, abrupt: bool
    ) -> None:
        """Whatever byte it dies at: what is stored is whole, and the gateway goes on."""
        request = gateway_case.hello + gateway_case.put(self.channel, b"whole or nothing")
        for cut in range(len(request) + 1):
            caller = Caller(host.url)
            caller.say(request[:cut])
            caller.die() if abrupt else shut(caller)
        self.works(host, gateway_case)
        count = host.waiting(self.channel)
        with self.caller(host, gateway_case) as caller:
            got = self.take(caller, gateway_case, count)
        assert set(got) <= {b"whole or nothing", b"still here"}, f"{got}: a part of a body was stored"
        assert got.count(b"whole or nothing") < len(request), "requests that never came whole were carried out"

    def test_a_connection_that_dies_while_it_takes(self, host: GatewayHost, gateway_case: GatewayCase) -> None:
        """Whatever byte it dies at: a message whose answer was not acknowledged is there for the next one."""
        if gateway_case.done is None:
            pytest.skip("taking is all in this dialect")
        with self.caller(host, gateway_case) as caller:
            self.put(caller, gateway_case, b"precious")
        request = gateway_case.hello + gateway_case.take(self.channel)
        for cut in range(len(request) + 1):
            caller = Caller(host.url)
            caller.say(request[:cut])
            caller.die()
        with self.caller(host, gateway_case) as caller:
            assert self.take(caller, gateway_case) == [b"precious"]
        assert not host.faults.found, host.faults.found

    def test_what_a_connection_holds_comes_back_when_it_ends(
        self, host: GatewayHost, gateway_case: GatewayCase
    ) -> None:
        """A message that was taken and not acknowledged goes to the next connection, one that was does not."""
        if gateway_case.done is None:
            pytest.skip("taking is all in this dialect")
        with self.caller(host, gateway_case) as one:
            self.put(one, gateway_case, b"kept", b"finished")
            first = self.take(one, gateway_case, settle=False)
            second = [] if first == [b"finished"] else self.take(one, gateway_case)
            self.put(one, gateway_case, b"last")  # answered: what came before it was carried out
        with self.caller(host, gateway_case) as two:
            got = sorted(self.take(two, gateway_case, 2))
        assert (first, second, got) == ([b"kept"], [b"finished"], [b"kept", b"last"])

    # ── what must not disturb ────────────────────────────────────────────────────────────────────

    def test_garbage_disturbs_nobody(self, host: GatewayHost, gateway_case: GatewayCase, stress_round: int) -> None:
        """Bytes that are no request end that connection or are refused; they are no fault, and others are served."""
        dice = random.Random(stress_round)  # noqa: S311 - the same garbage every time
        blobs = [*gateway_case.garbage, *(dice.randbytes(dice.randrange(1, 400)) for _ in range(50))]
        request = gateway_case.put(self.channel, b"a request")
        for _ in range(50):
            torn = bytearray(request)
            torn[dice.randrange(len(torn))] = dice.randrange(256)
            blobs.append(bytes(torn))
        for blob in blobs:
            with Caller(host.url) as caller:
                self.greet(caller, gateway_case)
                caller.say(blob)
                caller.listen(0.002)
        self.works(host, gateway_case)

    def test_what_never_ends_is_bounded(self, host: GatewayHost, gateway_case: GatewayCase) -> None:
        """A request without an end is cut off or refused before it fills the memory."""
        piece = b"x" * (1 << 20)
        tracemalloc.start()
        try:
            with Caller(host.url) as caller:
                self.greet(caller, gateway_case)
                before = tracemalloc.get_traced_memory()[0]
                for _ in range(32):
                    caller.say(piece)
                    caller.listen(0.001)
                    if caller.ended:
                        break
                held = tracemalloc.get_traced_memory()[0] - before
        finally:
            tracemalloc.stop()
        assert held < MOST, f"of a request that never ends {held >> 20} MiB are in memory"
        self.works(host, gateway_case)

    def test_a_slow_reader_is_cut_off(
        self, host: GatewayHost, gateway_case: GatewayCase, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """Who takes nothing of what it asked for holds up nobody, and loses its connection and what it held."""
        monkeypatch.setattr(lines, "SLOW", self.slow)
        size, count = 60_000, 120
        with self.caller(host, gateway_case) as other:
            self.put(other, gateway_case, *(b"%05d" % number + b"x" * size for number in range(count)))
            with self.caller(host, gateway_case, 4096) as slow:
                slow.say(gateway_case.take(self.channel) * count)
                self.put(other, gateway_case, b"meanwhile")
                if gateway_case.done is None:
                    return
                got = self.take(other, gateway_case, count + 1)
            assert len(set(got)) == count + 1

    def test_idle_connections_cost_nobody_anything(
        self, host: GatewayHost, gateway_case: GatewayCase, strength: int
    ) -> None:
        """With many connections that say nothing or wait for messages, others are served as ever."""
        with contextlib.ExitStack() as stack:
            for number in range(self.idle * strength):
                caller = stack.enter_context(Caller(host.url))
                if number % 2:
                    self.greet(caller, gateway_case)
                    caller.say(gateway_case.take("kit.never"))
            self.works(host, gateway_case)

    # ── the store ────────────────────────────────────────────────────────────────────────────────

    def test_stored_means_durable(self, host: GatewayHost, gateway_case: GatewayCase) -> None:
        """No put is answered before the store has it."""
        entered, go = threading.Event(), threading.Event()

        def wait() -> None:
            entered.set()
            go.wait(self.patience)

        with self.caller(host, gateway_case) as caller:
            before = gateway_case.stored(caller.answer)
            host.before_put = wait
            try:
                caller.say(gateway_case.put(self.channel, b"slowly"))
                assert entered.wait(self.patience), "the message never reached the store"
                caller.listen(0.2)
                assert gateway_case.stored(caller.answer) == before, "it said stored, and nothing was stored yet"
            finally:
                go.set()
            caller.hear(lambda answer: gateway_case.stored(answer) > before, "the answer to a put")

    def test_a_full_disk_is_said(self, host: GatewayHost, gateway_case: GatewayCase) -> None:
        """A put that the store refuses is never answered as stored; messages still go out, and when there is room
        puts are taken again.
        """

        def full() -> None:
            raise QueueFull(FULL)

        with self.caller(host, gateway_case) as caller:
            self.put(caller, gateway_case, b"before")
            before = gateway_case.stored(caller.answer)
            host.before_put = full
            length = len(caller.answer)
            caller.say(gateway_case.put(self.channel, b"too much"))
            with contextlib.suppress(AssertionError):  # the dialect may have no word for it but the end
                caller.hear(lambda answer: len(answer) > length, "an answer to a put on a full disk")
            assert gateway_case.stored(caller.answer) == before, "it said stored on a full disk"
            with self.caller(host, gateway_case) as other:
                assert self.take(other, gateway_case) == [b"before"]
        host.before_put = lambda: None
        self.works(host, gateway_case)

    def test_a_restart_in_the_middle_loses_nothing(self, host: GatewayHost, gateway_case: GatewayCase) -> None:
        """What was stored and not acknowledged is there after the gateway was cut off and began again."""
        bodies = [b"%d" % number for number in range(20)]
        with self.caller(host, gateway_case) as caller, self.caller(host, gateway_case) as waiting:
            self.put(caller, gateway_case, *bodies)
            held = self.take(caller, gateway_case, 5, settle=False)
            waiting.say(gateway_case.take("kit.never"))
            host.restart()
        rest = bodies if gateway_case.done is not None else [body for body in bodies if body not in held]
        with self.caller(host, gateway_case) as caller:
            assert sorted(self.take(caller, gateway_case, len(rest))) == sorted(rest)
        assert not host.faults.found, host.faults.found

    def test_it_drains(self, host: GatewayHost, gateway_case: GatewayCase) -> None:
        """When the gateway ends, connections that hold nothing end at once."""
        with self.caller(host, gateway_case) as idle, self.caller(host, gateway_case) as waiting:
            waiting.say(gateway_case.take("kit.never"))
            self.put(idle, gateway_case, b"kept")
            host.stop(self.patience)
            for caller in (idle, waiting):
                while not caller.ended:
                    caller.listen(self.patience)
        assert host.waiting(self.channel) == 1
        assert not host.faults.cut_off, "it had to be cut off: at the end `read` gives b'' and `reserve` nothing"
        assert not host.faults.found, host.faults.found


__all__ = ["GatewayCase", "GatewayContract"]
