"""The border to a handler: whatever it answers or raises, the message is settled and nothing else suffers."""

import contextlib
import logging
import math
from datetime import timedelta

import pytest

from dropr_core.api.consumer import Consumer
from dropr_core.api.handler_call import call
from dropr_core.api.node import Node
from dropr_core.api.received import Received
from dropr_core.api.runtime import Runtime
from dropr_core.cli.logs import Line
from dropr_core.config.node import from_mapping
from dropr_core.contracts.handler import Failed, Handler, NoResult
from dropr_core.contracts.storage import Ack, Bury, Release
from dropr_core.errors import ProtocolError, Reject, Retry
from dropr_core.model.limits import MAX_REASON, MAX_RESULT

LOG = logging.getLogger("dropr.test.worker")


class Scripted(Handler):
    """Returns or raises what it was made with."""

    def __init__(self, answer):
        self.answer, self.calls = answer, 0

    def handle(self, work):
        self.calls += 1
        if isinstance(self.answer, BaseException):
            raise self.answer
        return self.answer(work) if callable(self.answer) else self.answer


@pytest.fixture
def runtime(tmp_path):
    mapping = {"node": "ware", "data": str(tmp_path / "data"), "storage": "memory", "limits": {"min_free": 0},
               "channels": {"jobs": {"attempts": 3, "retry_backoff_min": "7s", "retry_backoff_max": "7s"}}}  # fmt: skip
    with Runtime.open(from_mapping(mapping, tmp_path)) as opened:
        yield opened


@pytest.fixture
def received(runtime):
    """One leased message."""
    Node(runtime).put(b"x", channel="jobs")
    consumer = Consumer(runtime, ["jobs"])
    (message,) = consumer.claim()
    yield message
    consumer.close()


def settled(received, answer):
    """The settlement for an answer, and its proof: the storage takes it."""
    change = call(Scripted(answer), received, LOG)
    received.apply(change)
    return change


class Loop(list):
    """Contains itself."""


def looped():
    one = Loop()
    one.append(one)
    return one


class Evil:
    """Nothing about it works."""

    def __repr__(self):
        raise RuntimeError("no repr")

    __str__ = __repr__


class EvilError(Exception):
    """Its text cannot be had."""

    def __str__(self):
        raise ValueError("no text")


def deep(levels):
    value = []
    for _ in range(levels):
        value = [value]
    return value


@pytest.mark.parametrize(
    "result",
    [object(), Evil(), float("nan"), looped(), deep(50_000), "x" * (MAX_RESULT + 1), b"x" * (MAX_RESULT + 1), "\ud800",
     NoResult("an answer of \ud800 bytes"), {"a": {1, object()}}, (number for number in ()), {Evil: 1}],
    ids=["object", "evil", "nan", "loop", "deep", "long text", "long bytes", "surrogate", "no result",
         "nested", "generator", "key"],
)  # fmt: skip
def test_done_work_is_not_repeated_for_its_result(received, caplog, result):
    """A result that cannot travel is reported in the receipt and in the log; the message is acknowledged."""
    change = settled(received, result)
    assert isinstance(change, Ack)
    assert change.result is None
    assert change.reason.startswith("processed, but its result cannot be sent: ")
    assert f"{received.id} on jobs: processed, but its result cannot be sent: " in caplog.text


def test_a_result_that_can_travel_does(received):
    """What JSON carries goes home as JSON, and nothing is said besides."""
    change = settled(received, {"sku": 7})
    assert change == Ack(received.claim, b'{"sku":7}', "application/json", 0.0, "")


@pytest.mark.parametrize(
    ("after", "seconds"),
    [(None, 7.0), (0, 0.0), (2.5, 2.5), ("5m", 300.0), (timedelta(seconds=1), 1.0)],
)  # fmt: skip
def test_any_duration_may_be_asked_for(received, after, seconds):
    """`Retry` takes what every duration is given by; without one the channel's backoff goes."""
    assert settled(received, Retry("later", after=after)) == Release(received.claim, seconds, "later")


@pytest.mark.parametrize(
    "after", [math.inf, math.nan, -1, "soon", "", b"5m", object(), Evil(), timedelta(days=10**6), 10**400, True]
)
def test_what_is_no_duration_means_the_usual_backoff_and_is_said(received, caplog, after):
    """A wrong delay neither ends the worker nor puts the message off for ever."""
    change = settled(received, Retry("later", after=after))
    assert isinstance(change, Release)
    assert change.delay == 7.0
    assert change.reason.startswith("later (")
    assert "tried again after the usual time" in caplog.text


