"""Typed channels and typed handlers: who sends or handles a wrong value is told which field is wrong."""

import asyncio
import dataclasses
import datetime as dt
import sys
import textwrap

import attrs
import msgspec
import pydantic
import pytest

import dropr_core as dropr
from dropr_core.api.node import Node
from dropr_core.config.node import parse
from dropr_core.contracts.handler import Work
from dropr_core.contracts.value_type import ValueType
from dropr_core.errors import ConfigError, PluginError, ProtocolError, UsageError
from dropr_core.plugin.rehearsal import rehearse

YAML = """
node: shop
storage: memory
limits: {min_free: 0}
peers: {w: {url: "http://127.0.0.1:9", key: "0123456789abcdef0123"}}
"""


@dataclasses.dataclass
class Line:
    sku: int
    count: int = 1


@dataclasses.dataclass
class DataOrder:
    customer: str
    lines: list[Line]
    due: dt.date | None = None


@attrs.frozen
class AttrsOrder:
    customer: str = attrs.field(validator=attrs.validators.min_len(1))
    lines: list[Line] = attrs.field(factory=list)
    due: dt.date | None = None


class StructOrder(msgspec.Struct):
    customer: str
    lines: list[Line]
    due: dt.date | None = None


class ModelLine(pydantic.BaseModel):
    sku: int
    count: int = 1


class ModelOrder(pydantic.BaseModel):
    customer: str
    lines: list[ModelLine]
    due: dt.date | None = None


KINDS = [DataOrder, AttrsOrder, StructOrder, ModelOrder]
GOOD = {"customer": "ada", "lines": [{"sku": 7, "count": 2}], "due": "2026-11-27"}
BAD = {"customer": "ada", "lines": [{"sku": "seven"}]}


@pytest.fixture
def modules(tmp_path, monkeypatch):
    """A function that writes a module of the user's, which can be imported until the test ends."""
    monkeypatch.syspath_prepend(str(tmp_path))
    made = []

    def write(name, text):
        (tmp_path / f"{name}.py").write_text(textwrap.dedent(text))
        made.append(name)
        return name

    yield write
    for name in made:
        sys.modules.pop(name, None)


@pytest.mark.parametrize("kind", KINDS)
def test_each_library_checks_and_makes_values_and_names_the_wrong_field(kind):
    """An instance and a mapping become the same plain value, and that an instance; a wrong field is named."""
    held = ValueType(kind, "orders")
    made = held.make(GOOD)
    assert isinstance(made, kind)
    assert (made.customer, made.lines[0].sku, made.due) == ("ada", 7, dt.date(2026, 11, 27))
    assert held.plain(made) == held.plain(GOOD) == GOOD
    for call, error in ((held.make, ProtocolError), (held.plain, UsageError)):
        with pytest.raises(error, match=rf"this is no {kind.__name__}: lines(\[0\]|\.0)\.sku: ") as caught:
            call(BAD)
        assert "seven" not in str(caught.value)
    with pytest.raises(UsageError, match="customer"):
        held.plain({"lines": []})
    with pytest.raises(UsageError, match=f"this is no {kind.__name__}"):
        held.plain(object())


def test_instances_whose_fields_are_wrong_are_refused_too():
    """Dataclasses check nothing when they are made; `send` does. Validators and converters of attrs count."""
    with pytest.raises(UsageError, match="customer: expected `str`, got `int`"):
        ValueType(DataOrder, "x").plain(DataOrder(1, []))
    with pytest.raises(ProtocolError, match="customer"):
        ValueType(AttrsOrder, "x").make({"customer": ""})

    @attrs.define
    class Tagged:
        tags: list[str] = attrs.field(converter=sorted)

    assert ValueType(Tagged, "x").make({"tags": ["b", "a"]}).tags == ["a", "b"]


def test_what_is_no_type_is_told_at_once():
    """A class of the user's that nobody can hold a value against, and an annotation that means nothing."""

    class Own:
        pass

    with pytest.raises(PluginError, match=r"Own is no type that a value can be held against; use a dataclass"):
        ValueType(Own, "channels.orders.type")

    @dataclasses.dataclass
    class Broken:
        sku: "Nowhere"  # noqa: F821

    with pytest.raises(PluginError, match="Broken cannot be used as a type: NameError"):
        ValueType(Broken, "x")


def test_a_typed_channel(tmp_path, modules):
    """send, batch and put refuse what is no order and store nothing; who receives gets an order; files are refused."""
    name = modules("models_of_test", """
        import dataclasses

        @dataclasses.dataclass
        class Order:
            sku: int
    """)  # fmt: skip
    config = parse(YAML + f"channels:\n  orders: {{to: w, type: '{name}:Order'}}\n", tmp_path)
    with Node.open(config) as node:
        for call in (lambda v: node.send(v, channel="orders"), lambda v: node.put(v, channel="orders")):
            with pytest.raises(UsageError, match=r"channel orders: this is no Order: sku: expected `int`, got `str`"):
                call({"sku": "x"})
        with pytest.raises(UsageError, match="this is no Order"), node.batch() as batch:
            batch.send(b"raw", channel="orders")
        with pytest.raises(UsageError, match="a file is no models_of_test:Order"):
            node.send(tmp_path / "file", channel="orders")
        assert not node.outbox.lanes()
        sent = node.send({"sku": 7}, channel="orders")
        assert node.find(sent.id).status.state == "queued"
        node.put({"sku": 8}, channel="orders")
        (value,) = [message.value for message in node.receive("orders", wait=0)]
        assert (type(value).__name__, value.sku) == ("Order", 8)


