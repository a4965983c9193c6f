"""Keepers of large bodies with one mistake each; see test_wrong_plugins.py."""

import io

import pytest

from dropr_core.bodies.partial_body import PartialBody
from dropr_core.bodies.store import BodyFiles
from dropr_core.testing import BodiesCase, BodiesContract


class WrongBodies(BodiesContract):
    __test__ = False
    Made = BodyFiles

    @pytest.fixture
    def bodies_case(self):
        return BodiesCase(make=lambda directory: self.Made(directory / "bodies", 0))


class TestSweepsWhatAWriterHolds(WrongBodies):
    __test__ = True
    caught_by = "test_what_a_writer_holds_stays"

    class Made(BodyFiles):
        def write(self, identity, source, **more):
            written = super().write(identity, source, **more)
            written.release()
            return written


class TestKeepsWhatFailed(WrongBodies):
    __test__ = True
    caught_by = "test_a_stream_that_fails_leaves_nothing"

    class Made(BodyFiles):
        def write(self, identity, source, **more):
            begin = source.read(100_000)
            super().write(identity, io.BytesIO(begin), inbox_of="nobody").release()
            return super().write(identity, source, **more)


class TestHoldsAllOfIt(WrongBodies):
    __test__ = True
    caught_by = "test_a_body_is_never_in_memory_as_a_whole"

    class Made(BodyFiles):
        def write(self, identity, source, **more):
            return super().write(identity, io.BytesIO(b"".join(iter(lambda: source.read(65536), b""))), **more)


class TestBelievesEveryBody(WrongBodies):
    __test__ = True
    caught_by = "test_another_body_than_was_promised_is_refused and leaves-known"

    class Made(BodyFiles):
        def arrivals(self):
            arrivals = super().arrivals()
            of = arrivals.of

            def believing(*who):
                one = of(*who)
                one._complete = lambda: _name(one)
                return one

            arrivals.of = believing
            return arrivals


def _name(one: PartialBody) -> None:
    one._part.replace(one._final)
    one._close()
    one._offset = one._reference.size


class TestMixesPeersUp(WrongBodies):
    __test__ = True
    caught_by = "test_peers_do_not_share_bodies"

    class Made(BodyFiles):
        def has(self, _peer, identity, reference):
            return any(super(type(self), self).has(peer, identity, reference) for peer in ("shop", "../../etc"))


class TestSweepsWhatWaitsForItsMessage(WrongBodies):
    __test__ = True
    caught_by = "test_a_sweep_takes_what_no_message_needs_and_nothing_else"

    class Made(BodyFiles):
        def sweep(self, is_sent, is_come, _wall):
            return super().sweep(is_sent, is_come, 1e12)


class TestCannotBeSought(WrongBodies):
    __test__ = True
    caught_by = "test_a_body_can_be_sought_in"

    class Made(BodyFiles):
        def open_sent(self, identity, reference):
            with super().open_sent(identity, reference) as file:
                return io.BufferedReader(Once(file.read()))


class Once(io.RawIOBase):
    """A stream that goes forwards only."""

    def __init__(self, data):
        self._file = io.BytesIO(data)

    def readable(self):
        return True

    def readinto(self, buffer):
        return self._file.readinto(buffer)
