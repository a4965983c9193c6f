"""An HTTP answer leaves in one write, so that no client sees a head whose body never comes."""

import asyncio
import logging
import socket

import pytest

from dropr_core.system.web import WebDoor
from dropr_core.system.whole_answers import WholeAnswers

HEAD = b"HTTP/1.1 200 OK\r\ncontent-length: 4\r\n\r\n"


class Inner(asyncio.Transport):
    """Notes what it is asked for."""

    def __init__(self):
        super().__init__()
        self.done, self.closing = [], False

    def write(self, data):
        self.done.append(bytes(data))

    def write_eof(self):
        self.done.append("eof")

    def close(self):
        self.closing = True
        self.done.append("close")

    def abort(self):
        self.closing = True
        self.done.append("abort")

    def is_closing(self):
        return self.closing

    def get_write_buffer_size(self):
        return 7


@pytest.fixture
def inner():
    return Inner()


def spoken(inner, *words):
    """What reaches the connection when these words are written within one turn of the loop; the turn ends with None."""

    async def main():
        answers = WholeAnswers(inner, asyncio.get_running_loop())
        for word in words:
            if word is None:
                await asyncio.sleep(0)
            elif isinstance(word, bytes):
                answers.write(word)
            else:
                getattr(answers, word)()
        await asyncio.sleep(0)

    asyncio.run(main())
    return inner.done


@pytest.mark.parametrize(
    ("words", "done"),
    [
        ((HEAD, b"body"), [HEAD + b"body"]),
        ((HEAD, b"body", b"more"), [HEAD + b"body", b"more"]),
        ((HEAD, b""), [HEAD]),
        ((HEAD, None, b"body"), [HEAD, b"body"]),
        ((HEAD,), [HEAD]),
        ((HEAD, b"body", HEAD, b"next"), [HEAD + b"body", HEAD + b"next"]),
        ((HEAD, "close"), [HEAD, "close"]),
        ((HEAD, "write_eof"), [HEAD, "eof"]),
        ((HEAD, "abort"), ["abort"]),
        ((b"body", b"body"), [b"body", b"body"]),
        ((HEAD, b"x" * 100_000), [HEAD, b"x" * 100_000]),
    ],
)
def test_a_head_waits_for_what_follows_and_for_nothing_else(inner, words, done):
    """It goes with the body, or by itself when the loop goes on or the connection ends; nothing is lost."""
    assert spoken(inner, *words) == done


def test_a_head_that_waits_counts_as_not_sent(inner):
    """Whoever looks whether a reader takes anything sees it."""

    async def main():
        answers = WholeAnswers(inner, asyncio.get_running_loop())
        answers.write(HEAD)
        assert answers.get_write_buffer_size() == 7 + len(HEAD)
        answers.writelines([b"bo", b"dy"])
        assert answers.get_write_buffer_size() == 7

    asyncio.run(main())
    assert inner.done == [HEAD + b"body"]


def test_a_head_is_not_written_into_what_has_broken(inner):
    """A connection that is lost while a head waits gets it no more."""
    assert spoken(inner, HEAD, None) == [HEAD]
    inner.done.clear()

    async def main():
        WholeAnswers(inner, asyncio.get_running_loop()).write(HEAD)
        inner.closing = True
        await asyncio.sleep(0)

    asyncio.run(main())
    assert inner.done == []


def test_a_door_answers_in_one_write(monkeypatch):
    """What a web door answers is one piece for the kernel: killed at any moment, it sent all or nothing."""
    sent = []
    send = socket.socket.send

    def noted(sock, data, *flags):
        sent.append(bytes(data))
        return send(sock, data, *flags)

    async def application(_scope, _receive, reply):
        await reply({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"4")]})
        await reply({"type": "http.response.body", "body": b"body"})

    async def main():
        listener = socket.create_server(("127.0.0.1", 0))
        log = logging.getLogger("dropr.test.web")
        door = WebDoor(application, listener, None, max_connections=5, place="here", log=log)
        await door.start()
        host, port = listener.getsockname()
        try:
            reader, writer = await asyncio.open_connection(host, port)
            writer.write(b"GET / HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n")
            answer = await reader.read()
            writer.close()
            await writer.wait_closed()
        finally:
            door.abort()
        return answer

    monkeypatch.setattr(socket.socket, "send", noted, raising=False)
    answer = asyncio.run(main())
    assert answer.endswith(b"\r\n\r\nbody")
    assert [piece for piece in sent if not piece.startswith(b"GET")] == [answer]
