"""The memcache door with the clients that people have: pymemcache, libmemcached's tools, PHP; and beside memcached."""

import json
import signal
import socket
import time

import pytest
from support import clients
from support.gateways import open_doors
from support.nodes import PATIENCE, eventually, take_all

pytestmark = pytest.mark.e2e


@pytest.fixture
def shop(road):
    """A node with a memcache door."""
    return open_doors(road, "shop", "memcache")


@pytest.fixture
def connect(shop):
    """Makes connections of pymemcache."""
    base = clients.module("pymemcache.client.base")
    made = []

    def client(**options):
        made.append(base.Client(("127.0.0.1", shop.port("memcache")), timeout=PATIENCE, **options))
        return made[-1]

    yield client
    for one in made:
        one.close()


class Raw:
    """A connection without a client."""

    def __init__(self, port):
        self.socket = socket.create_connection(("127.0.0.1", port), timeout=PATIENCE)

    def ask(self, data, end):
        """Send, and read until the answer ends so; or until the connection does."""
        self.socket.sendall(data)
        got = b""
        while not got.endswith(end):
            piece = self.socket.recv(65536)
            if not piece:
                break
            got += piece
        return got

    def close(self):
        """End it."""
        self.socket.close()


def test_memcacheq_set_puts_and_get_takes(connect):
    """In order, each once, with its flags; `delete` empties the queue; `stats queue` counts as MemcacheQ does."""
    client = connect()
    for number in range(3):
        assert client.set("q", b"%d" % number, noreply=False)
    assert client.get("q") == b"0"
    assert client.stats("queue") == {b"q": b"3/1"}
    assert client.set_many({"other": b"x", "q": b"3"}, noreply=False) == []
    assert client.get_many(["q", "other", "nothing"]) == {"q": b"1", "other": b"x"}
    assert client.delete("q", noreply=False)
    assert not client.delete("q", noreply=False)
    assert client.get("q") is None


def test_kestrel_an_open_read_goes_back_when_its_connection_ends(connect):
    """`/open` sets aside, `/close` acknowledges, `/abort` and a lost connection give back, `/peek` only looks."""
    one, other = connect(), connect()
    for body in (b"a", b"b"):
        one.set("work", body, noreply=False)
    assert one.get("work/open") == b"a"
    assert other.get("work/peek") == b"b"
    assert one.get("work/abort") is None
    assert other.get("work/open") == b"a"
    assert one.get("work/close/open") == b"b"
    other.close()
    assert one.get("work/close/open/t=20000") == b"a"
    assert one.get("work/close") is None
    assert connect().get("work") is None


def test_a_plain_get_while_a_read_is_open_is_refused(connect):
    """As in Kestrel, where it is most likely a mistake; the connection and its open read live on."""
    client = connect()
    client.set("work", b"a", noreply=False)
    client.get("work/open")
    with pytest.raises(clients.module("pymemcache").MemcacheClientError, match="is open on this connection"):
        client.get("work")
    assert client.get("work/abort") is None
    assert client.get("work") == b"a"


def test_a_get_waits_and_is_woken(connect):
    """`/t=ms` waits for a message that another connection sets, and for no longer than it says."""
    client = connect()
    assert client.get("work/t=10") is None
    waiting = Raw(client.server[1])
    waiting.socket.sendall(b"get work/t=30000\r\nversion\r\n")
    client.set("work", b"a", noreply=False)
    answer = waiting.ask(b"", b"dropr\r\n")
    assert answer.startswith(b"VALUE work/t=30000 0 1\r\na\r\nEND\r\nVERSION ")
    waiting.close()


def test_nothing_is_taken_for_a_client_that_has_gone(connect):
    """A connection that ends while its get waits takes no message with it."""
    client = connect()
    gone = Raw(client.server[1])
    gone.ask(b"set mark 0 0 1\r\nx\r\n", b"STORED\r\n")
    gone.socket.sendall(b"get work/t=30000\r\n")
    gone.close()
    watching = Raw(client.server[1])
    watching.ask(b"version\r\n", b"\r\n")  # a turn of the loop later
    client.set("work", b"a", noreply=False)
    assert client.get("work/t=30000") == b"a"
    watching.close()


def test_what_was_answered_survives_kill_9(shop, connect):
    """STORED means stored; an open read of the dead process is ready again."""
    client = connect()
    for number in range(20):
        assert client.set("q", b"%d" % number, flags=number, expire=600, noreply=False)
    assert client.get("q/open") == b"0"
    assert client.get("q/close/open") == b"1"
    shop.kill()
    shop.start()
    raw = Raw(shop.port("memcache"))
    for number in range(1, 20):
        assert raw.ask(b"get q\r\n", b"END\r\n") == b"VALUE q %d %d\r\n%d\r\nEND\r\n" % (
            number, len(str(number)), number,
        )  # fmt: skip
    assert raw.ask(b"get q\r\n", b"END\r\n") == b"END\r\n"
    raw.close()


