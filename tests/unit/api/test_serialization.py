"""Which serializer reads a body: by what its content type means."""

import threading

import pytest

import dropr_core as dropr
from dropr_core.api import serialization as module
from dropr_core.config.node import from_mapping
from dropr_core.errors import ProtocolError, UsageError


@pytest.fixture
def node(tmp_path):
    """A node with a channel that carries JSON and one without a serializer."""
    mapping = {"node": "shop", "insecure": True, "peers": {"ware": {"mode": "pull"}}, "storage": "memory",
               "data": str(tmp_path / "data"),
               "channels": {"orders": {"to": "ware", "serializer": "json"}, "plain": {"to": "ware"}}}  # fmt: skip
    with dropr.open(from_mapping(mapping, tmp_path)) as node:
        yield node


JSON = ["application/json", "Application/JSON", "application/json; charset=utf-8", "application/json;charset=UTF-8",
        "application/problem+json", "application/json; profile=x"]  # fmt: skip


@pytest.mark.parametrize("channel", ["orders", "plain", "elsewhere"])
@pytest.mark.parametrize("content_type", JSON)
def test_json_is_found_however_its_type_is_written(node, content_type, channel):
    """On the channel that carries JSON, on others, and on one that nobody configured."""
    assert node.runtime.serialization.load_as(content_type, channel, b'{"a": 1}') == {"a": 1}


@pytest.mark.parametrize(
    "content_type", ["text/plain", "TEXT/plain", "text/plain;charset=UTF-8", "text/plain; format=flowed"]
)
def test_text_is_found_however_its_type_is_written(node, content_type):
    """The same for text."""
    assert node.runtime.serialization.load_as(content_type, "plain", "\u00e4".encode()) == "\u00e4"


@pytest.mark.parametrize(
    "content_type", ["text/plain; charset=latin1", "application/xml", "json", "application/json; charset=utf-16"]
)
def test_what_nobody_reads_is_said_by_name(node, content_type):
    """Another charset is another form: it is not guessed at."""
    with pytest.raises(ProtocolError, match=content_type):
        node.runtime.serialization.load_as(content_type, "plain", b"x")


@pytest.mark.parametrize("value", ["\udcff", "a\ud800"])
def test_text_without_utf8_is_refused_and_no_accident(node, value):
    """Half a surrogate pair is bad input for every way of sending text, and for a result."""
    for channel in ("plain", "orders"):
        with pytest.raises(UsageError):
            node.send(value, channel=channel)
    with pytest.raises(UsageError):
        node.runtime.serialization.dump_result(value)


class Door:
    """A lock that says when so many have come to it, those who wait for it included."""

    def __init__(self, real, count):
        self._real, self._left, self.all_came = real, threading.Semaphore(count - 1), threading.Event()

    def __enter__(self):
        if not self._left.acquire(blocking=False):
            self.all_came.set()
        self._real.acquire()

    def __exit__(self, *_):
        self._real.release()


@pytest.mark.parametrize("ask", [lambda one: one._built_in("json"), lambda one: one._of_channel("orders")])
def test_threads_that_need_one_at_once_make_it_once(node, monkeypatch, ask):
    """The threads of a worker begin together: one of them imports it, and the others wait for that."""
    made, found = [], []
    create, serialization = module.create, node.runtime.serialization
    door = Door(serialization._making, 4)

    def slow(*words, **more):
        made.append(words)
        assert door.all_came.wait(60)
        return create(*words, **more)

    def use():
        found.append(ask(serialization))

    monkeypatch.setattr(module, "create", slow)
    monkeypatch.setattr(serialization, "_making", door)
    threads = [threading.Thread(target=use) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(made) == 1
    assert len(set(map(id, found))) == 1
