"""The transport by itself, through Kombu's own API, with a node on the disk and no worker."""

import os
import socket
import threading

import pytest
from dropr_kombu.address import channel_of, config_of
from kombu import Consumer, Exchange, Queue
from kombu.asynchronous import Hub
from kombu.exceptions import OperationalError
from kombu_rig import TASKS, send, take
from support.nodes import eventually

import dropr_core
from dropr_core.contracts.storage import Selection
from dropr_core.errors import StoreBusy, TooBig, UnknownPeer, UsageError, WriteFailed
from dropr_core.model.message import State


def buried(node):
    """Reasons of the dead letters."""
    return [one.reason for one in node.inbox.all(Selection(states=frozenset({State.BURIED})))]


def test_a_message_arrives_as_it_was_published(connect, node_file):
    """Body, headers and properties are those of the publisher, whatever bytes they are."""
    connection = connect(node_file())
    send(connection, {"é": [1, None]}, headers={"x": "ü\n"}, correlation_id="c-1", reply_to="somewhere")
    send(connection, b"\x00\xff\n\n", content_type="application/octet-stream", content_encoding="binary")
    message = take(connection)
    assert message.payload == {"é": [1, None]}
    assert message.headers == {"x": "ü\n"}
    assert (message.properties["correlation_id"], message.properties["reply_to"]) == ("c-1", "somewhere")
    assert message.delivery_info["redelivered"] is False
    message.ack()
    raw = take(connection)
    assert raw.body == b"\x00\xff\n\n"
    raw.ack()
    assert take(connection) is None


def test_properties_that_amqp_does_not_have_stay_behind(connect, node_file):
    """Programs hand `publish` whatever they were called with; a broker takes no notice, and nor do we."""
    connection = connect(node_file())
    send(connection, 1, signal=object(), app_id="shop")
    properties = take(connection).properties
    assert properties["app_id"] == "shop"
    assert "signal" not in properties


def test_a_large_body_arrives(connect, node_file):
    """A body beyond what stands in an envelope is as good as any."""
    connection = connect(node_file(limits={"min_free": 0, "inline_body": "1KiB"}))
    send(connection, "x" * 200_000)
    message = take(connection)
    assert message.payload == "x" * 200_000
    message.ack()


def test_nine_comes_first_as_with_rabbitmq(connect, node_file):
    """Celery's priorities keep their order, none is the last, and each is told as it was given."""
    connection = connect(node_file())
    for priority in (None, 3, 9, 0, 5):
        send(connection, priority, priority=priority)
    got = [take(connection) for _ in range(5)]
    assert [message.payload for message in got] == [9, 5, 3, None, 0]
    assert [message.properties["priority"] for message in got] == [9, 5, 3, 0, 0]


def test_zero_comes_first_as_with_redis_if_the_application_says_so(connect, node_file):
    """Who comes from Redis keeps the numbers that stand in his code."""
    connection = connect(node_file(), priority_order="redis")
    for priority in (5, 0, 9):
        send(connection, priority, priority=priority)
    assert [take(connection).payload for _ in range(3)] == [0, 5, 9]


def test_a_rejected_message_is_a_dead_letter(connect, node_file):
    """It does not vanish: it is in the list of dead letters, with the reason."""
    connection = connect(node_file())
    send(connection, 1)
    take(connection).reject(requeue=False)
    assert buried(connection.connection.node) == ["rejected by Celery's worker"]


def test_a_message_that_is_given_back_comes_again_and_ends_as_a_dead_letter(connect, node_file):
    """Each time is an attempt; after those of the channel it is buried, and goes round no more."""
    connection = connect(node_file(channels={"tasks": {"attempts": 2, "retry_backoff_min": "1ms"}}))
    send(connection, 1)
    take(connection).reject(requeue=True)
    again = take(connection, timeout=30)
    assert again.delivery_info["redelivered"] is True
    again.reject(requeue=True)
    assert take(connection) is None
    assert len(buried(connection.connection.node)) == 1


