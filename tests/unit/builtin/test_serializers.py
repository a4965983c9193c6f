"""The built-in serializers: what goes in comes out, and what is not theirs is refused in words."""

import datetime as dt
import sys

import attrs
import pytest

from dropr_core.builtin.serializers import json, raw, text
from dropr_core.contracts.serializer import Serializer
from dropr_core.errors import ProtocolError, UsageError

RAW, TEXT, JSON = raw.dropr_serializer(), text.dropr_serializer(), json.dropr_serializer()


def test_the_content_types_are_the_usual_ones():
    """A receiver that is not dropr can read the content type."""
    kinds = [serializer.content_type for serializer in (RAW, TEXT, JSON)]
    assert kinds == ["application/octet-stream", "text/plain; charset=utf-8", "application/json"]
    assert all(isinstance(serializer, Serializer) for serializer in (RAW, TEXT, JSON))


@pytest.mark.parametrize("value", [b"", b"\0\xff", bytearray(b"x"), memoryview(b"abc")])
def test_bytes_stay_bytes(value):
    """Anything that is bytes already goes through untouched."""
    assert RAW.loads(RAW.dumps(value)) == bytes(value)


@pytest.mark.parametrize("value", ["", "grüße \U0001f4ee", "a\0b"])
def test_text_stays_text(value):
    """Any text with a UTF-8 form goes through untouched."""
    assert TEXT.loads(TEXT.dumps(value)) == value


@pytest.mark.parametrize("value", [None, True, 0, 2**70, -1.5, "ü", [], {}, [1, {"a": [None]}], {"sku": 7}])
def test_json_values_stay_what_they_are(value):
    """What JSON knows comes back equal and of the same type."""
    back = JSON.loads(JSON.dumps(value))
    assert back == value
    assert type(back) is type(value)


def test_json_takes_dates_and_attrs_classes():
    """Richer values travel as what stands for them in JSON."""

    @attrs.frozen
    class Order:
        sku: int
        day: dt.date

    assert JSON.loads(JSON.dumps(Order(7, dt.date(2024, 2, 29)))) == {"sku": 7, "day": "2024-02-29"}


@pytest.mark.parametrize(
    ("serializer", "value"),
    [(RAW, "text"), (RAW, 5), (RAW, None), (TEXT, b"bytes"), (TEXT, 5), (TEXT, "\ud800"), (JSON, object()),
     (JSON, "\ud800"), (JSON, float("nan")), (JSON, {"a": [1.0, float("inf"), None]}), (JSON, {(1, 2): 3}), (JSON, 1j)],
)  # fmt: skip
def test_what_a_serializer_cannot_carry_is_refused_at_send(serializer, value):
    """The sender gets a UsageError that names the trouble, and nothing is stored."""
    with pytest.raises(UsageError):
        serializer.dumps(value)


@pytest.mark.parametrize(
    ("serializer", "data"),
    [(TEXT, b"\xff"), (JSON, b""), (JSON, b"{"), (JSON, b"\xff"), (JSON, b'"\xff"'), (JSON, b"nan"), (JSON, b"1 2")],
)
def test_bytes_that_are_not_its_own_are_refused_at_receive(serializer, data):
    """A strange body is a ProtocolError, never a crash of the reader."""
    with pytest.raises(ProtocolError):
        serializer.loads(data)


def test_a_value_that_contains_itself_is_refused():
    """A cycle is a mistake of the caller, not an endless loop."""
    value = []
    value.append(value)
    with pytest.raises(UsageError):
        JSON.dumps(value)


@pytest.mark.parametrize("opening", [b"[", b'{"a":'])
@pytest.mark.parametrize("depth", [101, 500, 100_000])
def test_fault_58_deep_json_is_refused(opening, depth):
    """Nesting beyond the limit is refused, whatever the recursion limit of the interpreter would bear."""
    data = opening * depth + b"0" + {b"[": b"]"}.get(opening, b"}") * depth
    with pytest.raises(ProtocolError, match="deep"):
        JSON.loads(data)


def test_nesting_up_to_the_limit_and_wide_values_pass():
    """The limit is about depth alone: 100 levels pass, 101 do not, a million lists in one list do."""
    value = []
    for _ in range(json.MAX_DEPTH - 1):
        value = [value]
    assert JSON.loads(JSON.dumps(value)) == value
    with pytest.raises(UsageError, match="deep"):
        JSON.dumps([value])
    wide = [[]] * 100_000
    assert JSON.loads(JSON.dumps(wide)) == wide
    assert sys.getrecursionlimit() > json.MAX_DEPTH
