"""The asking side against peers that misbehave or vanish: what is certain, what is unknown, what is refused."""

import os
import signal
import socket
import subprocess
import sys
import threading
from pathlib import Path

import pytest
import zmq
from dropr_transport_zmq import Options
from dropr_transport_zmq.dealer import settle
from dropr_transport_zmq.frames import CHUNK, FIRST_WINDOW, OPENING, VERSION, WINDOW, Kind, pack, refusal, unpack
from dropr_transport_zmq.keys import new_secret, public_of

from dropr_core.errors import Closed, Refused, Unanswered, Unreachable
from dropr_core.testing.echo import MIB, Echo, request

WAIT = 30.0


@pytest.fixture
def peer(raw):
    """A bare ROUTER in plain text that answers by hand."""
    router = raw(zmq.ROUTER)
    router.setsockopt(zmq.RCVHWM, 16)
    router.bind("tcp://127.0.0.1:0")
    return router


def url_of(router):
    """Where a bare router listens."""
    return "zmq+" + router.getsockopt(zmq.LAST_ENDPOINT).rstrip(b"\0").decode()


@pytest.fixture
def connect(transport):
    def connect(url, **options):
        return transport(curve=False, **options).connect(url)

    return connect


def get(router):
    """The next message at a bare router: who, head, payload."""
    who, head, payload = router.recv_multipart()
    return who, unpack(head), payload


# ── keys ─────────────────────────────────────────────────────────────────────────────────────────


def test_fault_37_a_wrong_server_key_reaches_nobody(transport, echo, secret):
    """A peer that cannot prove the key in the url gets nothing, and the error says where to look."""
    url = transport(key=secret).listen("zmq+tcp://127.0.0.1:0", echo).url
    wrong = url.replace(public_of(secret), public_of(new_secret()))
    with pytest.raises(Unreachable, match=r"\?curve="):
        transport().connect(wrong).ask(request(20), idle=WAIT).result(WAIT)
    assert not echo.heads


def test_no_curve_at_a_listener_that_wants_it(transport, echo, secret):
    """Plain text at an encrypted door is not let in, and the other way round neither."""
    url = transport(key=secret).listen("zmq+tcp://127.0.0.1:0", echo).url
    with pytest.raises(Unreachable, match="handshake"):
        transport(curve=False).connect(url.partition("?")[0]).ask(request(20), idle=WAIT).result(WAIT)
    plain = transport(curve=False).listen("zmq+tcp://127.0.0.1:0", echo).url
    with pytest.raises(Unreachable, match="handshake"):
        transport().connect(f"{plain}?curve={public_of(secret)}").ask(request(20), idle=WAIT).result(WAIT)
    assert not echo.heads


def test_fault_37_a_client_that_is_not_on_the_list_is_refused(transport, echo, secret):
    """With the option 'clients' only those may connect; others learn it as a refusal that only a person can end."""
    friend = new_secret()
    url = transport(key=secret, clients=(public_of(friend),)).listen("zmq+tcp://127.0.0.1:0", echo).url
    assert transport(key=friend).connect(url).ask(request(20), idle=WAIT).result(WAIT)
    with pytest.raises(Refused) as caught:
        transport().connect(url).ask(request(20), idle=WAIT).result(WAIT)
    assert caught.value.code == "unauthorized"


def test_the_caller_is_known_by_its_key(transport, echo, secret):
    """A caller's proven identity is its public key, its address the one that it calls from."""
    mine = new_secret()
    url = transport(key=secret).listen("zmq+tcp://127.0.0.1:0", echo).url
    transport(key=mine).connect(url).ask(request(20), idle=WAIT).result(WAIT)
    assert echo.callers[0].identity == public_of(mine)
    assert echo.callers[0].address == "127.0.0.1"


