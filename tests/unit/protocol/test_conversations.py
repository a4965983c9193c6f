"""Tokens of conversations: any server of the node verifies them, and nothing recorded is good for long."""

import pytest

from dropr_core.errors import Refused, StoreError
from dropr_core.protocol.conversations import LIFE, PER_PEER, BegunInMemory, Conversations, NodeSecret


class Site:
    """What the servers of one node share."""

    def __init__(self):
        self.secret, self.inbox, self.outbox, self.now = b"s" * 32, b"inbox...", b"outbox..", 1000.0
        self.begun = BegunInMemory()

    def server(self, node="ware"):
        """One more of them."""
        secret = NodeSecret(lambda: self.secret, lambda: self.now)
        return Conversations(node, secret, lambda: self.inbox, lambda: self.outbox, self.begun)


@pytest.fixture
def site():
    return Site()


def code_of(server, *request):
    """The code with which a request is refused."""
    with pytest.raises(Refused) as caught:
        server.use(*request)
    return caught.value.code


def test_any_server_of_the_node_takes_a_token(site):
    """A token that one server gave is good at another, and at one that was started later."""
    token = site.server().open("shop")
    assert len(token) <= 64
    one, two = site.server(), site.server()
    for counter in range(1, 9):
        (one, two)[counter % 2].use("shop", token, counter)


def test_fault_89_a_replayed_request_is_refused(site):
    """The server that saw a request refuses it the second time; requests that overtook others are good once."""
    server = site.server()
    token = server.open("shop")
    server.use("shop", token, 2)
    server.use("shop", token, 1)
    assert code_of(server, "shop", token, 2) == "replayed"
    assert code_of(server, "shop", token, 0) == "replayed"


def test_fault_89_a_token_is_good_for_an_hour(site):
    """What was recorded yesterday is refused today, at every server, also one that never saw it."""
    server = site.server()
    token = server.open("shop")
    site.now += LIFE - 1
    server.use("shop", token, 1)
    site.now += 2
    assert code_of(server, "shop", token, 2) == "new_session"
    assert code_of(site.server(), "shop", token, 2) == "new_session"


def test_a_clock_that_was_set_back_makes_no_token_live_longer(site):
    """A token that ends later than any that could have been given is none."""
    server = site.server()
    token = server.open("shop")
    site.now -= 3600
    assert code_of(server, "shop", token, 1) == "new_session"


@pytest.mark.parametrize("of", ["peer", "node", "inbox", "outbox", "secret"])
def test_a_token_is_for_one_peer_one_node_and_one_store(site, of):
    """Another peer's token, another node's, that of a store that was wiped or numbered anew: none is good."""
    token = site.server("other" if of == "node" else "ware").open("else" if of == "peer" else "shop")
    if of in {"inbox", "outbox", "secret"}:
        setattr(site, of, b"renumber")
    assert code_of(site.server(), "shop", token, 1) == "new_session"


@pytest.mark.parametrize("of", ["inbox", "outbox", "secret"])
def test_a_token_that_was_verified_is_verified_anew_when_what_it_was_made_of_has_changed(site, of):
    """Which token was good last is remembered together with why."""
    server = site.server()
    token = server.open("shop")
    server.use("shop", token, 1)
    setattr(site, of, b"renumber")
    assert code_of(server, "shop", token, 2) == "new_session"


def test_a_token_that_was_verified_ends_all_the_same(site):
    """Nor is another one good because of it, or the same one for another peer."""
    server = site.server()
    token = server.open("shop")
    server.use("shop", token, 1)
    assert code_of(server, "shop", token[:-1] + bytes([token[-1] ^ 1]), 2) == "new_session"
    assert code_of(server, "else", token, 2) == "new_session"
    server.use("shop", token, 3)
    site.now += LIFE + 1
    assert code_of(server, "shop", token, 4) == "new_session"


def test_a_push_has_nothing_to_do_with_the_outbox(site):
    """It goes on where the outbox was numbered anew; the next request that asks for it is refused."""
    server = site.server()
    token = server.open("shop")
    server.use("shop", token, 1)
    site.outbox = b"renumber"
    server.use("shop", token, 2, pushes=True)
    assert code_of(server, "shop", token, 3) == "new_session"


@pytest.mark.parametrize("at", range(33))
def test_no_bit_of_a_token_can_be_changed(site, at):
    """Each byte counts, the length too; and what old versions gave is none."""
    server = site.server()
    token = bytearray(server.open("shop"))
    token[at] ^= 1
    assert code_of(server, "shop", bytes(token), 1) == "new_session"
    assert code_of(server, "shop", bytes(token[:at]), 1) == "new_session"


def test_replays_do_not_push_out_what_is_in_use(site):
    """Requests of many old conversations, replayed, leave the window of the honest peer where it is."""
    server = site.server()
    token = server.open("shop")
    server.use("shop", token, 1)
    server.use("shop", token, 2)
    for _ in range(10 * PER_PEER):
        server.use("shop", server.open("shop"), 1)
    assert code_of(server, "shop", token, 2) == "replayed"


def test_a_conversation_begins_to_fetch_once_for_all_servers(site):
    """The first fetch after a hello is known as such; at another server it is not the first any more, nor is a replay
    of one of an older conversation.
    """
    one, two = site.server(), site.server()
    old = one.use("shop", one.open("shop"), 1)
    assert two.begins_to_fetch("shop", old)
    two.note_fetching("shop", old)
    assert not one.begins_to_fetch("shop", old)
    assert not two.begins_to_fetch("shop", old)
    assert not site.server().begins_to_fetch("shop", old)
    assert two.begins_to_fetch("rome", old)
    new = one.use("shop", one.open("shop"), 1)
    assert one.begins_to_fetch("shop", new)
    one.note_fetching("shop", new)
    assert not two.begins_to_fetch("shop", new)
    assert not two.begins_to_fetch("shop", old)
    two.note_fetching("shop", old)
    assert not one.begins_to_fetch("shop", new)


def test_a_store_that_cannot_note_it_costs_nobody_his_mail(site):
    """On a full disk the server remembers by itself that a conversation has begun."""

    class Full(BegunInMemory):
        def note(self, peer, conversation):
            raise StoreError("no room")

    site.begun = Full()
    server = site.server()
    conversation = server.use("shop", server.open("shop"), 1)
    server.note_fetching("shop", conversation)
    assert not server.begins_to_fetch("shop", conversation)
