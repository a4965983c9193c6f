"""What a program gets from this door that it never had: jobs that outlive every process, and go to other machines."""

import contextlib
import signal

import pytest
import yaml
from support.beanstalk import Wire
from support.nodes import eventually

pytestmark = pytest.mark.e2e


def port_of(place):
    """Where its door listens."""
    return int(place.doors()["beanstalk"][0].rpartition(":")[2])


def facts(answer):
    """What a stats command tells."""
    return yaml.safe_load(answer.partition(b"\r\n")[2])


def test_jobs_and_their_ids_outlive_a_kill(place, connect):
    """After SIGKILL every state is what it was, under the same ids; what was reserved is ready again."""
    wire = connect()
    ready, delayed, buried, held, done = (wire.put(f"{n}".encode(), 10 - n, 1000 if n == 1 else 0) for n in range(5))
    for number in (done, held, buried):
        assert wire.reserve()[0] == number
    assert wire.ask(f"bury {buried} 77") == b"BURIED\r\n"
    assert wire.ask(f"delete {done}") == b"DELETED\r\n"
    place.processes[-1].kill()
    place.run("gateway")
    again = connect()
    assert facts(again.ask(f"stats-job {delayed}"))["state"] == "delayed"
    told = facts(again.ask(f"stats-job {buried}"))
    assert (told["state"], told["pri"]) == ("buried", 77)
    assert again.ask(f"peek {done}") == b"NOT_FOUND\r\n"
    assert [again.reserve() for _ in range(2)] == [(held, b"3"), (ready, b"0")]
    assert again.ask("reserve-with-timeout 0") == b"TIMED_OUT\r\n"


def test_killed_in_the_middle_nothing_is_lost_and_nothing_doubled(place):
    """Each job that was answered INSERTED comes once, and none whose DELETED was seen comes again."""
    put, unsure, deleted, seen = set(), set(), set(), []
    for turn in range(4):
        with contextlib.suppress(ConnectionError, AssertionError, ValueError), Wire(port_of(place)) as wire:
            names = [f"{turn}-{n}" for n in range(300)]
            unsure.update(names)
            wire.send(b"".join(b"put 0 0 60 %d\r\n%s\r\n" % (len(name), name.encode()) for name in names))
            for at, name in enumerate(names):
                if at == 250:
                    place.processes[-1].signal(signal.SIGKILL)
                assert wire.answer().startswith(b"INSERTED")
                put.add(name)
        place.processes[-1].kill()
        place.run("gateway")
        with contextlib.suppress(ConnectionError, AssertionError, ValueError), Wire(port_of(place)) as wire:
            for at in range(60):
                number, body = wire.reserve()
                assert body.decode() not in deleted
                if at == 50:
                    wire.send(b"delete %d\r\n" % number)
                    place.processes[-1].signal(signal.SIGKILL)
                    seen.append(body.decode())  # whether it was deleted nobody knows
                else:
                    assert wire.ask(f"delete {number}") == b"DELETED\r\n"
                    deleted.add(body.decode())
        place.processes[-1].kill()
        place.run("gateway")
    left = []
    with Wire(port_of(place)) as wire:
        while (answer := wire.ask("reserve-with-timeout 0")) != b"TIMED_OUT\r\n":
            head, _, body = answer.partition(b"\r\n")
            assert wire.ask(f"delete {head.split()[1].decode()}") == b"DELETED\r\n"
            left.append(body[:-2].decode())
    assert len(left) == len(set(left))
    assert not deleted & set(left)
    assert put - deleted - set(left) <= set(seen)
    assert set(left) | deleted <= unsure


def test_a_job_waits_for_a_peer_that_is_down_and_comes_with_its_priority_and_ttr(road):
    """Put at a node whose tube has a route; reserved at another machine, once that is up."""
    shop, store = road.build(
        "shop", "store",
        shop={"gateways": {"beanstalk": {"listen": "tcp://127.0.0.1:0"}}, "channels": {"orders": {"to": "store"}}},
        store={"gateways": {"beanstalk": {"listen": "tcp://127.0.0.1:0"}}},
    )  # fmt: skip
    shop.run("gateway")
    shop.run("daemon")
    with Wire(port_of(shop)) as wire:
        wire.ask("use orders")
        number = wire.put(b"first", priority=7, ttr=33)
        assert facts(wire.ask("stats-tube orders"))["current-jobs-outgoing"] == 1
        assert wire.ask(f"peek {number}") == b"NOT_FOUND\r\n"
        shop.processes[0].kill()
        shop.run("gateway")
    with Wire(port_of(shop)) as wire:
        wire.ask("use orders")
        wire.put(b"second", priority=3)
        wire.ask("watch orders")
        assert wire.ask("reserve-with-timeout 0") == b"TIMED_OUT\r\n"
    store.run("server")
    store.run("gateway")
    with Wire(port_of(store)) as wire:
        wire.ask("watch orders")
        eventually(lambda: facts(wire.ask("stats-tube orders"))["current-jobs-ready"] == 2)
        assert wire.reserve()[1] == b"second"
        number, body = wire.reserve()
        assert body == b"first"
        told = facts(wire.ask(f"stats-job {number}"))
        assert (told["pri"], told["ttr"]) == (7, 33)
        assert wire.ask(f"delete {number}") == b"DELETED\r\n"


