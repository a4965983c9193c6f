"""Observers under their guard: found, called with what they ask for, and harmless when they fail."""

import sys

import pytest

from dropr_core.api.node import Node
from dropr_core.errors import ConfigError, PluginError
from dropr_core.model.facts import MessageFacts, facts_of
from dropr_core.model.names import MessageId, parse_id
from dropr_core.plugin import observers as told
from dropr_core.plugin.observers import Observers

NOTES = """
    import attrs
    from dropr_core import options as fields
    NOTES = []

    @attrs.frozen(kw_only=True)
    class Options:
        tag: str = fields.option("", doc="Goes with every note.")

    class Notes:
        def __init__(self, tag): self.tag = tag
        @hookimpl
        def dropr_peer_down(self, peer, reason): NOTES.append((self.tag, peer, reason))
        @hookimpl
        def dropr_store_event(self, node, event, details):
            NOTES.append((self.tag, node, event, dict(details)))
            details["changed"] = 1
        def close(self): NOTES.append("closed")

    @hookimpl
    def dropr_observer(options): return Notes(options.tag)
"""
MODULE = """
    NOTES = []
    @hookimpl
    def dropr_peer_down(node, peer, reason): NOTES.append((node, peer, reason))
"""
LOUD = """
    @hookimpl
    def dropr_peer_down(node): raise RuntimeError("loud")
    @hookimpl
    def dropr_peer_up(node): raise SystemExit(1)
"""


def test_observers_are_told_and_one_that_raises_stops_nobody(install, context, caplog):
    """A raising observer is logged (ever more rarely) and the others are told all the same."""
    install("loud-pack", "observer", "loud", LOUD)
    notes = install("notes-pack", "observer", "notes", NOTES)
    plain = install("plain-pack", "observer", "plain", MODULE)
    observers = Observers()
    assert not observers.present
    observers.call("dropr_peer_up", node="shop", peer="berlin")
    for name, options in (("loud", {}), ("notes", {"tag": "t"}), ("plain", None)):
        observers.add(name, options, context)
    assert observers.present
    for _ in range(5):
        observers.tell("shop", "peer_down", {"peer": "berlin", "reason": "no route"})
    observers.call("dropr_peer_up", node="shop", peer="berlin")
    assert sys.modules[notes].NOTES == [("t", "berlin", "no route")] * 5
    assert sys.modules[plain].NOTES == [("shop", "berlin", "no route")] * 5
    logged = [record.args[:2] for record in caplog.records]
    assert logged == [("loud", "dropr_peer_down")] * 3 + [("loud", "dropr_peer_up")]


def test_an_event_without_a_hook_of_its_own_is_a_store_event(install, context, caplog):
    """New events reach old observers; what an observer does to the details reaches nobody else."""
    notes = install("notes-pack", "observer", "notes", NOTES)
    observers = Observers()
    observers.add("notes", {}, context)
    details = {"error": "x"}
    observers.tell("shop", "corrupt", details)
    assert details == {"error": "x"}
    assert sys.modules[notes].NOTES == [("", "shop", "corrupt", {"error": "x"})]
    assert "'mappingproxy' object does not support item assignment" in caplog.text
    observers.close()
    observers.close()
    assert sys.modules[notes].NOTES[1:] == ["closed"]
    assert not observers.present


def node_file(tmp_path, observers):
    """A configuration with these observers; where the file stands is part of its mistakes."""
    file = tmp_path / "node.yaml"
    file.write_text(f"node: shop\nstorage: memory\nlimits: {{min_free: 0}}\nobservers:\n{observers}")
    return file


def test_a_mistake_in_an_observers_options_names_file_and_line(install, tmp_path):
    """What is wrong with an observer's options is said like every other mistake of the file."""
    install("notes-pack", "observer", "notes", NOTES)
    install("plain-pack", "observer", "plain", MODULE)
    file = node_file(tmp_path, "  - plain\n  - use: notes\n    tga: x\n")
    with pytest.raises(ConfigError, match=r"node\.yaml:7: observers\[1\]\.tga: .*did you mean 'tag'"):
        Node.open(file)


def test_observers_are_closed_with_their_node(install, tmp_path):
    """Closing a node closes its observers, and so does an opening that fails half-way."""
    notes = install("notes-pack", "observer", "notes", NOTES)
    file = node_file(tmp_path, "  - notes\n")
    with Node.open(file):
        assert sys.modules[notes].NOTES == []
    assert sys.modules[notes].NOTES == ["closed"]
    file.write_text(file.read_text().replace("storage: memory", "storage: no-such-thing"))
    with pytest.raises(PluginError, match="no-such-thing"):
        Node.open(file)
    assert sys.modules[notes].NOTES == ["closed"] * 2


