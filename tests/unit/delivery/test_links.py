"""Which peers a turn of the daemon looks at."""

import logging
import time

import pytest

import dropr_core as dropr
from dropr_core.delivery.links import Links
from dropr_core.delivery.transports import Transports

KEY = "k" * 40


@pytest.fixture
def links(tmp_path):
    """Links of a node with thirty peers at which nobody listens, all posts kept, and the node."""
    path = tmp_path / "shop.yaml"
    peers = "".join(f"  p{n}: {{url: 'http://127.0.0.1:9/{n}', key: '{KEY}', fetch: false}}\n" for n in range(30))
    path.write_text(f"node: shop\nstorage: memory\nlimits: {{min_free: 0}}\npeers:\n{peers}")
    path.chmod(0o600)
    log = logging.getLogger("test")
    with dropr.open(path) as node:
        runtime = node.runtime
        transports = Transports(runtime.config.transports, runtime.context(log), runtime.config.where)
        posts = []
        links = Links(runtime, transports, posts.append, log)
        yield links, posts, node
        links.close()
        transports.close()


@pytest.fixture
def turned(links, monkeypatch):
    """The names of the peers that are turned."""
    names = []
    for name, pusher in links[0].pushers.items():
        monkeypatch.setattr(
            pusher, "turn", lambda *rest, name=name, turn=pusher.turn: names.append(name) or turn(*rest)
        )
    return names


def test_a_turn_looks_only_at_peers_with_something_to_do(links, turned):
    """At first all are looked at; later only those for which something waits, not the thousand quiet ones."""
    links, _, node = links
    links.turn()
    assert len(turned) == 30
    del turned[:]
    links.turn()
    assert turned == []
    node.send(b"x", to="p7")
    links.turn()
    assert turned == ["p7"]


def test_a_quiet_peer_is_looked_at_when_it_is_held_or_all_shall_be_tried(links, turned):
    """A change in the store, a word of the peer, and `retry` each end the quiet."""
    links, _, node = links
    links.turn()
    del turned[:]
    node.outbox.hold("p3", "a reason")
    links.turn()
    assert turned == ["p3"]
    del turned[:]
    links.reset_backoff(None)
    links.turn()
    assert len(turned) == 30


def test_what_a_peer_answers_ends_its_quiet(links, turned):
    """An answer to a quiet peer's announcement is followed by a turn of that peer, and of no other."""
    links, posts, _ = links
    links.turn()
    links.announce()
    links.turn()  # greets all thirty; nobody listens
    del turned[:]
    links.turn()
    assert turned == []
    assert any(posts or time.sleep(0.005) for _ in range(12_000))
    posts.pop(0)()
    links.turn()
    assert len(turned) == 1


def test_the_report_says_what_went_wrong_with_a_peer_and_since_when(links):
    """Also after the peer works again: state with its beginning, last error, and what is in flight."""
    links, posts, node = links
    node.send(b"x", to="p7")
    links.turn()
    assert any(posts or time.sleep(0.005) for _ in range(12_000))
    while posts:
        posts.pop(0)()
    told = links.report()["p7"]
    assert told["state"] == "resting"
    assert told["since"] <= node.runtime.clock.now()
    assert "nobody listens there" in told["moving"]["error"]
    assert told["moving"]["failed_at"] <= node.runtime.clock.now()
    assert (told["moving"]["answered_at"], told["moving"]["in_flight"]) == (None, 0)
    assert links.report()["p8"]["moving"]["error"] == ""