def test_expired_messages_are_not_handed_out(connect):
    """The time of expiry is that of the message; a negative one has passed."""
    client = connect()
    client.set("q", b"long ago", expire=-1, noreply=False)
    client.set("q", b"soon", expire=1, noreply=False)
    client.set("q", b"stays", expire=int(time.time()) + 3600, noreply=False)
    time.sleep(1.1)  # what must pass, not what might be enough
    assert client.get("q") == b"stays"
    assert client.get("q") is None


def test_pipelined_requests_are_answered_in_their_order(shop):
    """Neighbouring sets share a commit and neighbouring gets a claim, and nobody can tell by the answers."""
    raw = Raw(shop.port("memcache"))
    sets = b"".join(b"set q 0 0 %d\r\n%s\r\n" % (len(b"%d" % n), b"%d" % n) for n in range(300))
    assert raw.ask(sets + b"mn\r\n", b"MN\r\n") == b"STORED\r\n" * 300 + b"MN\r\n"
    got = raw.ask(b"get q\r\n" * 301 + b"mn\r\n", b"MN\r\n")
    values = b"".join(b"VALUE q 0 %d\r\n%d\r\nEND\r\n" % (len(b"%d" % n), n) for n in range(300))
    assert got == values + b"END\r\nMN\r\n"
    raw.close()


def test_a_bad_set_among_good_ones_fails_alone(shop):
    """What shares a commit does not share its mistakes."""
    raw = Raw(shop.port("memcache"))
    answer = raw.ask(b"set a 0 0 1\r\n1\r\nset ../b 0 0 1\r\n2\r\nset a 0 0 1\r\n3\r\nget a a a\r\n", b"END\r\n")
    first, refused, third, *values = answer.split(b"\r\n")
    assert (first, third) == (b"STORED", b"STORED")
    assert refused.startswith(b"CLIENT_ERROR channel '../b'")
    assert values == [b"VALUE a 0 1", b"1", b"VALUE a 0 1", b"3", b"END", b""]
    raw.close()


def test_users_say_who_they_are_first(road):
    """With `users` nothing is done for strangers, in text and in binary (PHP's SASL)."""
    shop = open_doors(road, "shop", "memcache", options={"memcache": {"users": {"app": "secret"}}})
    raw = Raw(shop.port("memcache"))
    assert raw.ask(b"get q\r\n", b"\n").startswith(b"CLIENT_ERROR unauthenticated")
    assert raw.ask(b"set x 0 0 9\r\napp wrong\r\n", b"\n") == b"CLIENT_ERROR authentication failure\r\n"
    assert raw.ask(b"set x 0 0 10\r\napp secret\r\n", b"\n") == b"STORED\r\n"
    assert raw.ask(b"set q 0 0 1\r\na\r\nget q\r\n", b"END\r\n").endswith(b"VALUE q 0 1\r\na\r\nEND\r\n")
    raw.close()
    script = (
        "$m = new Memcached(); $m->setOption(Memcached::OPT_BINARY_PROTOCOL, true);"
        "$m->setSaslAuthData('app', $argv[2]); $m->addServer('127.0.0.1', (int)$argv[1]);"
        "echo json_encode([$m->set('q', 'by php'), $m->get('q')]);"
    )
    php = clients.php("memcached")
    port = str(shop.port("memcache"))
    assert json.loads(clients.run(php, "-r", script, "--", port, "secret")) == [True, "by php"]
    assert json.loads(clients.run(php, "-r", script, "--", port, "wrong")) == [False, False]


PHP = """
$m = new Memcached();
$m->setOption(Memcached::OPT_BINARY_PROTOCOL, $argv[2] === 'binary');
$m->addServer('127.0.0.1', (int)$argv[1]);
$out = [];
$out[] = $m->set('php', 'hello');
$out[] = $m->set('php', ['a' => 1, 'b' => str_repeat('y', 3000)]);
$out[] = $m->set('php', 42);
$out[] = $m->get('php/open');
$out[] = $m->get('php/close/open')['b'] === str_repeat('y', 3000);
$out[] = $m->get('php/close');
$out[] = $m->getResultCode() === Memcached::RES_NOTFOUND;
$out[] = $m->getMulti(['php', 'nothing']);
$out[] = $m->add('php', 1);
$out[] = $m->set('php', 'left');
$out[] = $m->delete('php');
$out[] = $m->get('php');
echo json_encode($out);
"""


@pytest.mark.parametrize("protocol", ["text", "binary"])
def test_php_with_its_flags(shop, protocol):
    """PHP's own types come back as they were, for the flags are kept, compressed ones too."""
    said = json.loads(clients.run(clients.php("memcached"), "-r", PHP, "--", str(shop.port("memcache")), protocol))
    assert said == [True, True, True, "hello", True, False, True, {"php": 42}, False, True, True, False]