def test_what_python_puts_is_reserved_and_the_other_way_round(road):
    """A tube is a channel. A message without a TTR gets that of the options."""
    (place,) = road.build("shop", shop={"gateways": {"beanstalk": {"listen": "tcp://127.0.0.1:0", "ttr": 90}}})
    place.run("gateway")
    with Wire(port_of(place)) as wire, place.opened() as node:
        node.put(b"\r\nfrom python\0", channel="default")
        number, body = wire.reserve()
        assert body == b"\r\nfrom python\0"
        assert facts(wire.ask(f"stats-job {number}"))["ttr"] == 90
        wire.put(b"from beanstalk")
        for message in node.receive("default", limit=1, timeout=30):
            assert message.body == b"from beanstalk"


def test_a_waiting_connection_that_ends_takes_no_job(place, connect):
    """Who has hung up while it waited does not take the next job with it."""
    gone = connect()
    gone.send(b"reserve\r\n")
    other = connect()
    eventually(lambda: facts(other.ask("stats"))["current-waiting"] == 1)
    gone.close()
    eventually(lambda: facts(other.ask("stats"))["current-connections"] == 1)
    number = other.put(b"job")
    assert other.reserve() == (number, b"job")


def test_a_job_whose_time_is_over_goes_to_another_worker(connect):
    """The TTR ends a lease by itself; the first worker learns it by NOT_FOUND, and the job says so."""
    one, two = connect(), connect()
    number = one.put(b"job", ttr=3)  # the next commands are given long before, on a busy machine too
    assert one.reserve() == (number, b"job")
    assert one.ask("reserve") == b"DEADLINE_SOON\r\n"
    assert two.reserve() == (number, b"job")
    for command in ("delete", "touch"):
        assert one.ask(f"{command} {number}") == b"NOT_FOUND\r\n"
    told = facts(two.ask(f"stats-job {number}"))
    assert (told["state"], told["timeouts"], told["reserves"]) == ("reserved", 1, 2)
    assert facts(two.ask("stats"))["job-timeouts"] == 1
    two.ask(f"release {number} 0 0")
    assert one.reserve() == (number, b"job")


def test_half_a_connection_is_answered(connect):
    """Who sends its last words and then only listens gets all its answers, and is not left waiting."""
    wire = connect()
    wire.send(b"put 0 0 60 1\r\na\r\nreserve\r\nreserve\r\n")
    wire.socket.shutdown(1)
    assert wire.answer().startswith(b"INSERTED")
    assert wire.answer().startswith(b"RESERVED")
    assert wire.answer() == b"TIMED_OUT\r\n"
    assert wire.ended()


def test_a_gateway_that_stops_lets_workers_finish(place, connect):
    """While it drains, jobs in hand can be settled, and nothing new is taken."""
    worker, idle, waiting = connect(), connect(), connect()
    number = worker.put(b"job")
    worker.reserve()
    waiting.send(b"reserve-with-timeout 1000\r\n")
    eventually(lambda: facts(idle.ask("stats"))["current-waiting"] == 1)
    place.processes[-1].signal(signal.SIGTERM)
    assert waiting.answer() == b"TIMED_OUT\r\n"
    assert idle.ended()
    assert worker.ask("put 0 0 60", b"x") == b"DRAINING\r\n"
    assert facts(worker.ask("stats"))["draining"] is True
    assert worker.ask(f"delete {number}") == b"DELETED\r\n"
    assert worker.ended()
    assert place.processes[-1].wait() == 0


def test_a_name_without_a_channel_is_refused_and_odd_ones_are_channels(connect):
    """Every tube of up to 200 characters works, but for those that are too long once they are escaped."""
    wire = connect()
    odd = "a+b//$(c);"
    assert wire.ask(f"use {odd}") == f"USING {odd}\r\n".encode()
    wire.put(b"job")
    assert odd in facts(wire.ask("list-tubes"))
    wire.ask(f"watch {odd}")
    assert wire.reserve()[1] == b"job"
    assert wire.ask("use " + "a" * 200).startswith(b"USING")
    for command in ("use", "watch"):
        assert wire.ask(f"{command} " + "$" * 100) == b"BAD_FORMAT\r\n"
    for command in ("ignore $", "stats-tube $", "pause-tube $ 1"):
        assert wire.ask(command.replace("$", "$" * 100)) in (b"WATCHING 2\r\n", b"NOT_FOUND\r\n")


def test_a_large_job_where_it_is_allowed(road):
    """max_job_size is an option; a body that lies in a file comes out as it went in."""
    options = {"listen": "tcp://127.0.0.1:0", "max_job_size": 1_000_000}
    (place,) = road.build("shop", shop={"gateways": {"beanstalk": options}})
    place.run("gateway")
    body = bytes(range(256)) * 3900
    with Wire(port_of(place)) as wire:
        number = wire.put(body)
        assert wire.ask(f"peek {number}").partition(b"\r\n")[2][:-2] == body
        assert wire.reserve() == (number, body)
        assert wire.ask(f"delete {number}") == b"DELETED\r\n"
        assert wire.ask("put 0 0 60", b"x" * 1_000_001) == b"JOB_TOO_BIG\r\n"


def test_a_full_node_says_so_and_takes_jobs_again_when_there_is_room(road):
    """OUT_OF_MEMORY is the protocol's word for "try again later"; nothing is half stored."""
    gateways = {"beanstalk": {"listen": "tcp://127.0.0.1:0"}}
    (place,) = road.build("shop", shop={"gateways": gateways, "channels": {"default": {"max_messages": 3}}})
    place.run("gateway")
    with Wire(port_of(place)) as wire:
        numbers = [wire.put(b"x") for _ in range(3)]
        assert wire.ask("put 0 0 60", b"x") == b"OUT_OF_MEMORY\r\n"
        assert wire.ask(f"delete {numbers[0]}") == b"DELETED\r\n"
        wire.put(b"x")
