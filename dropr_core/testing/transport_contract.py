"""What every transport must do, as tests that a plugin author inherits.

    class TestMyTransport(TransportContract):
        @pytest.fixture
        def transport_case(self):
            return TransportCase(make=lambda: MyTransport(...), listen="mine://127.0.0.1:0", nobody="mine://127.0.0.1:1")

Owns the behaviour that the contract in dropr_core/contracts/transport.py describes. Must not know
any technology: it sees transports, urls, bytes and futures only.
"""

import contextlib
import threading
from collections.abc import Iterator
from concurrent.futures import Future, wait
from concurrent.futures import TimeoutError as FutureTimeout
from functools import partial
from typing import ClassVar

import pytest

from dropr_core.errors import Closed, Refused, Unanswered, Unreachable
from dropr_core.testing.contract import shut, within
from dropr_core.testing.echo import MIB, WAIT, Echo, Pair, TransportCase, request
from dropr_core.testing.memory import kept
from dropr_core.testing.payloads import difference
from dropr_core.testing.transport_fork_contract import ForkTests
from dropr_core.testing.transport_long_contract import LongRequestTests, Tail

__all__ = ["Echo", "Pair", "TransportCase", "TransportContract", "request"]


ODD = (
    "", "/", ":", "[", "[::1", "[::1]:x", "a:b:c", "a:-1", "a:99999", "a:" + "9" * 5000, "\0", "a b", "%", "%zz", "?",
    "#", "@", "user:pass@", "\ud800", "\u2100.example", "\U0001f4ee", "x" * 100_000, "a?curve=", "a?%00=%ff", "../..",
    "*", "\n",
)  # fmt: skip
"""What a user may have written behind the scheme."""


