"""Serializers with one mistake each; see test_wrong_plugins.py."""

import json
import pickle
import re
import zlib

import pytest

from dropr_core.contracts.serializer import Serializer
from dropr_core.errors import ProtocolError, UsageError
from dropr_core.testing import (
    SerializerCase,
    SerializerContract,
)


class Good(Serializer):
    """JSON as it should be."""

    content_type = "application/json"

    def dumps(self, value):
        try:
            return json.dumps(value).encode()
        except (TypeError, ValueError, RecursionError) as error:
            raise UsageError(str(error)) from error

    def loads(self, data):
        try:
            return json.loads(data)
        except (ValueError, RecursionError) as error:
            raise ProtocolError(str(error)) from error


class WrongSerializer(SerializerContract):
    __test__ = False
    made = Good
    values = (1, "two", 0.5, {"a": [None]})
    most = 32 << 20

    @pytest.fixture
    def serializer_case(self):
        return SerializerCase(self.made, self.values, refused=[object()], foreign=[b"{"], most=self.most)


class TestGoodSerializer(WrongSerializer):
    """The control: without a mistake everything passes."""

    __test__ = True


class TestDoesNotRoundTrip(WrongSerializer):
    """Pairs come back as lists."""

    __test__ = True
    caught_by = "test_values_come_back_equal"
    values = ((1, 2),)


class TestRaisesTheLibrarysErrors(WrongSerializer):
    __test__ = True
    caught_by = "test_foreign_bytes_are_a_protocol_error"

    class made(Good):  # noqa: N801
        def loads(self, data):
            return json.loads(data)


class TestCrashesOnDamage(WrongSerializer):
    """Takes for granted that there is a first byte."""

    __test__ = True
    caught_by = "test_damaged_bytes_raise_nothing_else"

    class made(Good):  # noqa: N801
        def loads(self, data):
            assert data[0] >= 0
            return super().loads(data)


class TestUnpickles(WrongSerializer):
    __test__ = True
    caught_by = "test_nothing_of_a_body_is_run"

    class made(Good):  # noqa: N801
        def loads(self, data):
            try:
                return pickle.loads(data)
            except Exception:
                return super().loads(data)


class TestKeepsTheTableToItself(WrongSerializer):
    __test__ = True
    caught_by = "test_another_node_can_read_it"

    class made(Good):  # noqa: N801
        def __init__(self):
            self.table = []

        def dumps(self, value):
            super().dumps(value)
            self.table.append(value)
            return b"%d" % (len(self.table) - 1)

        def loads(self, data):
            try:
                return self.table[int(data)]
            except (ValueError, IndexError) as error:
                raise ProtocolError(str(error)) from error


class TestTakesWhatItCannotCarry(WrongSerializer):
    __test__ = True
    caught_by = "test_what_it_cannot_carry_is_refused"

    class made(Good):  # noqa: N801
        def dumps(self, value):
            return json.dumps(value, default=str).encode()


class TestLosesDigits(WrongSerializer):
    """Writes numbers as people like to read them."""

    __test__ = True
    caught_by = "test_what_it_takes_comes_back_exactly"

    class made(Good):  # noqa: N801
        def dumps(self, value):
            return b"%g" % value if isinstance(value, float) else super().dumps(value)

        def loads(self, data):
            value = super().loads(data)
            return float(value) if b"." in data and isinstance(value, int) else value


class TestReadsBigNumbersAsFloats(WrongSerializer):
    """As JavaScript does."""

    __test__ = True
    caught_by = "test_what_it_takes_comes_back_exactly"

    class made(Good):  # noqa: N801
        def loads(self, data):
            value = super().loads(data)
            return int(float(value)) if type(value) is int else value


class TestReplacesSurrogates(WrongSerializer):
    """Puts a question mark where a text has no UTF-8."""

    __test__ = True
    caught_by = "test_what_it_takes_comes_back_exactly"

    class made(Good):  # noqa: N801
        def dumps(self, value):
            super().dumps(value)
            return json.dumps(value, ensure_ascii=False).encode(errors="replace")


