"""The inviting side of a join, without a network: who gets in, who does not, and what both files say then."""

import logging
import os
import signal
from types import SimpleNamespace

import pytest

from dropr_core.config.node import load
from dropr_core.contracts.transport import Caller
from dropr_core.delivery.joining import Joining
from dropr_core.errors import ConfigError, Refused, UsageError
from dropr_core.protocol import messages as wire
from dropr_core.protocol.access import Access
from dropr_core.protocol.endpoint import Endpoint
from dropr_core.protocol.frames import REQUEST, FrameHeader, seal
from dropr_core.protocol.invitation import join_key, new_invitation, pair_key
from dropr_core.serving.invitations import REMEMBERED, Invitations
from dropr_core.serving.joining import JoinDesk
from dropr_core.system.shared_document import FileDocuments

LOG = logging.getLogger("dropr.test.joining")
NONCE = b"n" * 16


class Inviter:
    """A node whose file is in ``directory``, and its desk."""

    def __init__(self, directory, text='node: shop\nlisten: ["http://127.0.0.1:8420"]   # here\npeers:\n'):
        self.file = directory / "shop.yaml"
        self.file.write_text(text)
        self.file.chmod(0o600)
        self.applied = []
        (directory / "shop-data").mkdir()
        config = load(self.file)
        self.kept = Invitations(FileDocuments(config.data))
        self.desk = JoinDesk(config, lambda url: url.startswith("http"), self.applied.append, LOG)

    def invite(self, name="berlin", lifetime=900.0, may_write=None):
        """A new invitation."""
        invitation = new_invitation("shop", name, ("http://127.0.0.1:8420",))
        self.kept.add(invitation, lifetime, may_write)
        return invitation


@pytest.fixture
def inviter(tmp_path):
    (tmp_path / "shop").mkdir()
    return Inviter(tmp_path / "shop")


def refusal(call, *arguments):
    with pytest.raises(Refused) as caught:
        call(*arguments)
    return caught.value.code, caught.value.reason


def test_who_holds_the_token_becomes_a_peer_at_once(inviter):
    """The file says so with all its comments, the key is in a file for its owner alone, the running server knows."""
    invitation = inviter.invite(may_write=("orders", "returns/*"))
    assert inviter.desk.key(invitation.id, "berlin") == join_key(invitation.secret)
    answer = inviter.desk.join(invitation.id, "berlin", wire.Join(NONCE, ["zmq+tcp://x:1", "http://berlin:1"]))
    assert answer.url == "http://berlin:1"
    config = load(inviter.file)
    peer = config.peers["berlin"]
    assert (peer.url, peer.mode, peer.may_write) == ("http://berlin:1", "push", ("orders", "returns/*"))
    assert peer.keys == (pair_key(join_key(invitation.secret), NONCE).encode(),)
    assert inviter.applied == [config]
    assert "# here" in inviter.file.read_text()
    assert (inviter.file.parent / "berlin.key").stat().st_mode & 0o777 == 0o600
    assert "peers:\n" in inviter.file.with_name("shop.yaml.bak").read_text()


def test_who_can_be_reached_nowhere_fetches(inviter):
    """No address, or only such as this node cannot call: `mode: pull`."""
    for name, urls in (("laptop", []), ("phone", ["pigeon://phone"])):
        invitation = inviter.invite(name)
        assert inviter.desk.join(invitation.id, name, wire.Join(NONCE, urls)).url == ""
        assert (load(inviter.file).peers[name].mode, load(inviter.file).peers[name].url) == ("pull", None)


def test_one_use_and_the_same_asker_may_ask_again(inviter):
    """A second use is refused with what to do; the same request again, as after a lost answer, gets the same one."""
    invitation = inviter.invite()
    first = inviter.desk.join(invitation.id, "berlin", wire.Join(NONCE, []))
    text = inviter.file.read_text()
    code, reason = refusal(inviter.desk.join, invitation.id, "berlin", wire.Join(b"m" * 16, []))
    assert (code, "`dropr invite berlin` on shop makes another one" in reason) == ("used", True)
    assert inviter.desk.join(invitation.id, "berlin", wire.Join(NONCE, [])) == first
    assert inviter.file.read_text() == text