class TransportContract(LongRequestTests, ForkTests):
    """Inherit, and override the fixture `transport_case`."""

    rounds: ClassVar[int] = 50
    """Requests, or connections, in each stretch over which memory is counted."""
    warm_up: ClassVar[int] = 20
    """Such before it is counted; more where it remembers so many, and not more than so many."""

    @pytest.fixture
    def transport_case(self) -> TransportCase:
        """Override this."""
        raise NotImplementedError

    @pytest.fixture
    def pair(self, transport_case: TransportCase) -> Iterator[Pair]:
        """Both sides, open; closed after the test."""
        asking, answering, echo = transport_case.make(), transport_case.make(), Echo()
        try:
            listener = answering.listen(transport_case.listen, echo)
            yield Pair(transport_case, asking, answering, listener, asking.connect(listener.url), echo)
        finally:
            echo.let_go()
            try:
                within(self.patience, asking.close, "close of the asking transport")
            finally:
                within(self.patience, answering.close, "close of the answering transport")

    # ── what it says about itself ────────────────────────────────────────────────────────────────

    def test_abilities_are_known_words(self, pair: Pair) -> None:
        """A transport declares only abilities that dropr knows, and its encrypted schemes are its schemes."""
        assert pair.asking.abilities <= {"encrypted", "knows_caller"}
        assert pair.asking.encrypted_schemes <= set(pair.asking.schemes)
        assert bool(pair.asking.encrypted_schemes) == ("encrypted" in pair.asking.abilities)

    def test_undeclared_knowledge_of_callers_is_not_claimed(self, pair: Pair) -> None:
        """A transport that does not prove identities never hands one to the host."""
        pair.ask(request(20))
        if "knows_caller" not in pair.answering.abilities:
            assert [caller.identity for caller in pair.echo.callers] == [None]
        assert "" not in {caller.address for caller in pair.echo.callers}, "a caller without an address: say who asks"

    def test_check_takes_good_urls_and_explains_bad_ones(self, pair: Pair) -> None:
        """`check` says nothing about a usable url and a sentence about one of a foreign scheme."""
        assert pair.asking.check(pair.listener.url, listen=False) is None
        assert pair.answering.check(pair.case.listen, listen=True) is None
        assert pair.asking.check("no-such-scheme://x", listen=False)
        assert pair.asking.check("", listen=True)

    @pytest.mark.parametrize("listen", [False, True])
    def test_check_raises_nothing(self, pair: Pair, listen: bool) -> None:
        """Whatever the user wrote, `check` says None or a sentence: it is asked while the configuration is read."""
        for scheme in (*pair.asking.schemes, "no-such-scheme", ""):
            for rest in ODD:
                url = f"{scheme}://{rest}"
                said = within(self.patience, partial(pair.asking.check, url, listen=listen), f"check of {url!r:.80}")
                assert said is None or (isinstance(said, str) and said), f"check({url!r:.80}) said {said!r}"

    def test_the_listener_says_where_it_listens(self, pair: Pair) -> None:
        """A listener that was asked for any free address names the one that it got."""
        assert pair.listener.url != pair.case.listen
        assert pair.listener.url.partition("://")[0] in pair.answering.schemes

    # ── round trips ──────────────────────────────────────────────────────────────────────────────

    @pytest.mark.parametrize("size", [20, 4095, 4096, 4097, 64 << 10, MIB, 5 * MIB])
    def test_any_bytes_come_back_unchanged(self, pair: Pair, size: int) -> None:
        """Requests and answers of any size arrive as they were sent."""
        assert not (wrong := difference(pair.ask(request(size)), request(size))), wrong

    def test_empty_requests_and_empty_answers(self, pair: Pair) -> None:
        """Zero bytes are a request, and zero bytes are an answer."""
        assert pair.ask(b"") == b""
        assert pair.ask(request(20, "empty")) == b""

    def test_admit_sees_the_beginning_only(self, pair: Pair) -> None:
        """The host judges a request by at most ``head_size`` bytes, exactly once, and by all of a short one."""
        pair.ask(request(MIB))
        pair.ask(request(30))
        assert pair.echo.heads == [Echo.head_size, 30]

    def test_answers_may_come_later_from_another_thread(self, pair: Pair) -> None:
        """A future that is settled by a thread of the host's reaches the caller."""
        assert pair.ask(request(50, "later")) == request(50, "later")

    def test_many_at_once_on_one_connection(self, pair: Pair) -> None:
        """One connection carries many requests at once, each with its own answer."""
        asked = {size: pair.connection.ask(request(size, "later"), idle=WAIT) for size in range(20, 120)}
        wrong = {size: difference(future.result(WAIT), request(size, "later")) for size, future in asked.items()}
        assert not (wrong := {size: words for size, words in wrong.items() if words}), wrong

    def test_many_at_once_on_several_connections(self, pair: Pair) -> None:
        """Threads with connections of their own do not disturb each other."""
        wrong: list[object] = []

        def work(start: int) -> None:
            connection = pair.asking.connect(pair.listener.url)
            for size in range(start, start + 25):
                if connection.ask(request(size), idle=WAIT).result(WAIT) != request(size):
                    wrong.append(size)
            shut(connection, self.patience)

        threads = [threading.Thread(target=work, args=(100 * number + 20,)) for number in range(6)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(WAIT)
        assert not wrong, f"the answers to requests of these sizes were wrong: {wrong}"
        assert pair.echo.answered == 150, f"150 requests were asked, {pair.echo.answered} arrived"

    def test_long_polls_do_not_block_others(self, pair: Pair) -> None:
        """Requests pass by while others wait long for their answers, and no thread is spent on those that wait."""
        before = threading.active_count()
        polls = [pair.connection.ask(request(25, "hold"), idle=WAIT) for _ in range(50)]
        for _ in polls:
            assert pair.echo.asked.acquire(timeout=WAIT)
        assert pair.ask(request(20)) == request(20)
        assert threading.active_count() <= before + 4
        early = [number for number, poll in enumerate(polls) if poll.done()]
        assert not early, f"{len(early)} of 50 long polls ended before they were answered"
        pair.echo.let_go()
        assert {poll.result(WAIT) for poll in polls} == {request(25, "hold")}

    @pytest.mark.parametrize("what", ["requests", "connections"])
    def test_its_memory_does_not_grow(self, pair: Pair, what: str) -> None:
        """A daemon runs for months: nothing of a request, and nothing of a closed connection, stays in memory."""

        def one() -> None:
            with contextlib.ExitStack() as stack:
                connection = pair.connection
                if what == "connections":
                    connection = stack.enter_context(contextlib.closing(pair.asking.connect(pair.listener.url)))
                connection.ask(request(5000), idle=WAIT).result(WAIT)
            pair.echo.forget()

        grown = within(10 * self.patience, partial(kept, one, self.rounds, self.warm_up), f"very many {what}")
        assert not grown, grown

    # ── failures ─────────────────────────────────────────────────────────────────────────────────

    def test_fault_27_nobody_listens(self, pair: Pair) -> None:
        """Where nobody listens, the error is the certain one, names the address, and other peers are untouched."""
        with pytest.raises(Unreachable) as caught:
            pair.asking.connect(pair.case.nobody).ask(request(20), idle=WAIT).result(WAIT)
        assert pair.case.nobody.split("://")[1] in str(caught.value)
        assert pair.ask(request(20)) == request(20)

    def test_fault_28_no_answer_within_the_idle_time(self, pair: Pair) -> None:
        """A peer that took the request and stays silent is given up as unknown; the connection stays usable."""
        with pytest.raises(Unanswered):
            pair.ask(request(20, "hold"), idle=0.2)
        assert pair.ask(request(20)) == request(20)

    def test_a_long_poll_outlives_a_shorter_idle_time_of_others(self, pair: Pair) -> None:
        """The idle time belongs to the request, not to the connection."""
        poll = pair.connection.ask(request(20, "hold"), idle=WAIT)
        with pytest.raises(Unanswered):
            pair.ask(request(20, "hold"), idle=0.2)
        assert not poll.done()
        pair.echo.let_go()
        assert poll.result(WAIT) == request(20, "hold")

    @pytest.mark.parametrize(
        ("verb", "code"),
        [("no:peer", "unknown_peer"), ("no:sign", "bad_signature"), ("no:big", "too_big"), ("no:frame", "bad_frame")],
    )
    def test_refusals_of_admit_pass_with_code_and_text(self, pair: Pair, verb: str, code: str) -> None:
        """The code and the text of a refusal reach the caller."""
        with pytest.raises(Refused, match="refused on purpose") as caught:
            pair.ask(request(100, verb))
        assert caught.value.code == code
        assert pair.echo.answered == 0

    @pytest.mark.parametrize("attempt", range(5))
    def test_fault_37_the_rest_is_not_read_after_a_refusal(self, pair: Pair, attempt: int) -> None:  # noqa: ARG002
        """A big request that is refused by its beginning fails with that refusal, never with a broken line."""
        with pytest.raises(Refused) as caught:
            pair.ask(request(16 * MIB, "no:peer"))
        assert caught.value.code == "unknown_peer"
        assert pair.echo.heads == [Echo.head_size]
        assert pair.echo.answered == 0

    def test_fault_36_too_big_is_told(self, pair: Pair) -> None:
        """A request over the host's limit is refused as too big, and smaller ones go on."""
        pair.echo.limit = 1000
        with pytest.raises(Refused) as caught:
            pair.ask(request(3 * MIB))
        assert caught.value.code == "too_big"
        assert pair.ask(request(1000)) == request(1000)

    def test_refusals_of_answer_pass_with_code_and_text(self, pair: Pair) -> None:
        """A refusal that comes with the answer reaches the caller like one of `admit`."""
        with pytest.raises(Refused, match="refused after reading") as caught:
            pair.ask(request(100, "refuse"))
        assert caught.value.code == "bad_frame"

    @pytest.mark.parametrize("length", [50, 200])
    def test_a_request_of_another_length_than_it_says(self, pair: Pair, length: int) -> None:
        """More or fewer bytes than admitted are refused and never reach the host."""
        with pytest.raises(Refused) as caught:
            pair.ask(request(100)[:20] + b"." * (length - 20))
        assert caught.value.code == "bad_frame"
        assert pair.echo.answered == 0

    @pytest.mark.parametrize("verb", ["crash", "fail", "raise"])
    def test_fault_34_internal_errors_are_unknown_and_tell_nothing(self, pair: Pair, verb: str) -> None:
        """A defect of the host is unknown to the caller, shows no details, and does not stop the listener."""
        with pytest.raises(Unanswered) as caught:
            pair.ask(request(100, verb))
        assert "secret" not in str(caught.value)
        assert pair.ask(request(20)) == request(20)

    # ── beginning and end ────────────────────────────────────────────────────────────────────────

    def test_a_taken_address_is_said(self, pair: Pair) -> None:
        """Two listeners at one address: the second fails with Unreachable that names it."""
        with pytest.raises(Unreachable, match="cannot listen"):
            pair.answering.listen(pair.listener.url, Echo())
        assert pair.ask(request(20)) == request(20)

    def test_everything_closes_twice(self, pair: Pair) -> None:
        """`close` may be called again on each part, and later use fails with Closed."""
        pair.ask(request(20))
        for one in (pair.connection, pair.listener, pair.asking, pair.answering):
            shut(one, self.patience)
            shut(one, self.patience)
        late = pair.connection.ask(request(20), idle=WAIT)  # raises nothing itself
        assert isinstance(late.exception(WAIT), Closed)
        late = pair.connection.ask_long(request(20), Tail(b""), idle=WAIT)
        assert isinstance(late.exception(WAIT), Closed)

    def test_close_comes_back(self, pair: Pair) -> None:
        """No `close` waits for what a peer or the host may never do."""
        polls = [pair.connection.ask(request(20, "hold"), idle=WAIT) for _ in range(3)]
        for _ in polls:
            assert pair.echo.asked.acquire(timeout=WAIT)
        for one in (pair.connection, pair.listener, pair.asking, pair.answering):
            shut(one, self.patience)
        assert not wait(polls, WAIT).not_done

    def test_nothing_was_used_and_everything_closes(self, transport_case: TransportCase) -> None:
        """A transport that was never used closes, and a connection that was never asked too."""
        transport = transport_case.make()
        for one in (transport.connect(transport_case.nobody), transport, transport):
            shut(one, self.patience)

    def test_closing_a_connection_gives_up_what_is_under_way(self, pair: Pair) -> None:
        """Requests under way end as unknown when their connection closes; other connections go on."""
        other = pair.asking.connect(pair.listener.url)
        kept = other.ask(request(20, "hold"), idle=WAIT)
        lost = pair.connection.ask(request(20, "hold"), idle=WAIT)
        assert pair.echo.asked.acquire(timeout=WAIT)
        assert pair.echo.asked.acquire(timeout=WAIT)
        shut(pair.connection, self.patience)
        assert isinstance(lost.exception(WAIT), Unanswered)
        pair.echo.let_go()
        assert kept.result(WAIT) == request(20, "hold")

    def test_closing_the_transport_gives_up_what_is_under_way(self, pair: Pair) -> None:
        """Requests under way end as unknown when the transport closes."""
        lost = [pair.connection.ask(request(20, "hold"), idle=WAIT) for _ in range(5)]
        for _ in lost:
            assert pair.echo.asked.acquire(timeout=WAIT)
        shut(pair.asking, self.patience)
        assert {type(future.exception(WAIT)) for future in lost} == {Unanswered}

    def test_a_listener_that_closes_at_once_leaves_unknown(self, pair: Pair) -> None:
        """Without drain time, callers of requests under way get Unanswered, and afterwards Unreachable."""
        lost = pair.connection.ask(request(20, "hold"), idle=WAIT)
        assert pair.echo.asked.acquire(timeout=WAIT)
        shut(pair.listener, self.patience)
        assert isinstance(lost.exception(WAIT), Unanswered)
        pair.echo.let_go()  # too late, and harmless
        with pytest.raises(Unreachable):
            pair.ask(request(20))

    def test_drain_lets_answers_out(self, pair: Pair) -> None:
        """With drain time, requests under way get their answers, new ones are not taken, and close returns early."""
        poll = pair.connection.ask(request(20, "hold"), idle=WAIT)
        assert pair.echo.asked.acquire(timeout=WAIT)
        closing = threading.Thread(target=pair.listener.close, kwargs={"drain": 20 * WAIT}, daemon=True)
        closing.start()
        for _ in range(1000):  # until the door is shut
            late = pair.asking.connect(pair.listener.url).ask(request(20), idle=WAIT).exception(WAIT)
            if late is not None:
                break
        assert isinstance(late, Unreachable | Unanswered)
        assert not poll.done()
        pair.echo.let_go()
        assert poll.result(WAIT) == request(20, "hold")
        closing.join(WAIT)
        assert not closing.is_alive(), "nothing is under way any more, and close still waits"

    def test_drain_ends(self, pair: Pair) -> None:
        """When the drain time is over `close` comes back, and what is still under way is given up as unknown."""
        poll = pair.connection.ask(request(20, "hold"), idle=WAIT)
        assert pair.echo.asked.acquire(timeout=WAIT)
        within(self.patience, partial(pair.listener.close, drain=0.05), "close(drain=0.05)")
        assert isinstance(poll.exception(WAIT), Unanswered)

    def test_an_address_can_be_used_again(self, pair: Pair) -> None:
        """After a listener closed, the next one may take its address, and the same connection finds it."""
        pair.ask(request(20))
        shut(pair.listener, self.patience)
        pair.answering.listen(pair.listener.url, pair.echo)
        outcome: BaseException | None = None
        for _ in range(3):  # a kept line may break once
            outcome = pair.connection.ask(request(30), idle=WAIT).exception(WAIT)
            if outcome is None:
                break
        assert outcome is None

    def test_close_while_busy(self, pair: Pair) -> None:
        """Closing both sides in the middle of traffic settles every future and hangs nowhere."""
        futures = [pair.connection.ask(request(5000, "later"), idle=WAIT) for _ in range(50)]
        shut(pair.answering, self.patience)
        shut(pair.asking, self.patience)
        assert not wait(futures, WAIT).not_done
        for future in futures:
            error = future.exception(0)
            assert error is None or isinstance(error, Unanswered | Unreachable | Refused)

    def test_asking_from_a_callback(self, pair: Pair) -> None:
        """A callback of one answer may ask the next question."""
        second: Future[Future[bytes]] = Future()
        first = pair.connection.ask(request(20), idle=WAIT)
        first.add_done_callback(lambda _: second.set_result(pair.connection.ask(request(30), idle=WAIT)))
        assert second.result(WAIT).result(WAIT) == request(30)

    def test_asking_does_not_block(self, pair: Pair) -> None:
        """`ask` returns before the answer exists."""
        poll = pair.connection.ask(request(20, "hold"), idle=WAIT)
        with pytest.raises(FutureTimeout):
            poll.result(0.05)
        pair.echo.let_go() if pair.echo.asked.acquire(timeout=WAIT) else None
        assert poll.result(WAIT) == request(20, "hold")