def test_check_finds_a_type_that_is_not_there(tmp_path, modules):
    """No module, no class of that name, a class that is no type: each before any process starts."""
    modules("models_of_check", "class Order: pass")
    for target, words in (
        ("nowhere_at_all:Order", "there is no module nowhere_at_all"),
        ("models_of_check:Ordr", "has no type Ordr; did you mean 'Order'"),
        ("models_of_check:Order", "is no type that a value can be held against"),
    ):
        config = parse(YAML + f"channels:\n  orders: {{to: w, type: '{target}'}}\n", tmp_path)
        assert any(words in problem for problem in rehearse(config)), target
    with pytest.raises(ConfigError, match="names nothing in a module"):
        parse(YAML + "channels:\n  orders: {type: Order}\n", tmp_path)


# ── handlers ─────────────────────────────────────────────────────────────────────────────────────


@pytest.fixture
def node(tmp_path):
    with Node.open(parse(YAML + "channels: {orders: {serializer: json}, notes: {}}\n", tmp_path)) as opened:
        yield opened


def test_registered_functions_get_what_they_name(node):
    """Nothing or Work: the work; a type: the value as one of it, and the work as second argument. Results go home."""
    got = []

    @node.on("orders")
    def typed(order: AttrsOrder, work: Work):
        got.append((order.customer, work.attempt))

    @node.on("notes", "more")
    def plain(work):
        got.append(work.body)

    node.put({"customer": "ada"}, channel="orders")
    node.put(b"n", channel="notes")
    node.put(b"m", channel="more")
    assert node.work(wait=0) == 3
    assert sorted(got, key=str) == [("ada", 1), b"m", b"n"]
    with pytest.raises(UsageError, match="channel notes has a handler already"):
        node.on("notes")(print)


def test_a_value_that_does_not_fit_is_buried_with_the_field(node, caplog):
    """The handler is not called for it, and it is not tried again; the next message is handled."""
    calls = []

    @node.on("orders")
    def typed(order: StructOrder):
        calls.append(order.customer)

    node.put(BAD, channel="orders")
    node.put({"customer": "bob", "lines": []}, channel="orders")
    assert node.work(wait=0) == 2
    assert calls == ["bob"]
    assert "is buried: this is no StructOrder: lines[0].sku: expected `int`, got `str`" in caplog.text


def test_failures_and_retries_of_registered_functions(node):
    """An exception is a failed attempt, Retry comes back, Reject buries: as in a worker."""
    tries = []

    @node.on("notes")
    def handle(work):
        tries.append(work.body)
        if work.body == b"later" and work.attempt == 1:
            raise dropr.Retry("not yet", after=0)
        if work.body == b"never":
            raise dropr.Reject("no")

    node.put(b"later", channel="notes")
    node.put(b"never", channel="notes")
    assert node.work(wait=0.2) == 3
    assert sorted(tries) == [b"later", b"later", b"never"]


def test_marked_functions_are_found_in_modules(node, modules):
    """Functions of a module marked with `dropr.on`, async ones too; none, or two of a channel, is a mistake."""
    name = modules("tasks_of_test", """
        import dropr_core as dropr

        DONE = []

        @dropr.on("orders")
        async def order(value: dict[str, int]):
            DONE.append(value)

        @dropr.on("notes")
        def note(text: str):
            DONE.append(text)
    """)  # fmt: skip
    assert set(node.handlers(name)) == {"orders", "notes"}
    node.put({"sku": 1}, channel="orders")
    node.put("hello", channel="notes")
    assert node.work(wait=0) == 2
    assert sorted(sys.modules[name].DONE, key=str) == ["hello", {"sku": 1}]
    with pytest.raises(ConfigError, match="no function in nothing_marked is marked"):
        node.handlers(modules("nothing_marked", "def f(work): pass"))
    with pytest.raises(PluginError, match="a and b are both marked for channel x"):
        node.handlers(modules("both_marked", """
            import dropr_core as dropr

            @dropr.on("x")
            def a(work): pass

            @dropr.on("x")
            def b(work): pass
        """))  # fmt: skip


def test_work_without_handlers_is_told(node):
    """Nothing registered: an error with what to do, not an endless wait."""
    with pytest.raises(UsageError, match="no handler is registered"):
        node.work(wait=0)


def test_the_same_in_an_event_loop(tmp_path):
    """Async functions are awaited on the caller's loop, others in a thread; a cancelled one goes back uncounted."""

    async def scenario():
        async with dropr.aopen(parse(YAML, tmp_path)) as node:
            loop, got, begun = asyncio.get_running_loop(), [], asyncio.Event()

            @node.on("a")
            async def awaited(value: str):
                got.append((value, asyncio.get_running_loop() is loop))
                if value == "long":
                    begun.set()
                    await asyncio.Event().wait()

            @node.on("b")
            def called(value: str):
                got.append((value, False))

            await node.put("one", channel="a")
            await node.put("two", channel="b")
            assert await node.work(wait=0) == 2
            assert sorted(got) == [("one", True), ("two", False)]
            await node.put("long", channel="a")
            task = asyncio.create_task(node.work())
            await asyncio.wait_for(begun.wait(), 30)
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)
            assert [message.attempt async for message in node.receive("a", wait=0)] == [1]

    asyncio.run(scenario())


def test_an_annotation_that_means_nothing_is_told(node):
    """A name that is only there for type checkers: the function is refused when it is registered."""

    def lost(order: "NoSuchOrder"):  # noqa: F821
        raise AssertionError

    with pytest.raises(PluginError, match="annotated as 'NoSuchOrder', which means nothing"):
        node.on("orders")(lost)

    def fine(work: "dropr.NoSuch.Work"):
        pass

    node.on("orders")(fine)