def test_expired_revoked_and_unknown_are_refused(inviter, monkeypatch):
    """An expired one is told so for a day; then, or revoked, or for another name, nobody knows it."""
    late, gone = inviter.invite(lifetime=1.0), inviter.invite("rome")
    now = [1e12]
    monkeypatch.setattr("time.time", lambda: now[0])
    assert inviter.desk.key(late.id, "berlin") is None
    now[0] = inviter_expiry(inviter, late, monkeypatch) + 60
    assert "expired 1m ago" in refusal(inviter.desk.join, late.id, "berlin", wire.Join(NONCE, []))[1]
    monkeypatch.undo()
    assert inviter.desk.key(gone.id, "berlin") is None
    assert inviter.kept.revoke("rome") == 1
    assert inviter.desk.key(gone.id, "rome") is None
    assert refusal(inviter.desk.join, gone.id, "rome", wire.Join(NONCE, []))[0] == "bad_invitation"
    assert inviter.desk.key(b"x" * 16, "berlin") is None
    assert inviter.desk.key(b"../../etc", "berlin") is None
    assert load(inviter.file).peers == {}


def inviter_expiry(inviter, invitation, monkeypatch):
    """When an invitation expires, whatever the clock says now."""
    monkeypatch.setattr("dropr_core.serving.invitations.REMEMBERED", 1e13)
    return inviter.kept.find(invitation.id).expires


def test_old_ones_are_forgotten(inviter, monkeypatch):
    """A day after its end an invitation leaves nothing behind when the next one is made."""
    import time

    old = inviter.invite(lifetime=1.0)
    then = time.time() + REMEMBERED + 10
    monkeypatch.setattr("time.time", lambda: then)
    inviter.invite("rome")
    assert [record.name for record in inviter.kept.all()] == ["rome"]
    assert not (inviter.file.parent / "invitations" / f"{old.id.hex()}.json").exists()


def test_a_configuration_that_cannot_be_written_uses_nothing_up(inviter, caplog):
    """A file that somebody is editing, or one too strange to add to: the asker is told whom to ask, and comes again."""
    invitation = inviter.invite()
    good = inviter.file.read_text()
    for bad in (good + "  : : :", good + "  a:\n    key: |\n      0123456789abcdef"):
        inviter.file.write_text(bad)
        code, reason = refusal(inviter.desk.join, invitation.id, "berlin", wire.Join(NONCE, []))
        assert (code, "its log says why" in reason) == ("not_written", True)
        assert inviter.file.read_text() == bad
    assert "cannot be written down" in caplog.text
    inviter.file.write_text(good)
    inviter.desk.join(invitation.id, "berlin", wire.Join(b"m" * 16, []))


def test_a_peer_of_that_name_is_not_replaced(inviter):
    """Somebody wrote a peer of this name by hand meanwhile: it stays."""
    invitation = inviter.invite()
    inviter.file.write_text(inviter.file.read_text() + '  berlin: {mode: pull, key: "0123456789abcdef"}\n')
    assert refusal(inviter.desk.join, invitation.id, "berlin", wire.Join(NONCE, []))[0] == "taken"
    assert load(inviter.file).peers["berlin"].keys == (b"0123456789abcdef",)


# ── at the door ──────────────────────────────────────────────────────────────────────────────────


def ask(endpoint, key, *, verb=wire.JOIN, sender="berlin", receiver="shop", session=b"", body=None):
    """What a request gets: admitted, or the code of its refusal."""
    value = wire.Join(NONCE, []) if body is None else body
    header = FrameHeader(
        sender=sender, receiver=receiver, request=b"r" * 16, verb=verb, digest=b"", session=session, counter=1
    )
    frame, _ = seal(REQUEST, header, wire.encode(value), key)
    try:
        return endpoint.admit(frame, Caller("127.0.0.1")) == len(frame)
    except Refused as refused:
        return refused.code


def test_the_key_of_an_invitation_opens_nothing_but_the_join(inviter):
    """The key of a pair signs no join, that of an invitation nothing else, and a stranger's nothing at all."""
    invitation = inviter.invite()
    pair, joins = b"0123456789abcdef", join_key(invitation.secret)
    store = SimpleNamespace(store_id=b"12345678")
    endpoint = Endpoint("shop", b"i" * 16, {"rome": Access((pair,))}, store, store, joins=inviter.desk)
    hello = wire.Hello(1, b"i" * 16)
    assert ask(endpoint, joins, session=invitation.id) is True
    assert ask(endpoint, pair, sender="rome", verb=wire.HELLO, body=hello) is True
    assert ask(endpoint, b"z" * 32, session=invitation.id) == "bad_invitation"
    assert ask(endpoint, invitation.secret, session=invitation.id) == "bad_invitation"
    assert ask(endpoint, joins, session=b"x" * 16) == "bad_invitation"
    assert ask(endpoint, joins, session=invitation.id, sender="rome") == "bad_invitation"
    assert ask(endpoint, joins, session=invitation.id, receiver="oslo") == "unknown_peer"
    assert ask(endpoint, pair, sender="rome", session=invitation.id) == "bad_invitation"
    assert ask(endpoint, joins, session=invitation.id, verb=wire.HELLO, body=hello) == "unknown_peer"
    assert ask(endpoint, joins, session=invitation.id, verb=wire.HELLO, sender="rome", body=hello) == "bad_signature"
    silent = Endpoint("shop", b"i" * 16, {}, store, store)
    assert ask(silent, joins, session=invitation.id) == "bad_invitation"


