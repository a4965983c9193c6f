"""Requests that are here as a whole with their head: asked for before their task has its turn."""

import pytest
from curl_callers import dial, post, status
from dropr_transport_curl import DroprApp

from dropr_core.testing.transport_contract import request


@pytest.fixture
def begun(monkeypatch):
    """Of each request that might be begun, whether it was."""
    seen, begin = [], DroprApp.begin

    def noting(app, scope, body):
        seen.append(begin(app, scope, body))
        return seen[-1]

    monkeypatch.setattr(DroprApp, "begin", noting)
    return seen


@pytest.fixture
def host(serve):
    """The listener, and who answers."""
    return serve()


@pytest.fixture
def line(host):
    """A connection whose caller was admitted."""
    with dial(host[0]) as line:
        line.sendall(kept(request(30)))
        assert status(line) == 200
        yield line


def kept(body, **more):
    """A request behind which the connection stays."""
    return post(body, more=b"", **more)


def test_of_a_caller_that_was_admitted_a_request_in_one_piece_is_begun(begun, host, line):
    """Not the first one of a connection, which may be a stranger's; and each is judged and answered once."""
    assert begun == []
    line.sendall(kept(request(40)))
    assert status(line) == 200
    assert begun == [True]
    assert (host[1].answered, len(host[1].callers)) == (2, 2)


@pytest.mark.parametrize("cut", ["in the head", "in the body"])
def test_one_in_two_pieces_is_left_to_its_task(begun, host, line, cut):
    """What came later may meet a task that waits for it."""
    whole = kept(request(40))
    at = 20 if cut == "in the head" else len(whole) - 10
    line.sendall(whole[:at])
    with dial(host[0]) as other:  # when this one is answered, the first piece was read
        other.sendall(kept(request(30)))
        assert status(other) == 200
    line.sendall(whole[at:])
    assert status(line) == 200
    assert begun == ([True] if cut == "in the head" else [])


def test_one_behind_another_is_left_to_its_task(begun, host, line):
    """Answers leave in the order of their requests, and nothing is asked for before its turn."""
    line.sendall(kept(request(40, "hold")) + kept(request(50)))
    assert host[1].asked.acquire(timeout=30)
    assert host[1].asked.acquire(timeout=30), "the first one, too"
    assert (begun, host[1].answered) == ([True], 2)
    host[1].let_go()
    back = b""
    while not back.endswith(request(50)):
        back += line.recv(65536)
    assert back.count(b"HTTP/1.1 200 OK") == 2
    assert request(40, "hold") in back


@pytest.mark.parametrize(
    ("verb", "expected"),
    [("later", 200), ("empty", 200), ("no:peer", 401), ("refuse", 400), ("fail", 500), ("raise", 500), ("crash", 500)],
)
def test_what_becomes_of_it_is_what_became_of_it_before(begun, line, verb, expected):
    """An answer that takes a while, a refusal, a failure: each is told once, and the connection stays."""
    for _ in range(2):
        line.sendall(kept(request(40, verb)))
        assert status(line) == expected
    assert begun == [True, True]
    line.sendall(kept(request(30)))
    assert status(line) == 200


def test_a_wrong_length_is_refused(begun, line):
    """HTTP and the request say different things."""
    line.sendall(kept(request(40)[:35]))
    assert status(line) == 400
    assert begun == [True]


@pytest.mark.parametrize(("path", "size", "expected"), [("/other", 40, 404), ("/dropr", 200_000, 200)])
def test_what_is_no_short_request_of_ours_is_left_to_its_task(begun, line, path, size, expected):
    """Another path, or a body that is not short."""
    line.sendall(kept(request(size), path=path))
    assert status(line) == expected
    assert not any(begun)
