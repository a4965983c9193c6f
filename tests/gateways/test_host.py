"""What the host does for every gateway: shown with one that has the smallest dialect there can be."""

import contextlib
import os
import signal
import subprocess
import sys
import urllib.request

import pytest
from support.nodes import Road, eventually, free_port
from support.talk import Talk
from support.tiny_gateway import install

from dropr_core.system.presence import living

pytestmark = pytest.mark.e2e

TINY = {"tiny": {"listen": "tcp://127.0.0.1:0"}}


@pytest.fixture
def road(tmp_path):
    """Nodes that find the plugin `tiny`; whatever they started is gone after the test."""
    road = Road(tmp_path)
    road.env.update(install(tmp_path / "site"))
    yield road
    road.close()


@pytest.fixture
def place(road):
    """A node alone, its gateway running."""
    (place,) = road.build("shop", shop={"gateways": TINY})
    place.run("gateway")
    return place


def url_of(place):
    """Where the gateway `tiny` listens."""
    return place.doors()["tiny"][0]


def number_of(answer):
    """The job number in an answer."""
    return answer.split()[1]


def test_what_one_connection_puts_another_takes(place):
    """A job goes from one connection to another; acknowledged, it is gone for good."""
    with Talk(url_of(place)) as one, Talk(url_of(place)) as two:
        number = number_of(one.ask("put mail 0 hello"))
        assert two.ask("take mail 0 0") == f"job {number} 1 hello"
        assert one.ask("take mail 0 0") == "none"
        assert one.ask(f"ack {number}") == "gone"
        assert two.ask(f"ack {number}") == "ok"
        assert two.ask(f"ack {number}") == "gone"
        assert two.ask("count mail") == "count 0 0 0 0"


def test_python_takes_what_a_gateway_stored_and_the_other_way_round(place):
    """The inbox is the node's own: the Python API and the gateway work on the same messages."""
    with Talk(url_of(place)) as talk, place.opened() as node:
        talk.ask("put mail 0 from-a-gateway")
        for message in node.receive("mail", limit=1, timeout=30):
            assert (message.body, message.sender) == (b"from-a-gateway", "shop")
        node.put(b"from-python", channel="mail")
        assert talk.ask("take mail 30 0").endswith(" from-python")


def test_who_waits_is_woken_by_a_put_from_anywhere(place):
    """A connection that waits gets what another connection or another process puts."""
    with Talk(url_of(place)) as one, Talk(url_of(place)) as two, place.opened() as node:
        one.say("take mail -1 0")
        two.ask("put mail 0 first")
        answer = one.hear()
        assert answer.endswith(" first")
        one.say(f"ack {number_of(answer)}", "take mail -1 0")
        assert one.hear() == "ok"
        node.put(b"second", channel="mail")
        assert one.hear().endswith(" second")


def test_several_who_wait_get_one_each_in_the_order_in_which_they_asked(place):
    """Nobody who waits is passed over, and no message goes to two."""
    with contextlib.ExitStack() as stack:
        talks = [stack.enter_context(Talk(url_of(place))) for _ in range(5)]
        for talk in talks:
            talk.say("take mail -1 0")
            # The answer on a connection that is made later comes after what was asked before: the order is certain.
            with Talk(url_of(place)) as other:
                other.ask("count mail")
        with Talk(url_of(place)) as other:
            for number in range(5):
                other.ask(f"put mail 0 {number}")
        assert [talk.hear().split()[-1] for talk in talks] == [str(number) for number in range(5)]


def test_leases_end_with_their_connection(place):
    """A connection that dies gives back at once what it held, its attempt counted."""
    with Talk(url_of(place)) as two:
        with Talk(url_of(place)) as one:
            one.ask("put mail 0 job")
            one.ask("take mail 0 0")
        assert two.ask("take mail -1 0").endswith(" 2 job")


def test_a_lease_with_a_deadline_ends_by_itself_unless_it_is_touched(place):
    """After its time the job is ready again, and the connection that was too slow has lost it."""
    with Talk(url_of(place)) as one, Talk(url_of(place)) as two:
        number = number_of(one.ask("put mail 0 job"))
        assert one.ask("take mail 0 0.3").startswith("job")
        assert two.ask("take mail -1 0") == f"job {number} 2 job"
        assert one.ask(f"touch {number}") == "gone"
        assert one.ask(f"ack {number}") == "gone"
        assert two.ask(f"touch {number}") == "ok"
        assert two.ask(f"ack {number}") == "ok"


