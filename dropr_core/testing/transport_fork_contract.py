"""What every transport must do when its process forks: the part of the transport contract about children.

Owns that a child is told or served, and never believes what is not so; and that nothing of the parent's is damaged by
what the child does. Must not know any technology.
"""

from collections.abc import Callable
from concurrent.futures import Future
from functools import partial

from dropr_core.errors import Closed, Unreachable
from dropr_core.testing.contract import Closes, Contract, shut, within
from dropr_core.testing.echo import WAIT, Echo, Pair, request
from dropr_core.testing.forks import Child, Say, Word
from dropr_core.testing.payloads import difference
from dropr_core.testing.transport_long_contract import Tail

ANSWERED, CLOSED, NOBODY, WELL = "answered", "Closed", "Unreachable", "closes well"


class ForkTests(Contract):
    """A part of `TransportContract`, which has the fixture `pair`."""

    def test_a_forked_child_is_told_or_served(self, pair: Pair) -> None:
        """In a child each use works or says Closed, its closing comes back, and the parent's requests go on.

        A library keeps threads, locks and sockets for the process that opened it. In a child the threads are gone, and
        what is written to the sockets stands in the middle of the parent's conversation.
        """
        assert pair.ask(request(20)) == request(20)
        held = pair.connection.ask(request(21, "hold"), idle=WAIT)
        assert pair.echo.asked.acquire(timeout=WAIT) and pair.echo.asked.acquire(timeout=WAIT)  # noqa: PT018
        before, answers, wrong = pair.echo.answered, 0, []

        answered = Word()
        with answered, Child(lambda say: self._live(pair, say, answered)) as child:
            child.go()
            for what, said, allowed in child.rest():
                listens = what.startswith("listen ") and said not in allowed
                found = self._reach(pair, said) if listens else said
                if listens:
                    answered.give()
                answers += found == ANSWERED and not listens
                if found not in ([ANSWERED] if listens else allowed):
                    wrong.append(f"{what}: {found} (allowed: {', '.join(allowed)})")
        assert not wrong, f"in a forked child: {'; '.join(wrong)}"
        came = pair.echo.answered - before
        assert came == answers, f"{answers} requests of the child's were answered, {came} came to the host"

        pair.echo.let_go()
        self._well(held, 21, "hold", "the request that was under way")
        self._well(pair.connection.ask(request(22), idle=WAIT), 22, "echo", "the next request")
        fresh = pair.case.make()
        try:
            asked = fresh.connect(pair.listener.url).ask(request(23), idle=WAIT)
            self._well(asked, 23, "echo", "a request by a new transport")
        finally:
            within(self.patience, fresh.close, "close of a new transport")

    def _well(self, asked: "Future[bytes]", size: int, verb: str, what: str) -> None:
        """What the parent asked is answered as if there had been no child."""
        error = within(self.patience, lambda: asked.exception(WAIT), f"after its child's life, {what} of the parent")
        assert error is None, f"after its child's life, {what} of the parent failed: {type(error).__name__}: {error}"
        wrong = difference(asked.result(0), request(size, verb))
        assert not wrong, f"after its child's life, {what} of the parent was answered by {wrong}"

    def _live(self, pair: Pair, say: Say, answered: Word) -> None:
        """The child's life: uses everything that it inherited, and something new. ``answered``: its listener was asked,
        and the answer has come, or will not come.
        """

        def tell(what: str, use: Callable[[], str], *allowed: str) -> str:
            try:
                said = within(self.patience, use, "it")
            except Closed:
                said = CLOSED
            except Unreachable:
                said = NOBODY
            except BaseException as error:
                said = f"{type(error).__name__}: {error}"
            say([what, said, allowed])
            return str(said)

        def ask(size: int) -> str:
            got = pair.connection.ask(request(size), idle=WAIT).result(WAIT)
            return difference(got, request(size)) or ANSWERED

        def ask_long(size: int) -> str:
            whole = request(size)
            got = pair.connection.ask_long(whole[:100], Tail(whole[100:]), idle=WAIT).result(WAIT)
            return difference(got, whole) or ANSWERED

        def ask_anew(size: int) -> str:
            got = pair.asking.connect(pair.listener.url).ask(request(size), idle=WAIT).result(WAIT)
            return difference(got, request(size)) or ANSWERED

        def ask_by_another(size: int) -> str:
            fresh = pair.case.make()
            try:
                got = fresh.connect(pair.listener.url).ask(request(size), idle=WAIT).result(WAIT)
                return difference(got, request(size)) or ANSWERED
            finally:
                shut(fresh, self.patience)

        def closed(one: Closes) -> str:
            shut(one, self.patience)
            return WELL

        tell("ask on the parent's connection", lambda: ask(5000), ANSWERED, CLOSED)
        tell("ask_long on the parent's connection", lambda: ask_long(6000), ANSWERED, CLOSED)
        tell("ask on a new connection of the parent's transport", lambda: ask_anew(5001), ANSWERED, CLOSED)
        tell("ask by a transport of the child's own", lambda: ask_by_another(5002), ANSWERED, NOBODY)
        where = tell("listen by the parent's transport", lambda: pair.answering.listen(pair.case.listen, Echo()).url,
                     CLOSED, NOBODY)  # fmt: skip
        if where not in {CLOSED, NOBODY}:
            answered.wait(self.patience)
        for one in (pair.connection, pair.listener, pair.asking, pair.answering):
            tell(f"close of the parent's {type(one).__name__}", partial(closed, one), WELL)

    def _reach(self, pair: Pair, url: str) -> str:
        """What comes of a listener that the child has opened, or believes to have."""
        try:
            got = pair.asking.connect(url).ask(request(40), idle=WAIT).result(WAIT)
        except BaseException as error:
            return f"it said that it listens at {url!r:.100}, and asked there: {type(error).__name__}"
        return difference(got, request(40)) or ANSWERED


__all__ = ["ForkTests"]
