"""A node on several machines: what belongs to the node is the same on each, and one wakes the others."""

import threading
import time

import pytest
from support.nodes import eventually
from support.site import Site

from dropr_core.errors import ConfigError, UsageError
from dropr_core.protocol.invitation import new_invitation
from dropr_core.schedules.definitions import Definitions
from dropr_core.serving.invitations import Invitations
from dropr_core.serving.node_secret import FetchingPeers, node_secret


@pytest.fixture
def site(tmp_path):
    made = Site(tmp_path)
    yield made
    made.close()


def test_machines_are_one_node(site):
    """All have the node's id, whichever was first; a machine of another node is refused."""
    one, two = site.machine(), site.machine()
    assert one.runtime.node_id == two.runtime.node_id
    with pytest.raises(ConfigError, match="belongs to the node ware"):
        site.machine(node="shop")


def test_a_notification_wakes_who_waits_on_another_machine(site):
    """It comes at once, and not by the look after some seconds."""
    one, two = site.machine(), site.machine()
    with two.runtime.notifier.subscribe("outbox") as subscription:
        subscription.prepare()
        threading.Timer(0.05, lambda: one.runtime.notifier.notify("outbox")).start()
        began = time.monotonic()
        while not subscription.wait(4.0):
            assert time.monotonic() - began < 60, "nobody woke it"


def test_a_pause_counts_on_every_machine(site):
    """Paused on one, its consumers get nothing on the other; its times are those of each machine's own clock."""
    one, two = site.machine(), site.machine()
    one.runtime.clock.now(), two.runtime.clock.now()
    made = one.runtime.pauses.pause("orders", 600.0, "moving house")
    assert two.runtime.pauses.unpaused(["orders", "news"]) == ["news"]
    seen = two.runtime.pauses.now()["orders"]
    assert seen.reason == "moving house"
    assert seen.until - two.runtime.clock.now() == pytest.approx(made.until - one.runtime.clock.now(), abs=60.0)
    assert two.runtime.pauses.unpause("orders")
    eventually(lambda: one.runtime.pauses.unpaused(["orders"]) == ["orders"], what="the pause is over on both")
    assert not (site.directory / "machine-0" / "paused.json").exists()


def test_a_pause_serves_where_the_store_does_not_answer(site):
    """What was known of it counts; a change says clearly that it cannot be made."""
    one = site.machine()
    one.runtime.pauses.pause("orders")
    assert one.runtime.pauses.unpaused(["orders"]) == []
    site.lines[0].cut()
    assert one.runtime.pauses.unpaused(["orders"]) == []
    site.lines[0].mend()


def test_subscriptions_schedules_and_invitations_are_the_nodes(site):
    """Whatever is added on one machine is there on the other, and used up once."""
    one, two = site.machine().runtime, site.machine().runtime
    Definitions(one.config, one.documents).add("nightly", {"every": "1d", "channel": "jobs", "text": "go"})
    assert Definitions(two.config, two.documents).is_added("nightly")
    with pytest.raises(UsageError, match="there already"):
        Definitions(two.config, two.documents).add("nightly", {"every": "1d", "channel": "jobs", "text": "go"})
    invitation = new_invitation("ware", "rome", ("http://127.0.0.1:1",), ("",))
    Invitations(one.documents).add(invitation, 900.0, None)
    assert [record.name for record in Invitations(two.documents).all()] == ["rome"]
    assert Invitations(two.documents).revoke("rome") == 1
    assert Invitations(one.documents).find(invitation.id) is None


def test_servers_of_all_machines_know_one_secret(site):
    """Two that begin at once agree about it, and about who has begun to fetch."""
    one, two = site.machine().runtime, site.machine().runtime
    found = []

    def read(runtime):
        found.append(node_secret(runtime.documents, runtime.clock).read())

    threads = [threading.Thread(target=read, args=(runtime,)) for runtime in (one, two, one, two)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    assert len(found) == 4
    assert len(set(found)) == 1
    assert FetchingPeers(one.documents).newest("rome") is None


def test_a_word_to_the_daemon_reaches_the_machine_where_it_works(site):
    """`dropr retry` on one machine is heard by a daemon on another."""
    one, two = site.machine().runtime, site.machine().runtime
    with two.notifier.subscribe("control"):
        one.retry_now("rome")
        assert (two.run_directory / "nudge" / b"rome".hex()).exists()