@pytest.mark.parametrize("words", [[], ["--binary"]], ids=["text", "binary"])
def test_the_tools_of_libmemcached(shop, tmp_path, words):
    """memccp puts a file, memccat takes it; memcping, memcstat and memcrm do what they say."""
    servers = f"--servers=127.0.0.1:{shop.port('memcache')}"
    tool = {name: clients.program(name, "libmemcached-tools")
            for name in ("memccp", "memccat", "memcping", "memcstat", "memcrm")}  # fmt: skip
    (tmp_path / "letter").write_bytes(b"dear\0peer")
    clients.run(tool["memccp"], servers, *words, tmp_path / "letter")
    clients.run(tool["memccp"], servers, *words, tmp_path / "letter")
    assert clients.run(tool["memccat"], servers, *words, "letter") == b"dear\0peer\n"
    clients.run(tool["memcping"], servers)
    assert b"queue_letter_items: 1" in clients.run(tool["memcstat"], servers, *words)
    clients.run(tool["memcrm"], servers, *words, "letter")
    clients.run(tool["memcrm"], servers, *words, "letter", status=(1,))


def test_bytes_of_python_and_of_memcache_are_the_same(shop, connect):
    """What one puts the other takes, unchanged; flags travel as a header."""
    client = connect()
    body = bytes(range(256))
    with shop.place.opened() as node:
        client.set("jobs", body, flags=7, noreply=False)
        (received,) = take_all(node, "jobs", at_least=1)
        assert (received.body, received.headers["x-memcache-flags"]) == (body, "7")
        node.put(body, channel="jobs")
        assert client.get("jobs/t=30000") == body


def test_a_drain_lets_an_open_read_be_closed(shop, connect):
    """SIGTERM: whoever holds a message may finish it; then the process ends well."""
    client = connect()
    client.set("work", b"a", noreply=False)
    assert client.get("work/open") == b"a"
    shop.process.signal(signal.SIGTERM)
    eventually(lambda: _refuses(shop.port("memcache")), what="nobody new comes in")
    assert client.get("work/close") is None
    assert shop.process.wait() == 0
    with shop.place.opened() as node:
        assert take_all(node, "work") == []


def _refuses(port):
    try:
        socket.create_connection(("127.0.0.1", port), timeout=PATIENCE).close()
    except OSError:
        return True
    return False


SCRIPT = [
    b"version\r\n", b"get nothing\r\n", b"gets nothing\r\n", b"set q 5 0 3\r\nabc\r\n", b"get q\r\n",
    b"set q 0 0 0\r\n\r\n", b"get q\r\n", b"set q 0 0 1 noreply\r\nx\r\nget q\r\n", b"set q 0 -1 1\r\nx\r\n",
    b"get q\r\n", b"delete nothing\r\n", b"delete nothing 0\r\n", b"delete nothing 5\r\n", b"delete\r\n",
    b"get\r\n", b"\r\n", b"foo\r\n", b"GET q\r\n", b"set q 0 0\r\n", b"set q 0 0 3\r\nabcdef\r\nversion\r\n",
    b"set q 0 0 3\r\nab\r\nversion\r\nversion\r\n", b"set q 0 0 -1\r\n", b"get " + b"k" * 251 + b"\r\n",
    b"verbosity\r\n", b"verbosity 1\r\n", b"verbosity 1 noreply\r\nversion\r\n", b"stats reset\r\n",
    b"set q 0 0 2000000\r\n" + b"x" * 2_000_000 + b"\r\n", b"mn\r\n", b"mg zz\r\n", b"mg zz v k O123\r\n",
    b"mg zz v q\r\nmn\r\n", b"ms q 3 F5\r\nabc\r\n", b"mg q v f k s O77\r\n", b"ms q 3\r\nabcd\r\n",
    b"ms q x\r\n", b"ms q\r\n", b"mg\r\n", b"md zz\r\n", b"md zz q\r\nmn\r\n", b"md zz k O5\r\n", b"me zz\r\n",
    b"mg q v v\r\n", b"mg q Z\r\n", b"ms q 1 MX\r\na\r\n", b"ms YWJj 1 b k\r\na\r\n", b"mg YWJj b k v\r\n",
    b"ms !! 1 b\r\na\r\n", b"ms q 2 O1 k\r\nab\r\n", b"quit\r\n",
]  # fmt: skip
"""Commands that mean the same for a cache and a queue, as long as each value is read once."""


def test_the_transcript_is_that_of_memcached(shop, tmp_path):
    """Word for word, line for line, but for the number of the version."""
    memcached = [clients.program("memcached", "memcached"), "-u", "root", "-l", "127.0.0.1", "-p", "{port}"]
    with clients.server(memcached, tmp_path / "memcached.log") as original:
        theirs, ours = transcript(original), transcript(shop.port("memcache"))
    for command, one, other in zip(SCRIPT, theirs, ours, strict=True):
        assert other == one, command[:100]


def transcript(port):
    """The answer to each command, on one connection; `mn` after each shows where its answer ends."""
    raw, answers = Raw(port), []
    for command in SCRIPT:
        raw.socket.sendall(command + b"mn\r\n")
        got = b""
        while got.count(b"MN\r\n") <= command.count(b"mn\r\n") and (piece := raw.socket.recv(65536)):
            got += piece
        answers.append([b"VERSION" if line.startswith(b"VERSION") else line for line in got.split(b"\r\n")])
        if b"get q" in command:
            raw.ask(b"delete q\r\nmn\r\n", b"MN\r\n")  # a cache keeps what was read
    raw.close()
    return answers