# ── both sides ───────────────────────────────────────────────────────────────────────────────────


class Direct(Joining):
    """A joining side that asks a desk in this process instead of a URL."""

    desk = None

    def _ask(self, config, context, transports, nonce, urls):
        return "http://127.0.0.1:8420", (), self.desk.join(
            self._invitation.id, config.node, wire.Join(nonce, list(urls))
        )  # fmt: skip


def join(inviter, file, invitation, urls=()):
    joining = Direct(file, invitation, LOG)
    joining.desk = inviter.desk
    return joining.run(urls)


def pair_of(inviter, file):
    """The keys that both files name for each other; None for a side that names none."""
    mine = load(inviter.file).peers.get("berlin")
    other = load(file).peers.get("shop") if file.exists() else None
    return (None if mine is None else mine.keys), (None if other is None else other.keys)


@pytest.mark.parametrize("existing", [False, True])
def test_both_sides_have_the_pair(inviter, tmp_path, existing):
    """A node that has no file gets one; one that has one keeps every line. Both name the same key."""
    place = tmp_path / "berlin"
    place.mkdir()
    file = place / "dropr.yaml"
    if existing:
        file.write_text('node: berlin  # me\nlisten: ["http://127.0.0.1:1"]\n')
    joined = join(inviter, file, inviter.invite(), ["http://127.0.0.1:1"] if existing else [])
    mine, other = pair_of(inviter, file)
    assert mine == other is not None
    assert (joined.peer, joined.made, joined.reached_at) == (
        "shop", not existing, "http://127.0.0.1:1" if existing else "",
    )  # fmt: skip
    assert not existing or "# me" in file.read_text()
    assert not list(place.glob(".*"))


def test_a_wrong_file_is_told_before_anybody_is_asked(inviter, tmp_path):
    """Another node's name, a peer that stands there, a file with mistakes: the invitation is as good as before."""
    file = tmp_path / "dropr.yaml"
    invitation = inviter.invite()
    file.write_text("node: rome\n")
    with pytest.raises(UsageError, match=r"for 'berlin', but .* is the node 'rome'"):
        join(inviter, file, invitation)
    file.write_text('node: berlin\npeers: {shop: {mode: pull, key: "0123456789abcdef"}}\n')
    with pytest.raises(ConfigError, match="shop is a peer already"):
        join(inviter, file, invitation)
    file.write_text("node: [berlin\n")
    with pytest.raises(ConfigError):
        join(inviter, file, invitation)
    assert inviter.kept.find(invitation.id).nonce == b""
    file.unlink()
    join(inviter, file, invitation)


CALLS = ("pwrite", "rename", "replace", "unlink", "mkdir", "link", "kill")
"""Those that change something; and telling other processes."""


def die_at(number):
    """Before that call of the operating system this process is killed."""
    kill, count = os.kill, 0

    def wrap(real):
        def call(*values, **more):
            nonlocal count
            count += 1
            if count == number:
                kill(os.getpid(), signal.SIGKILL)
            return real(*values, **more)

        return call

    os.fsync = lambda _fd: None  # what a kill leaves does not depend on it
    for name in CALLS:
        setattr(os, name, wrap(getattr(os, name)))


@pytest.mark.parametrize("existing", [False, True])
def test_a_kill_at_any_step_leaves_nothing_or_what_the_same_command_ends(tmp_path, existing):
    """Killed before any call of the system on either side: both files can be read, no side names a key that the other
    could not come to have, and the same token, used again, makes the pair whole."""
    number, killed = 0, True
    while killed:
        number += 1
        place = tmp_path / str(number)
        (place / "a").mkdir(parents=True)
        (place / "b").mkdir()
        inviter, file = Inviter(place / "a"), place / "b" / "dropr.yaml"
        if existing:
            file.write_text("node: berlin\n")
        invitation = inviter.invite()
        child = os.fork()
        if child == 0:
            try:
                logging.disable()
                die_at(number)
                join(inviter, file, invitation)
                os._exit(0)
            except BaseException:
                os._exit(1)
        status = os.waitpid(child, 0)[1]
        assert os.WIFSIGNALED(status) or os.WEXITSTATUS(status) == 0, "the child met an error"
        killed = os.WIFSIGNALED(status)
        mine, other = pair_of(inviter, file)
        assert other is None or mine == other, number
        if killed and not (other is not None and not list((place / "b").glob(".*joining"))):
            join(inviter, file, invitation)
        mine, other = pair_of(inviter, file)
        assert mine == other is not None, number
    assert number > 12
