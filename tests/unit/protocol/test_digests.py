"""Digests of what is short, whoever computes them."""

import hashlib
import hmac
import os
import runpy
import sys

import pytest

from dropr_core.protocol import digests


@pytest.fixture(params=["as it is", "without Python's own"])
def made(request, monkeypatch):
    """The module, also where Python was built without an implementation of its own."""
    if request.param != "as it is":
        monkeypatch.setattr(digests, "_sha256", hashlib.sha256)
    digests._states.cache_clear()
    yield digests
    digests._states.cache_clear()


@pytest.mark.parametrize("length", [0, 1, 40, 63, 64, 65, 200])
def test_an_hmac_is_that_of_the_rfc(made, length):
    """For keys of any length, those that are longer than a block among them."""
    key = os.urandom(length)
    for size in (0, 1, 55, 56, 64, 150, 1000):
        data = os.urandom(size)
        for _ in range(2):  # the states are kept
            assert made.hmac_sha256(key, data) == hmac.digest(key, data, "sha256")


def test_a_digest_is_the_same_of_short_and_long(made):
    """Also of a view, on both sides of the limit."""
    for size in (0, 1, made.SHORT, made.SHORT + 1, 100_000):
        data = os.urandom(size)
        assert made.sha256(data) == made.sha256(memoryview(data)) == hashlib.sha256(data).digest()


def test_a_python_without_an_implementation_of_its_own_takes_that_of_openssl(monkeypatch):
    """Some systems leave it out."""
    for name in ("_sha2", "_sha256"):
        monkeypatch.setitem(sys.modules, name, None)
    made = runpy.run_path(digests.__file__)
    assert made["_sha256"] is hashlib.sha256
    assert made["hmac_sha256"](b"k" * 40, b"data") == hmac.digest(b"k" * 40, b"data", "sha256")