@pytest.mark.parametrize(
    ("url", "listen", "options", "says"),
    [
        ("zmq+tcp://host:1", False, {}, "curve: false"),
        ("zmq+tcp://host:1", True, {}, "dropr keygen zmq"),
        ("zmq+tcp://host", True, {"curve": False}, "port"),
        ("zmq+tcp://*:1", False, {"curve": False}, "no address that can be asked"),
        ("zmq+tcp://host:0", False, {"curve": False}, "no address that can be asked"),
        ("zmq+tcp://host:1?curve=short", False, {}, "no public CURVE key"),
        ("zmq+tcp://host:1?key=x", False, {}, "only one"),
        ("zmq+tcp://host:1/path", True, {"curve": False}, "no paths"),
        ("zmq+tcp://me:pass@host:1", False, {"curve": False}, "credentials"),
        ("zmq+ipc://run/x", False, {}, "three slashes"),
        ("zmq+ipc://*", False, {}, "only where a node listens"),
        ("zmq+ipc:///" + "x" * 120, True, {}, "shorter"),
        ("zmq+inproc://", True, {}, "zmq+inproc://name"),
        ("http://host:1", False, {}, "zmq+tcp://"),
    ],
)
def test_check_explains_what_is_wrong(transport, url, listen, options, says):
    """Each mistake in a url is one sentence that says what would be right."""
    assert says in transport(**options).check(url, listen=listen)


def test_a_secret_key_in_a_url_is_noticed_and_not_repeated(transport):
    """Who puts the secret key where the public one belongs is warned."""
    text = transport().check(f"zmq+tcp://host:1?curve={new_secret()}", listen=False)
    assert "secret" in text
    assert new_secret()[:20] not in text


# ── certain and unknown ──────────────────────────────────────────────────────────────────────────


def test_fault_27_an_unknown_host_name(transport):
    """A name that DNS does not know is certainly unreachable."""
    connection = transport(curve=False).connect("zmq+tcp://no-such-host.invalid:8421")
    with pytest.raises(Unreachable, match="DNS"):
        connection.ask(b"x", idle=WAIT).result(WAIT)


def test_a_host_name_is_looked_up(transport, echo):
    """A name works like a number."""
    url = transport(curve=False).listen("zmq+tcp://localhost:0", echo).url
    assert transport(curve=False).connect(url).ask(request(20), idle=WAIT).result(WAIT) == request(20)