def test_what_nobody_can_read_is_a_dead_letter_although_celery_acknowledges_it(connect, node_file):
    """Celery logs such a message and acknowledges it; it is kept for a person."""
    connection = connect(node_file())
    send(connection, b"{no json", content_type="application/json", content_encoding="utf-8")
    message = take_undecoded(connection)
    with pytest.raises(Exception, match=r"JSON|Expecting"):
        message.decode()
    message.ack()
    (reason,) = buried(connection.connection.node)
    assert reason.startswith("undecodable: DecodeError")


def take_undecoded(connection):
    """The next message as Celery's consumer gets it."""
    found = []
    with Consumer(connection.default_channel, [TASKS], on_message=found.append):
        connection.drain_events(timeout=1)
    return found[0]


@pytest.mark.parametrize("body", [b"hello", b"[1]\nx", b'{"properties": 1}\nx', b'{"properties": {}, "headers": 1}\n'])
def test_what_is_no_message_of_kombu_is_a_dead_letter(connect, node_file, body):
    """Another program of the node may put anything on the channel: it is buried, and the next message comes."""
    connection = connect(node_file())
    connection.connect()
    connection.connection.node.put(body, channel="tasks", priority=0)
    send(connection, "good")
    assert take(connection).payload == "good"
    assert buried(connection.connection.node)[0].startswith("not a message of Kombu")


def test_a_closed_connection_gives_back_what_it_had(connect, node_file):
    """It is ready for others at once, and that was no attempt."""
    path = node_file()
    first, other = connect(path), connect(path)
    send(first, 1)
    assert take(first).payload == 1
    assert take(other) is None
    first.release()
    assert take(other, timeout=30).delivery_info["redelivered"] is False


def test_no_more_is_handed_out_than_was_asked_for(connect, node_file):
    """The prefetch count holds, and an acknowledgement makes room, from whichever thread it comes."""
    connection = connect(node_file())
    for number in range(5):
        send(connection, number)
    channel, got = connection.default_channel, []
    channel.basic_qos(0, 2, False)
    with Consumer(channel, [TASKS], callbacks=[lambda _, message: got.append(message)]):
        for _ in range(2):
            connection.drain_events(timeout=30)
        with pytest.raises(socket.timeout):
            connection.drain_events(timeout=0.01)
        thread = threading.Timer(0.05, got[0].ack)
        thread.start()
        connection.drain_events(timeout=30)
        thread.join()
    assert [message.payload for message in got] == [0, 1, 2]


def test_the_length_of_a_queue_and_purging_it(connect, node_file):
    """What a monitor asks for: how many wait; and `celery purge` says how many it took away."""
    connection = connect(node_file())
    for number in range(3):
        send(connection, number)
    channel = connection.default_channel
    assert channel.queue_declare("tasks", passive=True).message_count == 3
    assert channel.queue_purge("tasks") == 3
    assert channel.queue_declare("tasks", passive=True).message_count == 0
    assert take(connection) is None


WAREHOUSE = {"warehouse": {"url": "http://127.0.0.1:9", "key": "0123456789abcdef0123"}}


def test_a_queue_goes_where_the_yaml_sends_its_channel(connect, node_file):
    """No word of it in the application: it waits in the outbox, is counted and can be purged there."""
    connection = connect(node_file(peers=WAREHOUSE, channels={"tasks": {"to": "warehouse"}}))
    for number in range(2):
        send(connection, number)
    channel, node = connection.default_channel, connection.connection.node
    assert {(one.peer, one.channel) for one in node.outbox.all(Selection())} == {("warehouse", "tasks")}
    assert channel.queue_declare("tasks", passive=True).message_count == 2
    assert channel.queue_purge("tasks") == 2
    assert channel.queue_declare("tasks", passive=True).message_count == 0


def test_a_queue_goes_where_the_application_sends_it(connect, node_file):
    """`broker_transport_options` name a peer, and a channel if it shall be another one; nothing keeps a queue here."""
    path = node_file(peers=WAREHOUSE, channels={"here": {"to": "warehouse"}})
    queues = {"tasks": {"to": ["warehouse"], "channel": "jobs"}, "here": None}
    connection = connect(path, queues=queues)
    send(connection, 1)
    send(connection, 2, Queue("here", Exchange("here"), routing_key="here"))
    node = connection.connection.node
    assert [(one.peer, one.channel) for one in node.outbox.all(Selection())] == [("warehouse", "jobs")]
    assert node.inbox.counts()["here"]["ready"] == 1


