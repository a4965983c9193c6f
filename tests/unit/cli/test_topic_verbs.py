"""The verbs topics, subscribe and unsubscribe."""

from dropr_core.api.node import Node


def test_subscribe_and_unsubscribe(run, told, file):
    """A subscription is listed with its channel and what waits there, and ends with its queue."""
    Node.open(file).close()
    assert told("topics") == {"topics": []}
    assert "no topics" in run("topics").stdout
    assert told("subscribe", "prices", "audit") == {
        "topic": "prices", "name": "audit", "channel": "prices/audit", "at": ""
    }  # fmt: skip
    with Node.open(file) as node:
        node.put("x", channel="prices/audit")
        node.publish("prices", b"y")
    (prices,) = told("topics")["topics"]
    assert (prices["topic"], prices["waiting"]) == ("prices", 1)
    assert prices["subscriptions"] == [
        {"name": "audit", "peer": "", "channel": "prices/audit", "waiting": 1, "overflow": 0}
    ]
    assert "prices/audit" in run("topics").stdout
    assert told("unsubscribe", "prices", "audit")["discarded"] == 1
    assert told("topics")["topics"] == []


def test_subscribing_elsewhere_asks_by_a_message(run, told):
    """`--at` names the publisher; the request waits for it like any message."""
    assert "berlin is asked" in run("subscribe", "prices", "audit", "--at", "berlin").stdout
    (asked,) = told("list")["messages"]
    assert (asked["peer"], asked["channel"]) == ("berlin", "dropr/topics")


def test_a_bad_name_is_a_usage_error(run):
    """Exit 64 and what would be right."""
    assert "its name" in run("subscribe", "prices", "a/b").stderr