@pytest.mark.parametrize("says", [b"", b"HTTP/1.1 400 Bad Request\r\n\r\n", b"\xff" * 200])
def test_fault_31_another_program_at_the_address(connect, says):
    """What accepts the connection but speaks no ZeroMQ has certainly got no request."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        accepted = []

        def serve():
            try:
                while True:
                    one, _ = server.accept()
                    accepted.append(one)
                    one.sendall(says)
            except OSError:
                pass

        thread = threading.Thread(target=serve)
        thread.start()
        connection = connect(f"zmq+tcp://127.0.0.1:{server.getsockname()[1]}", connect=0.3)
        with pytest.raises(Unreachable):
            connection.ask(request(20), idle=WAIT).result(WAIT)
        server.shutdown(socket.SHUT_RDWR)
        thread.join()
        for one in accepted:
            one.close()


def test_fault_28_a_peer_that_never_answers(connect, peer):
    """A request that was sent and not answered is unknown after its idle time, and the peer is told to forget it."""
    future = connect(url_of(peer)).ask(request(20), idle=0.3)
    who, head, _ = get(peer)
    assert head.kind == Kind.ASK
    with pytest.raises(Unanswered, match="nothing came or went"):
        future.result(WAIT)
    assert get(peer) == (who, (Kind.CANCEL, head.request, 0), b"")


def test_fault_31_a_peer_dies_in_the_middle_of_its_answer(connect, peer):
    """Half an answer is none: the request is unknown at once, and does not wait for its idle time."""
    future = connect(url_of(peer)).ask(request(20), idle=600)
    who, head, _ = get(peer)
    peer.send_multipart([who, pack(Kind.ANSWER, head.request, 8 * CHUNK), b"x" * CHUNK])
    assert get(peer)[1].kind == Kind.GRANT
    peer.close()
    with pytest.raises(Unanswered, match="broke"):
        future.result(WAIT)


def test_a_request_under_way_is_unknown_and_a_waiting_one_certain(connect, peer):
    """After a break, what was handed over is unknown; what is asked then finds nobody and is certain."""
    connection = connect(url_of(peer))
    future = connection.ask(request(20), idle=600)
    get(peer)
    peer.close()
    assert isinstance(future.exception(WAIT), Unanswered)
    assert isinstance(connection.ask(request(20), idle=600).exception(WAIT), Unreachable)


def test_fault_42_the_listener_comes_back(transport, secret):
    """The same connection finds a listener that was closed and opened again, time after time."""
    asking = transport()
    url, connection = "zmq+tcp://127.0.0.1:0", None
    for _ in range(3):
        answering, echo = transport(key=secret), Echo()
        url = answering.listen(url, echo).url
        connection = connection or asking.connect(url)
        for _ in range(20):
            error = connection.ask(request(MIB), idle=WAIT).exception(WAIT)
            if error is None:
                break
            assert isinstance(error, Unanswered | Unreachable)
        assert error is None
        answering.close()
    for _ in range(20):  # the first may still meet the end of the old connection
        error = connection.ask(request(20), idle=WAIT).exception(WAIT)
        if isinstance(error, Unreachable):
            break
        assert isinstance(error, Unanswered)
    assert isinstance(error, Unreachable)


def test_an_answer_to_an_old_connection_is_ignored(connect, peer):
    """Answers to requests that nobody waits for change nothing."""
    connection = connect(url_of(peer))
    future = connection.ask(request(20), idle=WAIT)
    who, head, _ = get(peer)
    for kind in Kind:
        peer.send_multipart([who, pack(kind, head.request + 1000, 5), b"wrong"])
    peer.send_multipart([who, pack(Kind.ANSWER, head.request, 5), b"right"])
    assert future.result(WAIT) == b"right"


@pytest.mark.parametrize(
    "parts",
    [
        lambda n: [pack(Kind.ANSWER, n, 3), b"four"],
        lambda n: [pack(Kind.ANSWER, n, 1 << 62), b"x"],
        lambda n: [pack(Kind.MORE, n, 0), b"x"],
        lambda n: [pack(Kind.ASK, n, 1), b"x"],
        lambda n: [pack(99, n, 1), b"x"],
        lambda n: [pack(Kind.ANSWER, n, 9 * MIB), b""],
    ],
)
def test_fault_31_a_malformed_answer_is_unknown(connect, peer, parts):
    """Whatever an answer breaks of the rules, the request ends as unknown and the next one is served."""
    connection = connect(url_of(peer), max_answer=8 * MIB)
    future = connection.ask(request(20), idle=WAIT)
    who, head, _ = get(peer)
    peer.send_multipart([who, *parts(head.request)])
    assert isinstance(future.exception(WAIT), Unanswered)
    future = connection.ask(request(20), idle=WAIT)
    while (got := get(peer))[1].kind == Kind.CANCEL:
        pass
    peer.send_multipart([who, pack(Kind.ANSWER, got[1].request, 2), b"ok"])
    assert future.result(WAIT) == b"ok"


@pytest.mark.parametrize(
    "parts", [[], [b""], [b"", b""], [b"x" * 18], [b"\x01" * 18, b"", b""], [bytes([VERSION + 1]) * 18, b"x"]]
)
def test_messages_that_are_none_are_ignored(connect, peer, parts):
    """Frames that are no messages of this protocol neither end a request nor stop the thread."""
    future = connect(url_of(peer)).ask(request(20), idle=WAIT)
    who, head, _ = get(peer)
    peer.send_multipart([who, *parts])
    peer.send_multipart([who, pack(Kind.ANSWER, head.request, 2), b"ok"])
    assert future.result(WAIT) == b"ok"


def test_refusals_are_made_harmless(connect, peer):
    """Code and text of a stranger's refusal reach people as one line without control characters."""
    future = connect(url_of(peer)).ask(request(20), idle=WAIT)
    who, head, _ = get(peer)
    peer.send_multipart([who, pack(Kind.REFUSED, head.request), refusal("a\x1b[2Jb", "first\nsecond\xff\x00")])
    error = future.exception(WAIT)
    assert isinstance(error, Refused)
    assert error.code.isprintable()
    assert error.reason.isprintable()


# ── flow ─────────────────────────────────────────────────────────────────────────────────────────