@pytest.mark.parametrize("queues", [["tasks"], {"tasks": 7}, {"tasks": {"peer": "x"}}])
def test_wrong_options_are_said(connect, node_file, queues):
    """A mistake in `broker_transport_options` is an error with words, at the first use."""
    connection = connect(node_file(), queues=queues)
    with pytest.raises(UsageError, match="queue"):
        send(connection, 1)


def test_a_peer_that_nobody_knows_is_said_at_once(connect, node_file):
    """The application's mistake is not tried again for ever."""
    connection = connect(node_file(), queues={"tasks": "nobody"})
    with pytest.raises(UnknownPeer, match="nobody"):
        send(connection, 1)
    with pytest.raises(UnknownPeer, match="nobody"):
        send(connection, 1, retry=True)


def test_a_channel_with_a_serializer_takes_no_tasks(connect, node_file):
    """The message says what to change in the YAML."""
    connection = connect(node_file(channels={"tasks": {"serializer": "json"}}))
    with pytest.raises(UsageError, match="has a serializer"):
        send(connection, 1)


def test_a_full_queue_is_an_operational_error_once_celery_gave_up(connect, node_file):
    """Celery tries as often as `task_publish_retry_policy` says; nothing was stored then."""
    connection = connect(node_file(channels={"tasks": {"max_messages": 1}}))
    send(connection, 1)
    policy = {"max_retries": 1, "interval_start": 0, "interval_step": 0, "interval_max": 0}
    with pytest.raises(OperationalError, match="tasks"):
        send(connection, 2, retry=True, retry_policy=policy)
    assert take(connection).payload == 1


def test_what_is_too_big_is_said_and_not_tried_again(connect, node_file):
    """It will not be smaller the next time."""
    connection = connect(node_file(limits={"min_free": 0, "max_body": "1000B"}))
    with pytest.raises(TooBig):
        send(connection, "x" * 2000, retry=True)


def test_a_message_with_an_expiration_expires(connect, node_file):
    """AMQP's expiration is kept by the node: nobody gets it any more."""
    connection = connect(node_file())
    send(connection, 1, expiration=0.001)
    send(connection, 2)
    assert take(connection, timeout=30).payload == 2


def test_a_store_that_fails_at_an_acknowledgement_gets_it_later(connect, node_file, monkeypatch):
    """Celery forgets a message whose acknowledgement failed; it is tried again until it stands."""
    connection = connect(node_file())
    send(connection, 1)
    message = take(connection)
    inbox = connection.connection.node.inbox
    with monkeypatch.context() as patch:
        patch.setattr(inbox, "settle", raise_busy)
        message.ack()
    assert list(inbox.all(Selection()))
    assert take(connection) is None  # looking for more settles it
    assert list(inbox.all(Selection())) == []


def raise_busy(*_args):
    raise StoreBusy("somebody else writes")


def test_the_store_in_trouble_is_a_lost_connection_for_celery(connect, node_file, monkeypatch):
    """So that its worker comes back by itself, with backoff."""
    connection = connect(node_file())
    send(connection, 1)
    assert issubclass(WriteFailed, connection.connection_errors)
    monkeypatch.setattr(connection.connection.node.inbox, "claim_at_once", raise_busy)
    with pytest.raises(StoreBusy):
        take(connection)


def test_a_wrong_yaml_file_is_said(connect, tmp_path):
    """Not a broker that cannot be reached: trying again would not help."""
    connection = connect(tmp_path / "none.yaml")
    with pytest.raises(dropr_core.DroprError, match=r"none\.yaml"):
        connection.ensure_connection(max_retries=1)


