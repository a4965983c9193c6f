"""The story of a message: what this node knows, the order of events, and the sentence about where it is."""

import json

import pytest
from support.one_node import Peer, open_node

from dropr_core.errors import Refused
from dropr_core.model.names import MessageId
from dropr_core.monitor.asking import Told, _Question, ask_peers
from dropr_core.monitor.story import Queued, Sent, Story, local_story
from dropr_core.monitor.timeline import timeline, whereabouts
from dropr_core.protocol import messages as wire


@pytest.fixture
def node(tmp_path):
    with open_node(
        tmp_path, channels={"jobs": {"attempts": 2, "retry_backoff_min": "5m", "retry_backoff_max": "10m"}}
    ) as opened:
        yield opened


def identity_of(sent):
    return MessageId(bytes.fromhex(sent.id.replace("-", "")))


def test_what_waits_says_how_many_go_first_and_how_its_peer_is(node, monkeypatch):
    """The place in the lane, and what the daemon tells of the peer."""
    for _ in range(3):
        last = node.send(b"x", to="berlin", channel="orders")
    report = {"peers": {"berlin": {"state": "resting", "failures": 4, "next_try": None,
                                   "moving": {"error": "no route", "failed_at": 0.0}}}}  # fmt: skip
    monkeypatch.setattr("dropr_core.monitor.story.daemon_report", lambda _node: report)
    story = local_story(node.runtime, identity_of(last))
    (sent,) = story.deliveries
    assert (sent.state, sent.before, sent.link, sent.failures, sent.last_error) == (
        "queued", 2, "resting", 4, "no route",
    )  # fmt: skip
    events = timeline(story, [])
    assert [event.at is None for event in events] == [False, True]
    assert "2 before it" in events[1].what
    assert "berlin cannot be reached now after 4 tries" in events[1].details[0]
    assert "waits here for berlin" in whereabouts(story, [])[0]


def test_a_held_peer_is_named_with_what_ends_it(node):
    """A message for a peer that is held waits for a person."""
    sent = node.send(b"x", to="berlin", channel="orders")
    node.outbox.hold("berlin", "moving house")
    story = local_story(node.runtime, identity_of(sent))
    assert (story.deliveries[0].state, story.deliveries[0].reason) == ("held", "moving house")
    assert "dropr release berlin" in whereabouts(story, [])[0]
    node.outbox.hold("berlin", "configuration: no transport for its url")
    (line,) = whereabouts(local_story(node.runtime, identity_of(sent)), [])
    assert "until the configuration is mended" in line
    assert "release" not in line


def test_attempts_and_their_errors_are_told(node):
    """Each failed attempt has its line, and what comes next is said."""
    (identity,) = Peer(node).push(b"x")
    for _ in node.receive("jobs", limit=1, wait=0, on_error="continue"):
        with _:
            raise ValueError("no such thing")
    story = local_story(node.runtime, identity)
    (job,) = story.inbox
    assert (job.state, job.attempts) == ("delayed", 1)
    assert "no such thing" in job.errors[0]
    assert job.due_in > 0
    (_sent, came, waits) = timeline(story, [])
    assert "came from berlin into the queue jobs" in came.what
    assert waits.details[0].startswith("attempt 1: ValueError")
    assert "it is here, delayed" in whereabouts(story, [])[0]


def test_a_message_of_which_nothing_is_known_is_an_empty_story(node):
    """Nothing is made up."""
    story = local_story(node.runtime, MessageId(b"?" * 16))
    assert not story.known
    assert timeline(story, []) == []
    assert whereabouts(story, []) == []


SENT = {"peer": "ware", "channel": "jobs", "priority": 5, "sequence": 7, "sent_at": 10.0, "ended_at": 20.0,
        "reason": "", "receipt": True}  # fmt: skip
QUEUED = {"sender": "shop", "channel": "jobs", "priority": 5, "arrived_at": None, "ended_at": 15.0, "attempts": 1,
          "errors": ()}  # fmt: skip


def story_of(**fields):
    return Story(id="01", node="shop", message=None, deliveries=(Sent(**(SENT | fields)),), inbox=())


@pytest.mark.parametrize(
    ("mine", "told", "says"),
    [
        ({"state": "failed"}, {"inbox": (Queued(state="buried", **QUEUED),)}, "buried at ware"),
        ({"state": "failed"}, {"problem": "no route"}, "could not be asked whether it lies buried"),
        ({"state": "failed"}, {}, "dropr redrive --id 01"),
        ({"state": "dead"}, {}, "dropr redrive --id 01"),
        ({"state": "accepted", "ended_at": None}, {}, "ware has it, or has done it"),
        ({"state": "accepted", "ended_at": None},
         {"inbox": (Queued(state="leased", consumer="worker-1-2", **QUEUED),)}, "is being handled by worker-1-2"),
    ],
)  # fmt: skip
def test_where_it_is_says_what_can_be_done_and_nothing_that_does_it_twice(mine, told, says):
    """A redrive is proposed only where the peer was asked and does not have it any more."""
    (line,) = whereabouts(story_of(**mine), [Told(peer="ware", **told)])
    assert says in line
    assert ("dropr redrive" in line) == ("dropr redrive" in says)


def test_what_went_well_needs_nobody():
    """A processed message, and one that is done, say no more than that."""
    done = Told(peer="ware", inbox=(Queued(state="done", **QUEUED),))
    assert whereabouts(story_of(state="processed", result=3), [done]) == []
    events = timeline(story_of(state="processed", result=3), [done])
    assert [(event.at, event.node) for event in events] == [(10.0, "shop"), (15.0, "ware"), (20.0, "shop")]
    assert "with a result of 3 bytes" in events[-1].what


def test_whoever_cannot_be_asked_is_said_at_once(tmp_path):
    """A peer without an address, and one that is not in the configuration any more."""
    peers = {"laptop": {"mode": "pull", "key": "k" * 40}}
    with open_node(tmp_path, peers=peers, groups={}) as node:
        laptop, gone = ask_peers(node.runtime, MessageId(b"?" * 16), ["laptop", "gone"])
    assert "only calls" in laptop.problem
    assert "no longer in the configuration" in gone.problem


def test_an_older_peer_is_named_as_one(tmp_path):
    """Its refusal is no trouble: it cannot be asked, and there is another way."""
    with open_node(tmp_path) as node:
        found = {}
        question = _Question(
            node.runtime, None, "berlin", MessageId(b"?" * 16), 1.0, lambda _call: None, found.__setitem__, []
        )
        question._traced(Refused("unsupported", "verb 'trace' is not known to this node", signed=True))
    assert "older version" in found["berlin"].problem
    assert "dropr show" in found["berlin"].problem


def test_a_story_is_json(node):
    """All of it can be sent and kept."""
    sent = node.send(b"x", to="berlin", channel="orders")
    document = local_story(node.runtime, identity_of(sent)).as_dict()
    assert json.loads(json.dumps(document))["deliveries"][0]["peer"] == "berlin"


def test_a_peer_that_tells_too_much_is_cut(tmp_path):
    """What a strange peer answers to is bounded before it is kept or shown."""
    job = wire.TracedJob("jobs", 5, "buried", 1.0, 3, "x\n" * 100_000)
    with open_node(tmp_path) as node:
        found = {}
        question = _Question(
            node.runtime, None, "berlin", MessageId(b"?" * 16), 1.0, lambda _call: None, found.__setitem__, []
        )
        question._traced(wire.Traced([], [job] * 1000))
    told = found["berlin"]
    assert len(told.inbox) == 16
    assert sum(map(len, told.inbox[0].errors)) <= 16_384