def test_no_more_than_the_window_is_sent_without_a_grant(connect, peer):
    """A peer that grants nothing gets the first window and not a byte more; a grant lets the rest go."""
    size = FIRST_WINDOW + 3 * CHUNK
    future = connect(url_of(peer)).ask(request(size), idle=WAIT)
    got = b""
    while len(got) < FIRST_WINDOW:
        who, head, payload = get(peer)
        assert head.number == (size if head.kind == Kind.ASK else len(got))
        got += payload
    assert len(got) == FIRST_WINDOW
    assert not peer.poll(100)
    peer.send_multipart([who, pack(Kind.GRANT, head.request, size), b""])
    while len(got) < size:
        got += get(peer)[2]
    assert got == request(size)
    peer.send_multipart([who, pack(Kind.ANSWER, head.request, 0), b""])
    assert future.result(WAIT) == b""


def test_a_request_begins_with_the_window_that_the_listener_has_said(connect, peer):
    """After GRANT for all requests a later one goes out so far without waiting; a new connection begins small again."""
    connection = connect(url_of(peer))
    first = connection.ask(request(20), idle=WAIT)
    who, head, _ = get(peer)
    peer.send_multipart([who, pack(Kind.GRANT, OPENING, 2 * FIRST_WINDOW), b""])
    peer.send_multipart([who, pack(Kind.ANSWER, head.request, 0), b""])
    assert first.result(WAIT) == b""
    connection.ask(request(8 * FIRST_WINDOW), idle=WAIT)
    got = b""
    while len(got) < 2 * FIRST_WINDOW:
        got += get(peer)[2]
    assert len(got) == 2 * FIRST_WINDOW
    assert not peer.poll(100)


def test_after_a_large_answer_the_next_may_begin_with_the_full_window(connect, peer):
    """An asker that got a large answer says with its next request how much of the answer may come at once."""
    connection = connect(url_of(peer))
    size = FIRST_WINDOW + CHUNK
    first = connection.ask(request(20), idle=WAIT)
    who, head, _ = get(peer)
    for sent in range(0, size, CHUNK):
        kind, number = (Kind.MORE, sent) if sent else (Kind.ANSWER, size)
        peer.send_multipart([who, pack(kind, head.request, number), request(size)[sent : sent + CHUNK]])
    assert first.result(WAIT) == request(size)
    connection.ask(request(20), idle=WAIT)
    later = []
    while not later or later[-1][0] != (Kind.GRANT, WINDOW):  # until it has come; grants of the first come before
        _, head, _ = get(peer)
        later.append(((head.kind, head.number), head.request))
    assert later[-1][1] == next(request for (kind, _), request in later if kind == Kind.ASK)


def test_high_water_marks_never_block_the_asker(connect, peer):
    """A peer that reads nothing fills bounded queues; what cannot be queued fails, and `ask` returns at once."""
    connection = connect(url_of(peer), high_water=8, max_waiting=300)
    futures = [connection.ask(request(FIRST_WINDOW), idle=1.0) for _ in range(301)]
    assert isinstance(futures[-1].exception(WAIT), Unreachable)  # above max_waiting: at once
    errors = [future.exception(WAIT) for future in futures]
    assert {type(error) for error in errors} <= {Unreachable, Unanswered}
    assert sum(isinstance(error, Unreachable) for error in errors) > 1  # those of which nothing was handed over


def test_a_small_request_passes_a_big_one(transport, secret):
    """Requests take turns: one of 16 MiB does not keep a small one waiting until it is through."""
    echo = Echo()
    url = transport(key=secret).listen("zmq+tcp://127.0.0.1:0", echo).url
    connection = transport().connect(url)
    order = []
    big = connection.ask(request(16 * MIB), idle=WAIT)
    big.add_done_callback(lambda _: order.append("big"))
    small = connection.ask(request(20), idle=WAIT)
    small.add_done_callback(lambda _: order.append("small"))
    assert big.result(WAIT) == request(16 * MIB)
    assert order == ["small", "big"]


# ── processes ────────────────────────────────────────────────────────────────────────────────────


def test_fault_18_after_a_fork_the_child_gets_closed(transport, secret):
    """In a forked child the transport says Closed and closes without a hang; the parent's goes on."""
    echo = Echo()
    url = transport(key=secret).listen("zmq+tcp://127.0.0.1:0", echo).url
    asking = transport()
    connection = asking.connect(url)
    assert connection.ask(request(20), idle=WAIT).result(WAIT) == request(20)
    pid = os.fork()
    if pid == 0:
        code = 1
        try:
            error = connection.ask(request(20), idle=WAIT).exception(WAIT)
            asking.close()
            code = 0 if isinstance(error, Closed) else 2
        finally:
            os._exit(code)
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0
    assert connection.ask(request(20), idle=WAIT).result(WAIT) == request(20)