def test_a_delayed_job_wakes_who_waits_for_it(place):
    """Nobody gets it before its time, and who waits gets it then."""
    with Talk(url_of(place)) as talk:
        talk.ask("put mail 0.3 later")
        assert talk.ask("take mail 0 0") == "none"
        assert talk.ask("count mail") == "count 0 1 0 0"
        assert talk.ask("take mail -1 0").endswith(" later")


def test_requests_that_come_at_once_are_answered_in_order(place):
    """Pipelined requests are answered one by one."""
    with Talk(url_of(place)) as talk:
        talk.say(*(f"put mail 0 {number}" for number in range(200)))
        assert all(talk.hear().startswith("put ") for _ in range(200))
        talk.say(*("take mail 0 0" for _ in range(201)))
        assert [talk.hear().split()[-1] for _ in range(201)] == [*map(str, range(200)), "none"]


def test_what_was_answered_survives_a_kill(place):
    """Every put that was answered is there after SIGKILL, and what was leased is ready again."""
    with Talk(url_of(place)) as talk:
        numbers = [number_of(talk.ask(f"put mail 0 {number}")) for number in range(50)]
        talk.ask("take mail 0 0")
        (process,) = place.processes
        process.kill()
    place.run("gateway")
    with Talk(url_of(place)) as talk:
        got = [talk.ask("take mail -1 0") for _ in range(50)]
        assert sorted(map(number_of, got), key=int) == numbers
        assert talk.ask("take mail 0 0") == "none"


def test_bad_requests_are_refused_in_words(place):
    """A name that cannot be, or a text that is no request, gets an answer; the connection goes on."""
    with Talk(url_of(place)) as talk:
        assert talk.ask("put a//b 0 x").startswith("bad channel 'a//b'")
        assert talk.ask("take .. 0 0").startswith("bad channel '..'")
        assert talk.ask("\x00\x01garbage") == "bad verb"
        assert talk.ask("put mail 0 still here").startswith("put ")


def test_a_waiting_job_is_deleted_taken_by_number_buried_and_kicked(place):
    """The verbs on jobs that nobody holds work by the number that `put` gave."""
    with Talk(url_of(place)) as talk:
        one, two, three = (number_of(talk.ask(f"put mail 0 {name}")) for name in ("one", "two", "three"))
        assert talk.ask(f"delete {two}") == "ok"
        assert talk.ask(f"delete {two}") == "gone"
        assert talk.ask(f"number {three}") == f"job {three} 1 three"
        assert talk.ask(f"bury {three}") == "ok"
        assert talk.ask("count mail") == "count 1 0 0 1"
        assert talk.ask("peek mail buried") == f"job {three} buried three"
        assert talk.ask("peek mail ready") == f"job {one} ready one"
        assert talk.ask("kick mail") == "kicked 1"
        assert talk.ask("count mail") == "count 2 0 0 0"
        assert talk.ask("purge mail") == "purged 2"
        assert talk.ask("delete 123456789") == "gone"


def test_the_same_dedup_text_is_stored_once(place):
    """A repeated put is the first one's message."""
    with Talk(url_of(place)) as talk:
        number = number_of(talk.ask("once mail key hello"))
        assert talk.ask("once mail key hello") == f"put {number} True"
        talk.say("once mail other x", "once mail other x")
        assert talk.hear().endswith("False")
        assert talk.hear().endswith("True")
        assert talk.ask("count mail") == "count 2 0 0 0"


def test_a_paused_channel_gives_nothing_and_takes_everything(place):
    """Consumers wait until the pause is over; putting goes on."""
    with Talk(url_of(place)) as talk:
        assert talk.ask("pause mail 0.5") == "ok"
        talk.ask("put mail 0 job")
        assert talk.ask("take mail 0 0") == "none"
        assert talk.ask("take mail -1 0").endswith(" job")


def test_a_result_comes_home_to_the_connection_that_asked(place):
    """`wait_receipt` of a message of this node's own inbox gets what its consumer answered."""
    with Talk(url_of(place)) as one, Talk(url_of(place)) as two:
        one.say("ask sums 2+2")
        job = two.ask("take sums -1 0")
        assert two.ask(f"done {number_of(job)} 4") == "ok"
        assert one.hear() == "processed 4"


