"""Finding, checking and building plugins."""

import sys
import textwrap

import pytest
from stevedore import ExtensionManager

from dropr_core.builtin.serializers.json import Json
from dropr_core.errors import ConfigError, PluginError, UsageError
from dropr_core.plugin import registry as plugins
from dropr_core.plugin.observers import Observers
from dropr_core.plugin.registry import create, find, installed, transport_for

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
