"""What every serializer must do, as tests that a plugin author inherits.

    class TestMine(SerializerContract):
        @pytest.fixture
        def serializer_case(self):
            return SerializerCase(make=Mine, values=[None, 7, {"a": [1]}], refused=[object()])

Owns the behaviour that contracts/serializer.py describes. Must not know any format.
"""

import contextlib
import copy
import functools
import itertools
import pickle
import random
import re
from collections.abc import Callable, Iterator, Sequence
from typing import Any, ClassVar

import attrs
import pytest

from dropr_core.contracts.serializer import Serializer
from dropr_core.errors import ProtocolError, UsageError
from dropr_core.testing.bombs import bombs
from dropr_core.testing.contract import Contract, together, within
from dropr_core.testing.likeness import FLOATS, INTS, TEXTS, kinds, unlike
from dropr_core.testing.memory import kept, peak

_MEDIA_TYPE = re.compile(r"[\w.+-]+/[\w.+-]+(;.*)?")


@attrs.frozen
class SerializerCase:
    """What the tests need to know about a format."""

    make: Callable[[], Serializer]
    """A new serializer, as two nodes with the same configuration would make it."""
    values: Sequence[Any]
    """Values that it carries; each must come back equal and of the same type."""
    refused: Sequence[Any] = ()
    """Values that it cannot carry."""
    foreign: Sequence[bytes] = ()
    """Bodies that are certainly not its own."""
    bombs: Sequence[bytes] = ()
    """Small bodies of its own that become huge. It need not have any: the kit makes some."""
    most: int = 32 << 20
    """Bytes that a small body may have unpacked; what has more is a ProtocolError."""


DEEP = 20_000
"""Lists within lists: far more than any interpreter's stack."""
_MARK = "marked-4711-in-the-payload"


def _deep(none: bytes, one: bytes, two: bytes) -> bytes | None:
    """The body of very many lists within each other, seen from those of the first three; None if it cannot be seen."""
    for before in range(len(one) - len(none) + 1):
        start, end = one[:before], one[before + len(none) :]
        if one == start + none + end and two == start + one + end and start + end:
            return start * DEEP + none + end * DEEP
    return None


class _Trap:
    """Pickled, it runs code when it is loaded."""

    sprung = False

    @classmethod
    def spring(cls) -> str:
        cls.sprung = True
        return "sprung"

    def __reduce__(self) -> tuple[Any, ...]:
        return (_spring, ())


def _spring() -> str:
    return _Trap.spring()


