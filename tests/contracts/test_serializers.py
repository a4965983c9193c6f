"""The serializer contract, held by those that come with dropr."""

import pytest

from dropr_core.builtin.serializers import json, raw, text
from dropr_core.testing import SerializerCase, SerializerContract


class TestBytes(SerializerContract):
    @pytest.fixture
    def serializer_case(self):
        return SerializerCase(raw.dropr_serializer, values=[b"", b"\0\xff", b"x" * 100_000], refused=["text", 5, None])


class TestText(SerializerContract):
    @pytest.fixture
    def serializer_case(self):
        return SerializerCase(
            text.dropr_serializer, values=["", "grüße \U0001f4ee", "a\0b"], refused=[b"x", 5, "\ud800"],
            foreign=[b"\xff"],
        )  # fmt: skip


class TestJson(SerializerContract):
    @pytest.fixture
    def serializer_case(self):
        return SerializerCase(
            json.dropr_serializer,
            values=[None, True, 2**70, -1.5, "ü", [], {}, [1, {"a": [None]}], {"sku": 7}],
            refused=[object(), 1j, {(1, 2): 3}, float("nan"), "\ud800"],
            foreign=[b"", b"{", b"\xff", b"1 2", b"[" * 500 + b"]" * 500],
        )