def test_a_gateway_ends_in_peace(place):
    """SIGTERM ends idle connections at once; one that holds a job may finish it, and nothing is lost."""
    (process,) = place.processes
    with Talk(url_of(place)) as idle, Talk(url_of(place)) as waiting, Talk(url_of(place)) as busy:
        idle.ask("count mail")
        number = number_of(busy.ask("put mail 0 job"))
        busy.ask("take mail 0 0")
        waiting.say("take mail -1 0")
        process.signal(signal.SIGTERM)
        assert waiting.hear() in ("none", "")
        assert idle.hear() == ""
        assert process.alive
        assert busy.ask(f"ack {number}") == "ok"
        assert process.wait() == 0
    assert "gateway stopped" in process.text
    assert "Traceback" not in process.text


def test_too_many_connections_are_turned_away(road):
    """Above max_connections a connection is closed at once; when one ends there is room again."""
    (place,) = road.build("shop", shop={"gateways": {"tiny": {"max_connections": 2}}})
    process = place.run("gateway")
    with Talk(url_of(place)) as one, Talk(url_of(place)) as two:
        assert one.ask("count mail") and two.ask("count mail")
        with Talk(url_of(place)) as third:
            assert third.hear() == ""
        assert "2 connections are open, which is its limit" in process.text
        one.close()

        def room():
            with Talk(url_of(place)) as third:
                try:
                    return third.ask("count mail")
                except BrokenPipeError:
                    return ""

        eventually(room)


def test_messages_for_peers_go_into_the_outbox_and_arrive(road):
    """A channel with `to:` is put into the outbox: another node's gateway hands the message out."""
    gateways = {"gateways": TINY}
    shop, ware = road.build("shop", "ware", shop={**gateways, "channels": {"orders": {"to": "ware"}}}, ware=gateways)
    for place, roles in ((shop, ("daemon", "gateway")), (ware, ("server", "gateway"))):
        for role in roles:
            place.run(role)
    with Talk(url_of(shop)) as here, Talk(url_of(ware)) as there:
        there.say("take orders -1 0")
        assert int(number_of(here.ask("put orders 0 ten boxes"))) >= 1 << 62
        assert there.hear().endswith(" ten boxes")
        here.say("ask orders 2+2")
        job = there.ask("take orders -1 0")
        there.ask(f"done {number_of(job)} 4")
        assert here.hear() == "processed 4"


def test_other_doors(road, tmp_path):
    """One gateway listens at several addresses: a socket of the file system, and http for its application."""
    path = tmp_path / "door.sock"
    listen = [f"unix://{path}?mode=660", "http://127.0.0.1:0"]
    (place,) = road.build("shop", shop={"gateways": {"tiny": {"listen": listen}}})
    process = place.run("gateway")
    unix, http = place.doors()["tiny"]
    assert path.stat().st_mode & 0o777 == 0o660
    with urllib.request.urlopen(f"{http}/put?channel=mail&body=web", timeout=60) as answer:
        assert answer.read().startswith(b"put ")
    with Talk(unix) as talk:
        assert talk.ask("take mail 0 0").endswith(" web")
    process.kill()
    process = place.run("gateway")  # over the socket of the dead one
    with Talk(unix) as talk:
        assert talk.ask("take mail -1 0").endswith(" web")
    assert process.stop() == 0
    assert not path.exists()


def test_a_door_to_the_world_needs_proof_or_a_word(road):
    """Beyond loopback a gateway listens only if its callers prove who they are, or the file says `insecure`."""
    (place,) = road.build("shop", shop={"gateways": {"tiny": {"listen": "tcp://0.0.0.0:0"}}})
    process = place.run("gateway", ready=False)
    assert process.wait() == 78
    assert "gateways.tiny.listen: tcp://0.0.0.0:0 can be reached from elsewhere" in process.text
    place.write(gateways={"tiny": {"listen": "tcp://0.0.0.0:0", "password": "secret"}})
    assert "insecure" not in place.run("gateway").text
    place.write(gateways={"tiny": {"listen": "tcp://0.0.0.0:0", "insecure": True}})
    assert "open to everybody who can reach it" in place.run("gateway").text