class SerializerContract(Contract):
    """Inherit, and override the fixture `serializer_case`."""

    rounds: ClassVar[int] = 50
    """Times that all values go there and back in each stretch over which memory is counted."""
    warm_up: ClassVar[int] = 20
    """Times before it is counted; more where it remembers so many, and not more than so many."""

    @pytest.fixture
    def serializer_case(self) -> SerializerCase:
        """Override this."""
        raise NotImplementedError("write the fixture serializer_case in your test class")

    @pytest.fixture
    def serializer(self, serializer_case: SerializerCase) -> Serializer:
        """A fresh one."""
        return serializer_case.make()

    def test_content_type_is_a_media_type(self, serializer_case: SerializerCase) -> None:
        """The content type has the form type/subtype, and is the same for every instance."""
        one, two = serializer_case.make(), serializer_case.make()
        assert isinstance(one, Serializer)
        assert _MEDIA_TYPE.fullmatch(one.content_type), f"{one.content_type!r} is no media type"
        assert one.content_type == two.content_type

    def test_values_come_back_equal(self, serializer_case: SerializerCase, serializer: Serializer) -> None:
        """Every value comes back equal and of the same type."""
        assert serializer_case.values, "give the case some values"
        for value in serializer_case.values:
            wrong = unlike(serializer.loads(serializer.dumps(value)), value)
            assert not wrong, f"{value!r:.100}: {wrong}"

    def test_what_it_takes_comes_back_exactly(self, serializer_case: SerializerCase, serializer: Serializer) -> None:
        """Numbers keep every digit and texts every character, or the sender is told (UsageError)."""
        carried = kinds(serializer_case.values)
        probes: list[Any] = [*(FLOATS if float in carried else ()), *(INTS if int in carried else ())]
        probes += TEXTS if str in carried else ()
        for value in probes:
            try:
                body = serializer.dumps(value)
            except UsageError:
                continue
            wrong = unlike(serializer.loads(body), value)
            assert not wrong, f"{value!r}: {wrong}; refuse with UsageError what it cannot carry"

    def test_deep_nesting_is_refused_or_carried(self, serializer_case: SerializerCase, serializer: Serializer) -> None:
        """Lists far within lists end in a UsageError here and a ProtocolError there, and never in a RecursionError."""
        if list not in kinds(serializer_case.values):
            pytest.skip("it carries no lists")
        nested: list[Any] = []
        for _ in range(DEEP):
            nested = [nested]
        with contextlib.suppress(UsageError):
            within(self.patience, functools.partial(serializer.dumps, nested), f"dumps of {DEEP} nested lists")
        body = _deep(serializer.dumps([]), serializer.dumps([[]]), serializer.dumps([[[]]]))
        if body is not None:
            with contextlib.suppress(ProtocolError):
                within(self.patience, functools.partial(serializer.loads, body), f"loads of {DEEP} nested lists")

    def test_a_small_body_stays_small(self, serializer_case: SerializerCase, serializer: Serializer) -> None:
        """A body of a few kilobytes takes bounded memory, whatever it unpacks to and whatever length it claims."""
        theirs = [("given by the case", body) for body in serializer_case.bombs]
        for what, body in itertools.chain(bombs(4 * serializer_case.most), self._own(serializer_case), theirs):
            took = within(self.patience, functools.partial(self._peak, serializer, body), f"loads of a bomb ({what})")
            allowed = 3 * serializer_case.most  # a copy or two of what it may unpack
            said = f"a body of {len(body):,} bytes ({what}) took {took:,} bytes of memory, more than {allowed:,}"
            assert took <= allowed, f"{said}; count while you unpack, and raise ProtocolError"

    @staticmethod
    def _peak(serializer: Serializer, body: bytes) -> int:
        def load() -> None:
            with contextlib.suppress(ProtocolError, MemoryError):  # of no memory says the figure
                serializer.loads(body)

        return peak(load)

    @staticmethod
    def _own(case: SerializerCase) -> Iterator[tuple[str, bytes]]:
        """A bomb in the format itself, if it compresses: from what it carries, a run of it."""
        carried = kinds(case.values)
        run: Any = b"a" if bytes in carried else "a" if str in carried else [0]
        serializer = case.make()
        with contextlib.suppress(UsageError):
            if len(serializer.dumps(run * 100_000)) < 10_000:
                yield "a run of its own", serializer.dumps(run * (4 * case.most))

    def test_its_memory_does_not_grow(self, serializer_case: SerializerCase, serializer: Serializer) -> None:
        """A node runs for months: nothing of a value or a body stays in memory."""
        bodies = [serializer.dumps(value) for value in serializer_case.values]

        def one() -> None:
            for value, body in zip(serializer_case.values, bodies, strict=True):
                serializer.dumps(copy.deepcopy(value))
                serializer.loads(bytes(bytearray(body)))
            for foreign in serializer_case.foreign:
                with contextlib.suppress(ProtocolError):
                    serializer.loads(bytes(bytearray(foreign)))

        grown = within(10 * self.patience, lambda: kept(one, self.rounds, self.warm_up), "packing and unpacking")
        assert not grown, grown

    def test_no_error_shows_the_payload(self, serializer_case: SerializerCase, serializer: Serializer) -> None:
        """Errors go to logs and to other people's screens: what was sent does not."""
        if str not in kinds(serializer_case.values):
            pytest.skip("it carries no text")
        texts = []
        for value in ([_MARK, object()], {_MARK: object()}, {"a": _MARK, "b": 1j}, _MARK + "\ud800"):
            try:
                serializer.dumps(value)
            except UsageError as error:
                texts.append(str(error))
        for carried in (_MARK, [_MARK]):
            try:
                good = serializer.dumps(carried)
            except UsageError:
                continue
            for bad in (good[:-1], good + b"x", good + good, b"x" + good, good.replace(b"-", b"\xff"), good[1:]):
                try:
                    serializer.loads(bad)
                except ProtocolError as error:
                    texts.append(str(error))
        telling = [text for text in texts if _MARK[:8] in text]
        assert not telling, f"this error text has the payload in it: {telling[0]:.300}"

    def test_a_body_is_bytes(self, serializer_case: SerializerCase, serializer: Serializer) -> None:
        """What `dumps` returns is bytes, not a relative of them that may change later."""
        for value in serializer_case.values:
            assert type(serializer.dumps(value)) is bytes

    def test_another_node_can_read_it(self, serializer_case: SerializerCase) -> None:
        """A body is read by another instance with the same configuration: nothing is kept inside."""
        sender, receiver = serializer_case.make(), serializer_case.make()
        for value in serializer_case.values:
            wrong = unlike(receiver.loads(sender.dumps(value)), value)
            assert not wrong, f"{value!r:.100}, read by another instance: {wrong}"

    def test_a_value_is_not_changed(self, serializer_case: SerializerCase, serializer: Serializer) -> None:
        """Sending a value leaves it as it was, and what is read is no part of it."""
        for value in serializer_case.values:
            before = copy.deepcopy(value)
            back = serializer.loads(serializer.dumps(value))
            assert value == before
            if isinstance(back, list | dict) and back:
                back.clear()
                assert value == before

    def test_what_it_cannot_carry_is_refused(self, serializer_case: SerializerCase, serializer: Serializer) -> None:
        """The sender gets a UsageError, never the library's own exception, and the next value passes."""
        for value in serializer_case.refused:
            with pytest.raises(UsageError):
                serializer.dumps(value)
        first = serializer_case.values[0]
        assert serializer.loads(serializer.dumps(first)) == first

    def test_foreign_bytes_are_a_protocol_error(self, serializer_case: SerializerCase, serializer: Serializer) -> None:
        """A body that is not its own is a ProtocolError, never the library's own exception."""
        for data in serializer_case.foreign:
            with pytest.raises(ProtocolError):
                serializer.loads(data)

    def test_damaged_bytes_raise_nothing_else(
        self, serializer_case: SerializerCase, serializer: Serializer, stress_round: int, strength: int
    ) -> None:
        """Bodies that are cut, changed or random give some value or a ProtocolError, and no other exception."""
        dice = random.Random(stress_round)  # noqa: S311 - the same every time
        bodies = [b"", b"\0", b"\xff" * 9]
        for value in serializer_case.values:
            good = serializer.dumps(value)
            for _ in range(20 * strength):
                bad = bytearray(good)
                if bad:
                    bad[dice.randrange(len(bad))] ^= 1 << dice.randrange(8)
                bodies += [bytes(bad), good[: dice.randrange(len(good) + 1)], good + dice.randbytes(3)]
        bodies += [dice.randbytes(dice.randrange(40)) for _ in range(100 * strength)]
        for body in bodies:
            try:
                within(self.patience, functools.partial(serializer.loads, body), f"loads({body[:40]!r})")
            except ProtocolError:
                continue

    def test_nothing_of_a_body_is_run(self, serializer: Serializer) -> None:
        """A pickled object that would run code does not run it."""
        _Trap.sprung = False
        for protocol in range(pickle.HIGHEST_PROTOCOL + 1):
            try:
                serializer.loads(pickle.dumps(_Trap(), protocol))
            except ProtocolError:
                continue
        assert not _Trap.sprung, "a body from the network was unpickled"

    def test_many_threads_share_one(
        self, serializer_case: SerializerCase, serializer: Serializer, strength: int
    ) -> None:
        """Threads that use one instance at once do not disturb each other."""

        def work(start: int) -> list[Any]:
            values = serializer_case.values
            turned = [values[(start + step) % len(values)] for step in range(50 * strength)]
            return [value for value in turned if serializer.loads(serializer.dumps(value)) != value]

        calls = [functools.partial(work, start) for start in range(6)]
        found = together(self.patience, calls, "values turned to and fro in six threads")
        wrong = [value for each in found for value in each]
        assert not wrong, f"{len(wrong)} values came back changed, the first was {wrong[0]!r:.100}"


__all__ = ["SerializerCase", "SerializerContract"]
