"""`retry:` of a channel: what becomes of a message depends on what was raised, in a loop and in a worker alike."""

import logging
import subprocess

import pytest
import requests
from support.one_node import open_node, pass_time

from dropr_core.api.handler_call import call
from dropr_core.api.retry_rules import rule_for
from dropr_core.contracts.handler import Handler
from dropr_core.contracts.storage import Bury, Release
from dropr_core.errors import ConfigError, Retry

RULES = {
    "requests.ConnectionError": {"attempts": 3, "backoff_min": "7s", "backoff_max": "1h"},
    "OSError": {"attempts": 4},
    "ValueError": "bury",
    "nowhere.at.all.Error": "bury",
}
LOG = logging.getLogger("test")


@pytest.fixture
def node(tmp_path):
    """A node whose channel has rules, and two attempts without one."""
    with open_node(tmp_path, channels={"jobs": {"attempts": 2, "retry_backoff_min": "1s", "retry": RULES}}) as node:
        yield node


class Failing(Handler):
    """Raises what it is told to."""

    def __init__(self, error):
        self.error = error

    def handle(self, work):
        """Fail."""
        raise self.error


def in_a_worker(node, error):
    """Try once; the change that the worker settles with."""
    consumer = node.consumer("jobs")
    try:
        (received,) = consumer.claim()
        change = call(Failing(error), received, LOG)
        received.apply(change)
    finally:
        consumer.close()
    return change


def in_a_loop(node, error):
    """The same in a receiving loop; the change is read from the store."""
    for message in node.receive("jobs", wait=0, on_error="continue", limit=1):
        claim = message.claim
        with message:
            raise error
    job = node.inbox.status(claim.id)
    return Bury(claim) if str(job.state) == "buried" else Release(claim, float(round(job.due_in)))


@pytest.mark.parametrize("way", [in_a_worker, in_a_loop])
@pytest.mark.parametrize(
    ("error", "tries", "first_rest"),
    [
        (ValueError("wrong"), 1, None),
        (UnicodeDecodeError("utf-8", b"", 0, 1, "wrong"), 1, None),  # a subclass
        (requests.exceptions.ConnectTimeout("down"), 3, 7.0),  # named as code imports it, not by its module
        (ConnectionResetError("gone"), 4, 1.0),
        (KeyError("other"), 2, 1.0),
        (requests.exceptions.HTTPError("500"), 4, 1.0),  # an OSError, and no ConnectionError
    ],
)
def test_the_nearest_rule_says_how_often_and_how_soon(node, way, error, tries, first_rest):
    """Attempts and rests of the rule; those of the channel where no rule names the exception or says a number."""
    node.put(b"x", channel="jobs")
    changes = []
    for _ in range(tries):
        changes.append(way(node, error))
        pass_time(node, 4000)
    assert [type(change) for change in changes] == [Release] * (tries - 1) + [Bury]
    if first_rest is not None:
        assert changes[0].delay == first_rest
    assert node.inbox.counts()["jobs"]["buried"] == 1


def test_what_asks_for_another_try_by_itself_is_not_asked_about(node):
    """`Retry` is no failure of a kind."""
    node.put(b"x", channel="jobs")
    assert in_a_worker(node, Retry("later", after=9)).delay == 9.0


def test_rules_import_nothing():
    """A name whose module nobody has loaded names nobody; broken names neither."""
    assert rule_for({"nowhere.Error": 1, "xml.dom.minidom.Nothing": 2, "os.path": 3, "len": 4}, ValueError()) is None
    assert rule_for({"subprocess.SubprocessError": 1, "Exception": 2}, subprocess.TimeoutExpired("x", 1)) == 1


def test_when_a_process_dies_the_largest_number_counts(node):
    """There is no exception to ask about, and a message that is tried patiently is not buried by a restart."""
    assert node.runtime.attempts == {"jobs": 4}


def test_wrong_rules_come_all_at_once(tmp_path):
    """Each with its place and what would be right."""
    wrong = {
        "ValeError": "bury", "a b": "bury", "x.Y": "burry", "x.Z": {"attempts": 0}, "len": "bury",
        "x.W": {"backoff_min": "1h", "backoff_max": "1m"},
    }  # fmt: skip
    with pytest.raises(ConfigError) as caught:
        open_node(tmp_path, channels={"jobs": {"retry": wrong}})
    told = str(caught.value)
    for says in ("did you mean 'ValueError'", "is no name of an exception", "expected bury, or a mapping", "too small"):
        assert says in told
    with pytest.raises(ConfigError, match="backoff_min is more than its backoff_max"):
        open_node(tmp_path, channels={"jobs": {"retry": {"x.W": wrong["x.W"]}}})
