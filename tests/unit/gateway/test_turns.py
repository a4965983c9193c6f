"""Turns of a gateway at the store: what becomes of the large bodies of what is put."""

from types import SimpleNamespace

import pytest

from dropr_core.contracts.bodies import Written
from dropr_core.contracts.storage import Job
from dropr_core.errors import QueueFull, WriteFailed
from dropr_core.gateway.placing import Local
from dropr_core.gateway.turns import InboxTurns, Puts
from dropr_core.model.names import IdMaker

make = IdMaker()


class Noted(Written):
    """A body that counts how often it is let go of."""

    def __init__(self, fails=False):
        self.released, self._fails = 0, fails

    def discard(self):
        raise AssertionError

    def release(self):
        self.released += 1
        if self._fails:
            raise WriteFailed("the line broke")


def local(written):
    return Local("films", 5, Job(make(), b"envelope"), unique=False, written=written)


@pytest.fixture
def turn():
    """A turn at an inbox that takes what is put, or says that it is full."""

    def turn(orders, *, full=False):
        def put_all(puts):
            if full:
                raise QueueFull("no room")
            return [[7] * len(put.jobs) for put in puts]

        inbox = SimpleNamespace(put_all=put_all)
        runtime = SimpleNamespace(
            storage=SimpleNamespace(inbox=inbox), name="shop", notifier=SimpleNamespace(notify=lambda _topic: None)
        )
        return InboxTurns(runtime, SimpleNamespace(holding=0), lambda: 0).turn(orders)

    return turn


@pytest.mark.parametrize("full", [False, True])
def test_bodies_are_let_go_of_whatever_becomes_of_their_messages(turn, full):
    """Stored or refused, a body is held no longer: what no message needs is left to the sweep."""
    bodies = [Noted(), Noted()]
    results = turn([Puts([local(body)]) for body in bodies], full=full)
    assert [isinstance(result, QueueFull) for result in results] == [full] * 2
    assert [body.released for body in bodies] == [1, 1]


def test_a_body_that_was_lost_meanwhile_is_told_to_whoever_put_it(turn):
    """The message of a body that is gone is not acknowledged; the others are."""
    lost, fine = Noted(fails=True), Noted()
    first, second = turn([Puts([local(lost), local(Noted())]), Puts([local(fine)])])
    assert isinstance(first, WriteFailed)
    assert second == [(7, False)]
    assert fine.released == 1
