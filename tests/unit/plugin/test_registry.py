"""Finding, checking and building plugins; observers under their guard."""

import importlib
import logging
import sys
import textwrap

import pytest
from stevedore import ExtensionManager

from dropr_core.api.node import Node
from dropr_core.builtin.serializers.json import Json
from dropr_core.contracts.context import Context
from dropr_core.errors import ConfigError, PluginError, UsageError
from dropr_core.model.facts import MessageFacts, facts_of
from dropr_core.model.names import MessageId, parse_id
from dropr_core.plugin import observers as told
from dropr_core.plugin import registry as plugins
from dropr_core.plugin.observers import Observers
from dropr_core.plugin.registry import create, find, installed, transport_for
from dropr_core.system.clock import FakeClock


@pytest.fixture
def context(tmp_path):
    return Context("shop", tmp_path, FakeClock(), logging.getLogger("test.plugins"))


@pytest.fixture
def install(tmp_path, monkeypatch):
    """install(distribution, kind, name, code, version=...) puts a package into a directory of its own."""
    monkeypatch.setattr(ExtensionManager, "ENTRY_POINT_CACHE", {})
    monkeypatch.setattr("stevedore._cache._c._disable_caching", True)
    made = []

    def install(distribution, kind, name, code, version="1.2.3"):
        module = f"dropr_test_{distribution.replace('-', '_')}"
        site = tmp_path / f"site-{distribution}"
        info = site / f"{distribution}-{version}.dist-info"
        info.mkdir(parents=True)
        (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {distribution}\nVersion: {version}\n")
        (info / "entry_points.txt").write_text(f"[dropr.{kind}]\n{name} = {module}\n")
        (site / f"{module}.py").write_text("from dropr_core.hookspecs import hookimpl\n" + textwrap.dedent(code))
        monkeypatch.syspath_prepend(str(site))
        importlib.invalidate_caches()
        ExtensionManager.ENTRY_POINT_CACHE.clear()
        made.append(module)
        return module

    yield install
    for module in made:
        sys.modules.pop(module, None)


GOOD = """
    import attrs
    from dropr_core import options as fields
    from dropr_core.contracts.serializer import Serializer

    @attrs.frozen(kw_only=True)
    class Options:
        prefix: str = fields.option("p", doc="Put before everything.")

    class Prefix(Serializer):
        content_type = "text/x-prefix"
        def __init__(self, options, context): self.options, self.context = options, context
        def dumps(self, value): return (self.options.prefix + value).encode()
        def loads(self, data): return data.decode()
        def __bool__(self): return False

    @hookimpl
    def dropr_serializer(options, context): return Prefix(options, context)
"""


def test_a_plugin_is_found_built_with_its_options_and_the_context(install, context):
    """The YAML's mapping becomes the plugin's Options; an instance that is falsy is still that instance."""
    module = install("prefix-pack", "serializer", "prefix", GOOD)
    assert module not in sys.modules
    instance = create("serializer", "prefix", {"prefix": "x-"}, context)
    assert instance.dumps("y") == b"x-y"
    assert instance.context is context
    assert create("serializer", "prefix", None, context).dumps("y") == b"py"
    assert create("serializer", "prefix", instance.options, context).options is instance.options
    found = find("serializer", "prefix")
    assert (found.distribution, found.version, found.module.__name__) == ("prefix-pack", "1.2.3", module)


def test_only_what_is_named_is_imported(install, context):
    """A broken plugin that nobody names does no harm, and is not even imported."""
    module = install("bomb", "serializer", "bomb", "raise RuntimeError('boom')")
    assert isinstance(create("serializer", "json", {}, context), Json)
    assert module not in sys.modules


def test_what_was_installed_a_moment_ago_is_found(install, context):
    """The memory of the finder may be behind; the packages themselves are the truth."""
    install("prefix-pack", "serializer", "prefix", GOOD)
    ExtensionManager.ENTRY_POINT_CACHE["dropr.serializer"] = []
    assert create("serializer", "prefix", {}, context).dumps("y") == b"py"


def test_wrong_options_are_said_at_their_place(install, context):
    """Mistakes in a plugin's options look like every other mistake of the configuration."""
    install("prefix-pack", "serializer", "prefix", GOOD)
    with pytest.raises(ConfigError, match=r"channels\.a\.serializer\.prefx.*did you mean 'prefix'"):
        create("serializer", "prefix", {"prefx": "x"}, context, where="channels.a.serializer")
    with pytest.raises(ConfigError, match="storage: serializer 'json' takes no options; remove a, b"):
        create("serializer", "json", {"a": 1, "b": 2}, context, where="storage")


@pytest.mark.parametrize(
    ("kind", "name", "says"),
    [
        ("serializer", "jsn", "did you mean 'json'?"),
        ("storage", "elsewhere", "pip install dropr-storage-elsewhere"),
        ("observer", "x", "observer 'x' is not installed"),
        ("serialiser", "json", "there is no kind of plugin 'serialiser'; did you mean 'serializer'?"),
    ],
)
def test_a_missing_plugin_says_what_to_do(kind, name, says, monkeypatch):
    """The error names what is installed, or the package to install."""
    monkeypatch.setitem(plugins._PACKAGES, ("storage", "elsewhere"), "dropr-storage-elsewhere")
    with pytest.raises(PluginError) as caught:
        find(kind, name)
    assert says in str(caught.value)


@pytest.mark.parametrize("kind", ["serializer", "observer"])
@pytest.mark.parametrize(
    ("code", "says"),
    [
        ("import dropr_no_such_library", "ModuleNotFoundError: No module named 'dropr_no_such_library'"),
        ("raise SystemExit(3)", "cannot be imported: SystemExit: 3"),
        ("assert False, 'oh'", "cannot be imported: AssertionError: oh"),
        ("DROPR_CONTRACT = 2", "is written for contract 2 of dropr, this dropr speaks 1; upgrade dropr-core"),
        ("@hookimpl\ndef dropr_serializer(option, context): ...", "option"),
        ("@hookimpl\ndef dropr_serialiser(options): ...", "dropr_serialiser"),
        ("", "tell its author"),
        ("Options = 5\n@hookimpl\ndef dropr_serializer(): ...", "has Options that are no attrs class"),
    ],
)
def test_a_broken_plugin_says_which_and_why(install, context, kind, code, says):
    """The error names kind, name, package, version, module and the original trouble; it is never a traceback."""
    module = install("bad-pack", kind, "bad", code)
    with pytest.raises(PluginError) as caught:
        if kind == "observer":
            Observers().add("bad", {}, context)
        else:
            create(kind, "bad", {}, context)
    assert str(caught.value).startswith(f"{kind} 'bad' (bad-pack 1.2.3, {module}) ")
    assert says in str(caught.value)
    assert "\n" not in str(caught.value)


HOLES = """
    from dropr_core.contracts.serializer import Serializer
    @Serializer.register
    class Bad:
        content_type = "x/y"
        def dumps(self, value): ...
    class Abstract(Serializer):
        content_type = "x/y"
        def dumps(self, value): ...
    class Typeless(Serializer):
        def dumps(self, value): ...
        def loads(self, data): ...
"""


@pytest.mark.parametrize(
    ("maker", "says"),
    [
        ("None", "made nothing and no Serializer"),
        ("'text'", "made a str and no Serializer"),
        ("Bad()", "lacks loads of Serializer"),
        ("Typeless()", "lacks content_type of Serializer"),
        ("Abstract()", "cannot be started: TypeError: Can't instantiate abstract class Abstract"),
        ("1 / 0", "cannot be started: ZeroDivisionError: division by zero"),
        ("exit(1)", "cannot be started: SystemExit: 1"),
    ],
)
def test_what_does_not_keep_the_contract_is_refused_before_use(install, context, maker, says):
    """Every abstract method must be there: the check is at the start and not at the first message."""
    code = f"{textwrap.dedent(HOLES)}\n@hookimpl\ndef dropr_serializer(): return {maker}\n"
    install("bad-pack", "serializer", "bad", code)
    with pytest.raises(PluginError) as caught:
        create("serializer", "bad", {}, context)
    assert says in str(caught.value)
    assert "bad-pack 1.2.3" in str(caught.value)


def test_an_error_of_dropr_from_a_plugin_passes_through(install, context):
    """A plugin that says itself what is wrong is not talked over."""
    code = """
        from dropr_core.errors import UsageError
        @hookimpl
        def dropr_serializer(): raise UsageError("the file x is missing; make it")
    """
    install("says-it", "serializer", "says", code)
    with pytest.raises(UsageError, match=r"^the file x is missing; make it$"):
        create("serializer", "says", {}, context)


def test_a_name_claimed_twice_is_refused_naming_both(install):
    """Which of two packages is meant is not for us to guess."""
    install("one-pack", "serializer", "same", GOOD)
    install("two-pack", "serializer", "same", GOOD, version="2.0")
    with pytest.raises(PluginError, match="claimed by") as caught:
        find("serializer", "same")
    assert "one-pack 1.2.3" in str(caught.value)
    assert "two-pack 2.0" in str(caught.value)


def test_a_name_claimed_twice_is_refused_although_one_is_broken(install):
    """A broken claimant does not make the other the one that is meant."""
    install("one-pack", "serializer", "same", GOOD)
    install("two-pack", "serializer", "same", "import dropr_no_such_library")
    with pytest.raises(PluginError, match="claimed by"):
        find("serializer", "same")


def test_the_list_of_what_is_installed_has_the_broken_ones_too(install):
    """`dropr plugins` shows everything with its package, abilities, or the reason why it cannot be used."""
    install("bad-pack", "storage", "bad", "import dropr_no_such_library")
    able = """
        from dropr_core.contracts.storage import Storage
        class S(Storage): abilities = frozenset({"durable", "a"})
    """
    install("able-pack", "storage", "able", able)
    lines = {(line.kind, line.name): line for line in installed()}
    assert "dropr_no_such_library" in lines["storage", "bad"].error
    assert lines["storage", "bad"].distribution == "bad-pack"
    assert lines["storage", "able"].abilities == ("a", "durable")
    assert lines["serializer", "json"].distribution == "dropr-core"
    assert lines["serializer", "json"].error == ""
    assert {"bytes", "text", "json", "python", "webhook", "command"} <= {name for _, name in lines}


def test_a_url_scheme_picks_its_transport(install):
    """Usual schemes import nothing; a transport that the YAML names wins; unknown ones are searched for."""
    module = install("pigeon-pack", "transport", "pigeon", "SCHEMES = ('pigeon', 'https')")
    assert transport_for("https") == "curl"
    assert transport_for("zmq+tcp") == "zmq"
    assert module not in sys.modules
    assert transport_for("https", ["curl", "pigeon"]) == "pigeon"
    assert transport_for("pigeon") == "pigeon"
    with pytest.raises(PluginError, match="no installed transport serves 'pigeo://'; did you mean 'pigeon'"):
        transport_for("pigeo")


def test_a_scheme_claimed_by_two_transports_must_be_decided(install):
    """Between two installed claimants the YAML decides."""
    install("one-pack", "transport", "one", "SCHEMES = ('x',)")
    cls = """
        from dropr_core.contracts.transport import Transport
        class T(Transport): schemes = ("x",)
    """
    install("two-pack", "transport", "two", cls)
    install("three-pack", "transport", "three", "import dropr_no_such_library")
    with pytest.raises(PluginError, match="claimed by the transports one and two"):
        transport_for("x")
    assert transport_for("x", ["two"]) == "two"
    with pytest.raises(PluginError, match="dropr_no_such_library"):
        transport_for("y")


# ── observers ────────────────────────────────────────────────────────────────────────────────────

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