LISTENER = """
import logging, sys
from dropr_transport_zmq import Options, make
from dropr_core.testing.echo import Echo
echo = Echo()
transport = make(Options(curve=False), logging.getLogger("listener"))
print(transport.listen("zmq+tcp://127.0.0.1:0", echo).url, flush=True)
while True:
    echo.asked.acquire()
    print("asked", flush=True)
"""


@pytest.fixture
def listener():
    """A listener in a process of its own."""
    with subprocess.Popen([sys.executable, "-c", LISTENER], stdout=subprocess.PIPE, text=True) as process:
        yield process
        process.kill()


def test_fault_28_a_suspended_peer_is_noticed_by_its_heart(listener, connect):
    """A peer whose machine hangs leaves its connection open; the missing heartbeats end it before the idle time."""
    connection = connect(listener.stdout.readline().strip(), heartbeat=0.1)
    future = connection.ask(request(20, "hold"), idle=600)
    assert listener.stdout.readline() == "asked\n"
    listener.send_signal(signal.SIGSTOP)
    try:
        assert isinstance(future.exception(WAIT), Unanswered)
        assert isinstance(connection.ask(request(20), idle=0.5).exception(WAIT), Unreachable)
    finally:
        listener.send_signal(signal.SIGCONT)
    for _ in range(50):
        if connection.ask(request(20), idle=WAIT).exception(WAIT) is None:
            return
    raise AssertionError("it did not come back")


@pytest.mark.parametrize("curve", [False, True])
@pytest.mark.parametrize("heartbeat", [0.1, 10.0, 60.0, 66.0, 3600.0])
def test_the_heart_is_asked_early_enough(raw, curve, heartbeat):
    """Asking and waiting for the answer take the option 'heartbeat' together, and the other side is told no less."""
    options = Options(curve=curve, heartbeat=heartbeat)
    socket = raw(zmq.DEALER)
    settle(socket, options)
    asks, waits = socket.getsockopt(zmq.HEARTBEAT_IVL), socket.getsockopt(zmq.HEARTBEAT_TIMEOUT)
    assert asks + waits == heartbeat * 1000
    assert 0 < asks < waits
    ttl = socket.getsockopt(zmq.HEARTBEAT_TTL)
    assert ttl == (heartbeat * 1000 if heartbeat < 65 else 0)
    assert ttl < 1 << 16, "libzmq's PING carries 16 bits of it, and reads them as 16 bits of milliseconds"


def test_a_killed_peer_is_noticed_at_once(listener, connect):
    """A process that dies ends what it was asked as unknown, whatever the idle time."""
    connection = connect(listener.stdout.readline().strip())
    future = connection.ask(request(20, "hold"), idle=600)
    assert listener.stdout.readline() == "asked\n"
    listener.kill()
    assert isinstance(future.exception(WAIT), Unanswered)
    assert isinstance(connection.ask(request(20), idle=600).exception(WAIT), Unreachable)


def test_nothing_asked_starts_nothing(transport):
    """A transport that only made connections has started no thread and opened no socket."""
    before = threading.active_count()
    transport(curve=False).connect("zmq+tcp://127.0.0.1:9")
    assert threading.active_count() == before


def open_files():
    """How many file descriptors this process has."""
    return len(list(Path("/proc/self/fd").iterdir()))


def test_many_open_and_close(transport, secret):
    """Connections leave nothing behind: file descriptors do not grow with their number."""
    echo = Echo()
    url = transport(key=secret).listen("zmq+tcp://127.0.0.1:0", echo).url
    asking = transport()

    def use():
        connection = asking.connect(url)
        connection.ask(request(20), idle=WAIT).result(WAIT)
        connection.close()

    for _ in range(10):
        use()
    before = open_files()
    for _ in range(40):
        use()
    keeper = asking.connect(url)
    for _ in range(500):  # ZeroMQ reaps in a thread of its own
        if open_files() <= before + 20:
            break
        keeper.ask(request(20), idle=WAIT).result(WAIT)
    assert open_files() <= before + 20