@pytest.mark.parametrize(
    "error",
    [ValueError("lone \udcff surrogate"), EvilError(), ValueError("x" * 10**6), ValueError("\0\x1b[2J\n\n"),
     SystemExit(3), KeyboardInterrupt(), RecursionError(), MemoryError(), ExceptionGroup("many", [ValueError("one")]),
     StopIteration(),     UnicodeDecodeError("utf-8", b"\xff", 0, 1, "bad"), GeneratorExit()],
    ids=lambda error: type(error).__name__,
)  # fmt: skip
def test_whatever_is_raised_is_a_failed_attempt(received, error):
    """An exception of any kind, with any text, is one failed attempt with a reason that can be stored."""
    change = settled(received, error)
    assert isinstance(change, Release)
    assert (change.delay, change.counted) == (7.0, True)
    assert change.reason.startswith(type(error).__name__)
    assert len(change.reason.encode()) <= MAX_REASON


@pytest.mark.parametrize(("error", "kind"), [(ValueError("cause"), Release), (KeyError("cause"), Bury)])
def test_a_handler_may_tell_what_code_of_somebody_else_raised(tmp_path, error, kind):
    """`Failed`: its report is the reason, cut to what can be stored; rules of `retry` look at the exception in it."""
    mapping = {"node": "ware", "data": str(tmp_path / "data"), "storage": "memory", "limits": {"min_free": 0},
               "channels": {"jobs": {"retry": {"KeyError": "bury"}}}}  # fmt: skip
    with Runtime.open(from_mapping(mapping, tmp_path)) as opened:
        Node(opened).put(b"x", channel="jobs")
        consumer = Consumer(opened, ["jobs"])
        (message,) = consumer.claim()
        change = settled(message, Failed(error, "the report" * 1000))
        assert isinstance(change, kind)
        assert change.reason.startswith("the report")
        assert len(change.reason.encode()) <= MAX_REASON
        consumer.close()


@pytest.mark.parametrize("error", [Reject("no such article \udcff"), Reject(), ProtocolError("not JSON")])
def test_what_can_never_work_is_buried(received, caplog, error):
    """`Reject`, and a body that its serializer cannot read, go to the dead letters at once."""
    change = settled(received, error)
    assert isinstance(change, Bury)
    assert change.reason
    assert f"{received.id} on jobs is buried: " in caplog.text


def test_the_place_of_a_failure_is_kept_and_logged(received, tmp_path, monkeypatch, caplog):
    """File and line of the user's code stand in the reason, its traceback in the log at the default level, and what
    happens next is said; nothing of dropr's own frames, nothing about the machine.
    """
    (tmp_path / "shop").mkdir()
    (tmp_path / "shop" / "__init__.py").touch()
    (tmp_path / "shop" / "returns.py").write_text(
        "import json\ndef restock(work):\n    return parse('{')\ndef parse(text):\n    return json.loads(text)\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    import shop.returns  # type: ignore[import-not-found]

    change = settled(received, shop.returns.restock)
    assert change.reason.startswith("JSONDecodeError: Expecting property name")
    assert change.reason.endswith("(shop/returns.py:5)")
    (record,) = [record for record in caplog.records if record.name == LOG.name]
    assert record.levelno == logging.WARNING
    assert "; attempt 1 of 3, next try in 7 s" in record.getMessage()
    shown = Line("worker").format(record).splitlines()
    assert shown[0].count(str(tmp_path)) == 0
    assert any("in restock" in line for line in shown)
    assert any("returns.py" in line and "line 5" in line for line in shown)
    assert not any("api/handler_call.py" in line for line in shown)


def test_the_frames_of_dropr_are_no_traceback(received, caplog):
    """What fails within dropr, as a message that cannot be read, is one line: its frames tell a user nothing."""
    broken = Received(received._runtime, received.claim._replace(envelope=b"no envelope"), False)
    call(Scripted(None), broken, LOG)
    assert caplog.records[-1].exc_info is None
    assert " failed: error: not enough data" in caplog.records[-1].getMessage()


def test_the_last_attempt_says_that_it_was(runtime, caplog):
    """When attempts are used up the log says buried, and what to do."""
    Node(runtime).put(b"x", channel="jobs")
    for _ in range(3):
        with contextlib.closing(Consumer(runtime, ["jobs"])) as consumer:
            (received,) = consumer.claim()
            change = call(Scripted(ValueError("no")), received, LOG)
            received.apply(change if isinstance(change, Bury) else change._replace(delay=0.0))
    assert isinstance(change, Bury)
    assert f"; attempt 3 of 3, buried: see 'dropr show {received.id}'" in caplog.text