class TestMakesTextsOfKeys(WrongSerializer):
    """Takes a mapping with numbers as keys, and gives one with texts."""

    __test__ = True
    caught_by = "test_values_come_back_equal"
    values = ({1: "a"},)


class TestConfusesTrueAndOne(WrongSerializer):
    """What is equal is not the same: here within a list."""

    __test__ = True
    caught_by = "test_values_come_back_equal"
    values = ([True],)

    class made(Good):  # noqa: N801
        def loads(self, data):
            value = super().loads(data)
            return [1 if one is True else one for one in value] if isinstance(value, list) else value


class TestDiesOfDeepValues(WrongSerializer):
    __test__ = True
    caught_by = "test_deep_nesting_is_refused_or_carried"

    class made(Good):  # noqa: N801
        def dumps(self, value):
            try:
                return json.dumps(value).encode()
            except (TypeError, ValueError) as error:
                raise UsageError(str(error)) from error


class TestDiesOfDeepBodies(WrongSerializer):
    __test__ = True
    caught_by = "test_deep_nesting_is_refused_or_carried"

    class made(Good):  # noqa: N801
        def loads(self, data):
            try:
                return json.loads(data)
            except ValueError as error:
                raise ProtocolError(str(error)) from error


class TestUnpacksBombs(WrongSerializer):
    """Trusts a small body to be small inside."""

    __test__ = True
    caught_by = "test_a_small_body_stays_small"

    class made(Good):  # noqa: N801
        content_type = "application/json+zlib"

        def dumps(self, value):
            return zlib.compress(super().dumps(value))

        def loads(self, data):
            try:
                return super().loads(zlib.decompress(data))
            except zlib.error as error:
                raise ProtocolError(str(error)) from error


class TestUnpacksBombsOfItsOwn(WrongSerializer):
    """Writes how often each letter comes, and believes it."""

    __test__ = True
    caught_by = "test_a_small_body_stays_small"
    values = ("two", "aaab", "")
    most = 1 << 20  # it is slow

    class made(Good):  # noqa: N801
        content_type = "text/x-runs"

        def dumps(self, value):
            if type(value) is not str:
                raise UsageError("no text")
            runs = re.finditer(r"(.)\1*", value, re.DOTALL)
            return "".join(f"{run.end() - run.start()} {ord(run[1])} " for run in runs).encode()

        def loads(self, data):
            try:
                numbers = [int(each) for each in data.split()]
                return "".join(chr(one) * often for often, one in zip(numbers[::2], numbers[1::2], strict=True))
            except (ValueError, OverflowError) as error:
                raise ProtocolError(str(error)) from error


class TestBelievesALength(WrongSerializer):
    """Makes room for what the first four bytes announce, before it looks whether it is there."""

    __test__ = True
    caught_by = "test_a_small_body_stays_small"

    class made(Good):  # noqa: N801
        content_type = "application/json+length"

        def dumps(self, value):
            body = super().dumps(value)
            return len(body).to_bytes(4, "big") + body

        def loads(self, data):
            room = bytearray(int.from_bytes(data[:4], "big"))
            if len(data) != 4 + len(room):
                raise ProtocolError("cut, or too long")
            return super().loads(data[4:])


class TestRemembersEveryValue(WrongSerializer):
    """A cache of what was written, without an end."""

    __test__ = True
    caught_by = "test_its_memory_does_not_grow"

    class made(Good):  # noqa: N801
        def __init__(self):
            self.seen = []

        def dumps(self, value):
            body = super().dumps(value)
            self.seen.append(body)
            return body


class TestShowsThePayload(WrongSerializer):
    """Means well: the whole body stands in the error."""

    __test__ = True
    caught_by = "test_no_error_shows_the_payload"

    class made(Good):  # noqa: N801
        def loads(self, data):
            try:
                return super().loads(data)
            except ProtocolError as error:
                raise ProtocolError(f"{error}: {data!r}") from error


class TestShowsTheValue(WrongSerializer):
    __test__ = True
    caught_by = "test_no_error_shows_the_payload"

    class made(Good):  # noqa: N801
        def dumps(self, value):
            try:
                return super().dumps(value)
            except UsageError as error:
                raise UsageError(f"cannot send {value!r}") from error