def test_what_urls_mean(monkeypatch, tmp_path):
    """An absolute path, one below the working directory, and the file of $DROPR_CONFIG."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("DROPR_CONFIG", raising=False)
    assert str(config_of("dropr:///etc/my%20shop.yaml")) == "/etc/my shop.yaml"
    assert config_of("dropr://shop.yaml") == tmp_path / "shop.yaml"
    with pytest.raises(UsageError, match="names no node"):
        config_of("dropr://")
    monkeypatch.setenv("DROPR_CONFIG", "/etc/shop.yaml")
    assert str(config_of("dropr://")) == "/etc/shop.yaml"


def test_any_queue_has_a_channel():
    """Names that a channel may not have get one of their own, always the same, and no two the same."""
    assert channel_of("celery") == "celery"
    names = ["a@b", "a b", "ä", "x" * 500, "..", "", "a:b"]
    channels = [channel_of(name) for name in names]
    assert len(set(channels)) == len(names)
    assert channels == [channel_of(name) for name in names]
    assert all(dropr_core.model.names.is_channel(one) for one in channels)


# ── forks and event loops ────────────────────────────────────────────────────────────────────────


def test_a_forked_child_publishes_with_the_connection_of_its_parent(connect, node_file):
    """As under gunicorn with a preloaded application: the child opens the node anew, and both go on."""
    connection = connect(node_file())
    send(connection, "parent")
    child = os.fork()
    if child == 0:
        status = 1
        try:
            send(connection, "child")
            status = 0
        finally:
            os._exit(status)
    assert os.waitpid(child, 0)[1] == 0
    send(connection, "parent again")
    got = [take(connection) for _ in range(3)]
    assert [message.payload for message in got] == ["parent", "child", "parent again"]


def test_an_event_loop_sleeps_until_something_comes(connect, node_file, monkeypatch):
    """With nothing to do the store is not asked; a message, an acknowledgement and a mailbox wake the loop."""
    path = node_file()
    worker, sender = connect(path), connect(path)
    hub, got = Hub(), []
    hub.call_repeatedly(0.02, lambda: None)  # so that a turn of the loop ends soon
    channel = worker.default_channel
    channel.basic_qos(0, 1, False)
    with Consumer(channel, [TASKS], callbacks=[lambda _, message: got.append(message)]):
        worker.transport.register_with_event_loop(worker.connection, hub)
        loop, looks = hub.create_loop(), []
        for tick in list(hub.on_tick):
            tick()
        source = channel.sources["tasks"]
        monkeypatch.setattr(source, "take", lambda limit, take=source.take: looks.append(limit) or take(limit))
        for tick in hub.on_tick:
            for _ in range(10):
                tick()
        assert looks == []
        send(sender, 1)
        send(sender, 2)
        eventually(lambda: next(loop) or got, what="the first message")
        assert len(got) == 1
        asked = len(looks)
        for tick in list(hub.on_tick):
            tick()
        assert len(looks) == asked  # there is no room: it is not asked again
        threading.Timer(0.02, got[0].ack).start()
        eventually(lambda: next(loop) or len(got) == 2, what="the second message")
        worker.transport.unregister_from_event_loop(worker.connection, hub)
    assert (hub.readers, hub.on_tick) == ({}, set())
    hub.close()


def test_a_delayed_message_wakes_the_loop_when_it_is_due(connect, node_file):
    """With `eta_in_queue` a task waits in the store instead of in the worker's memory."""
    connection = connect(node_file(), eta_in_queue=True)
    from datetime import UTC, datetime, timedelta

    send(connection, 1, headers={"task": "t", "id": "1", "eta": (datetime.now(UTC) + timedelta(days=3)).isoformat()})
    send(
        connection, 2, headers={"task": "t", "id": "2", "eta": (datetime.now(UTC) + timedelta(seconds=0.2)).isoformat()}
    )
    hub, got = Hub(), []
    with Consumer(connection.default_channel, [TASKS], callbacks=[lambda body, _: got.append(body)], no_ack=True):
        connection.transport.register_with_event_loop(connection.connection, hub)
        loop = hub.create_loop()
        eventually(lambda: next(loop) or got, what="the due one")
        connection.transport.unregister_from_event_loop(connection.connection, hub)
    hub.close()
    assert got == [2]
    assert {one.state for one in connection.connection.node.inbox.all(Selection())} == {State.DELAYED}
