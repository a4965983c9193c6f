"""What every serializer must do, as tests that a plugin author inherits.

    class TestMine(SerializerContract):
        @pytest.fixture
        def serializer_case(self):
            return SerializerCase(make=Mine, values=[None, 7, {"a": [1]}], refused=[object()])

Owns the behaviour that contracts/serializer.py describes. Must not know any format.
"""

import copy
import functools
import pickle
import random
import re
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import attrs
import pytest

from dropr_core.contracts.serializer import Serializer
from dropr_core.errors import ProtocolError, UsageError
from dropr_core.testing.contract import Contract, within

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
            back = serializer.loads(serializer.dumps(value))
            assert back == value
            assert type(back) is type(value)

    def test_a_body_is_bytes(self, serializer_case: SerializerCase, serializer: Serializer) -> None:
        """What `dumps` returns is bytes, not a relative of them that may change later."""
        for value in serializer_case.values:
            assert type(serializer.dumps(value)) is bytes

    def test_another_node_can_read_it(self, serializer_case: SerializerCase) -> None:
        """A body is read by another instance with the same configuration: nothing is kept inside."""
        sender, receiver = serializer_case.make(), serializer_case.make()
        for value in serializer_case.values:
            assert receiver.loads(sender.dumps(value)) == value

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

        with ThreadPoolExecutor(6) as pool:
            assert [wrong for each in pool.map(work, range(6)) for wrong in each] == []


__all__ = ["SerializerCase", "SerializerContract"]