def test_two_gateways_at_one_address_do_not_begin(road):
    """It is a mistake of the file, said with both names as `dropr check` does; neither opens a door."""
    (place,) = road.build("shop", shop={"gateways": {}})
    listen = f"tcp://127.0.0.1:{free_port()}"
    place.write(gateways={"tiny": {"listen": listen}, "two": {"use": "tiny", "listen": listen}})
    process = place.run("gateway", ready=False)
    assert process.wait() == 78
    assert f"gateways.two.listen: {listen} is the place of gateways.tiny ({listen}) as well" in process.text
    assert "listens on" not in process.text


def test_the_angel_keeps_it_and_status_shows_it(road):
    """`dropr up` starts the gateway of a node that has one; killed, it is there again; SIGHUP begins it afresh."""
    (place,) = road.build("shop", shop={"gateways": TINY, "listen": []})
    place.run("up", ready=False)
    first = eventually(lambda: place.doors()["tiny"][0])
    with Talk(first) as talk:
        talk.ask("put mail 0 kept")
    command = [sys.executable, "-m", "dropr_core", "status", "-c", str(place.file)]
    shown = subprocess.run(command, capture_output=True, text=True, check=True)
    assert f"(tiny: {first})" in shown.stdout
    (report,) = living(place.data / "run", "gateway")
    os.kill(report["pid"], signal.SIGKILL)
    second = eventually(lambda: place.doors()["tiny"][0] if place.doors()["tiny"][0] != first else None)
    with Talk(second) as talk:
        assert talk.ask("take mail -1 0").endswith(" kept")


def test_ranks_are_kept_exactly(place):
    """Of what waits, the lowest of 32 bits goes first, and of equal ones the older."""
    ranks = [4_294_967_295, 0, 1025, 1024, 7, 1024]
    with Talk(url_of(place)) as talk:
        for at, rank in enumerate(ranks):
            talk.ask(f"rank mail {rank} {at}")
        got = [talk.ask("take mail 0 0").split()[-1] for _ in ranks]
        assert got == ["1", "4", "3", "5", "2", "0"]


def test_a_pause_holds_for_every_process(place):
    """`dropr pause` stops the consumers of a gateway, and who waits is served when it ends."""
    with Talk(url_of(place)) as talk, place.opened() as node:
        node.pause("mail")
        talk.ask("put mail 0 job")
        talk.say("take mail -1 0")
        with Talk(url_of(place)) as other:
            assert other.ask("take mail 0 0") == "none"
        node.unpause("mail")
        assert talk.hear().endswith(" job")


def test_a_full_store_refuses_puts_and_goes_on_with_everything_else(road):
    """A put above the limits is refused in words, alone; messages go out, and when there is room puts come in again."""
    (place,) = road.build("shop", shop={"gateways": TINY, "limits": {"min_free": 0, "max_messages": 3}})
    process = place.run("gateway")
    with Talk(url_of(place)) as one, Talk(url_of(place)) as two:
        for number in range(3):
            assert one.ask(f"put mail 0 {number}").startswith("put ")
        assert one.ask("put mail 0 too-much").startswith("full ")
        # Several at once: each hears for itself.
        one.say("put mail 0 too-much")
        two.say("put mail 0 too-much")
        assert one.hear().startswith("full ") and two.hear().startswith("full ")
        number = number_of(two.ask("take mail 0 0"))
        assert two.ask(f"ack {number}") == "ok"
        assert one.ask("put mail 0 fits").startswith("put ")
        assert one.ask("count mail") == "count 3 0 0 0"
    assert "Traceback" not in process.text


def test_a_disk_below_its_floor_refuses_puts(road):
    """Under the free space that is left alone nothing is stored; leases are given and settled all the same."""
    (place,) = road.build("shop", shop={"gateways": TINY})
    with place.opened() as node:
        node.put(b"before", channel="mail")
    place.write(limits={"min_free": "1000000GB"})
    place.run("gateway")
    with Talk(url_of(place)) as talk:
        assert talk.ask("put mail 0 no").startswith("full ")
        number = number_of(talk.ask("take mail 0 0"))
        assert talk.ask(f"ack {number}") == "ok"
        assert talk.ask("count mail") == "count 0 0 0 0"