def test_an_event_that_lacks_an_argument_is_told_with_none(install, context, caplog):
    """A caller that tells less than a hook promises does not silence the hook."""
    code = """
        NOTES = []
        @hookimpl
        def dropr_batch_accepted(peer, count): NOTES.append((peer, count))
    """
    module = install("count-pack", "observer", "count", code)
    observers = Observers()
    observers.add("count", {}, context)
    observers.tell("shop", "batch_accepted", {"peer": "berlin", "lane": "x"})
    assert sys.modules[module].NOTES == [("berlin", None)]
    assert caplog.records == []


def test_every_event_hook_is_known():
    """The hooks that the architecture names are all there."""
    names = ("message_queued", "batch_accepted", "peer_down", "peer_up", "message_claimed", "message_settled")
    assert {f"dropr_{name}" for name in names} == told._EVENTS.keys()


CARRIER = """
    import contextlib
    NOTES = []
    @contextlib.contextmanager
    def around(name):
        NOTES.append(f"enter {name}")
        try:
            yield
        except Exception as error:
            NOTES.append(repr(error))
            raise
        finally:
            NOTES.append(f"leave {name}")
    @hookimpl
    def dropr_message_headers(node, channel): return {"traceparent": f"00-{node}-{channel}"}
    @hookimpl
    def dropr_message_handling(facts, attempt): return around(f"{facts.channel} {attempt}")
"""
WRONG = """
    import contextlib
    class Wrong:
        def __enter__(self): raise ValueError("wrong at the door")
        def __exit__(self, *_): pass
    class Greedy:
        def __enter__(self): pass
        def __exit__(self, *_): return True
    @hookimpl
    def dropr_message_headers(node, channel): return {"password": "x", "traceparent": "mine"}
    @hookimpl
    def dropr_message_handling(facts, attempt): return Wrong() if attempt == 1 else Greedy()
"""
FACTS = MessageFacts(MessageId(b"m" * 16), "shop", "orders", {}, 0.0, 1)


def test_headers_go_along_with_what_is_sent(install, context):
    """Those of every observer that has some; one that only watches adds none."""
    install("carry-pack", "observer", "carry", CARRIER)
    install("plain-pack", "observer", "plain", MODULE)
    observers = Observers()
    observers.add("plain", {}, context)
    assert not observers.propagating
    assert not observers.embracing
    observers.add("carry", {}, context)
    assert observers.propagating
    assert observers.headers("shop", "orders") == {"traceparent": "00-shop-orders"}


def test_a_propagator_that_is_wrong_disturbs_nobody(install, context, caplog):
    """Headers that may not be added, a context that cannot be entered, one that swallows: logged, and nothing else."""
    module = install("carry-pack", "observer", "carry", CARRIER)
    install("wrong-pack", "observer", "wrong", WRONG)
    observers = Observers()
    observers.add("wrong", {}, context)
    observers.add("carry", {}, context)
    assert observers.headers("shop", "orders") == {"traceparent": "00-shop-orders"}
    assert "observer 'wrong' raised in dropr_message_headers" in caplog.text
    for attempt in (1, 2):
        with pytest.raises(LookupError, match="of the handler"), observers.handling("shop", FACTS, attempt):
            raise LookupError("of the handler")
    assert "observer 'wrong' raised in dropr_message_handling" in caplog.text
    error = "LookupError('of the handler')"
    assert [
        "enter orders 1", error, "leave orders 1", "enter orders 2", error, "leave orders 2",
    ] == sys.modules[module].NOTES  # fmt: skip


def test_the_context_of_a_message_is_not_part_of_what_it_says(install, tmp_path):
    """Sent again under the same key, in another trace, it is the same message; a header of the sender's own counts."""
    code = """
        COUNT = []
        @hookimpl
        def dropr_message_headers(node, channel):
            COUNT.append(1)
            return {"traceparent": f"trace {len(COUNT)}"}
    """
    install("carry-pack", "observer", "carry", code)
    file = node_file(tmp_path, "  - carry\npeers: {berlin: {url: 'http://127.0.0.1:9', key: '" + "k" * 40 + "'}}\n")
    with Node.open(file) as node:
        first = node.send(b"x", to="berlin", channel="orders", dedup_key="one")
        again = node.send(b"x", to="berlin", channel="orders", dedup_key="one")
        assert again.existed
        assert again.id == first.id
        own = node.send(b"x", to="berlin", channel="orders", headers={"traceparent": "mine", "a": "b"})
        plain = node.send(b"x", to="berlin", channel="orders")
        node.put(b"x", channel="local")
        headers = [facts_of(node.outbox.envelope(parse_id(one.id))).headers for one in (first, own, plain)]
        assert headers == [{"traceparent": "trace 1"}, {"traceparent": "mine", "a": "b"}, {"traceparent": "trace 3"}]
        assert [one.headers for one in node.receive("local", wait=0)] == [{"traceparent": "trace 4"}]
