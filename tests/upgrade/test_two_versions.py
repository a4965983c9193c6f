"""The last release and this tree talk to each other: real processes of both, in every direction.

Each case is one pair of nodes, one of them of the last release. Mail of each kind goes both ways at once, and what
carries it is killed in the middle. What is old is `old`, what is new is `new`.
"""

import json
import subprocess
import sys
from pathlib import Path

import pytest
from support.nodes import PATIENCE, Place, Road, eventually, free_port
from upgrade import application

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(400)]  # a dozen processes each, on a machine that may be busy


@pytest.fixture
def road(tmp_path):
    """Some nodes; whatever they started is gone after the test."""
    made = Road(tmp_path)
    yield made
    made.close()


@pytest.fixture
def pair(road, last_release):
    """(old, new) on HTTP, sqlite and fs; `hut` is a peer that is never there."""
    old, new = road.build("old", "new")
    last_release.dress(old)
    old.config["storage"], new.config["storage"] = "sqlite", "fs"
    for place in (old, new):
        place.config["limits"]["batch_count"] = 10  # so that there is a middle in which to kill
        place.config["peers"]["hut"] = {"url": f"http://127.0.0.1:{free_port()}", "key": "h" * 32}
        place.write()
    return old, new


def over_zmq(old, new):
    """The same pair on ZeroMQ, with the storages changed."""
    urls = {place.name: f"zmq+tcp://127.0.0.1:{free_port()}" for place in (old, new)}
    for place, other in ((old, new), (new, old)):
        place.config["peers"][other.name]["url"] = urls[other.name]
        place.write(listen=[urls[place.name]], transports={"zmq": {"curve": False}})
    old.write(storage="fs")
    new.write(storage="sqlite")


def cannot_be_reached(place, other):
    """`place` has no door: it pushes what it has, and fetches what the other has for it."""
    del place.config["listen"]
    place.config["peers"][other.name]["fetch"] = True
    place.write()
    other.config["peers"][place.name] = {"mode": "pull", "key": other.config["peers"][place.name]["key"]}
    other.write()


def do(last_release, place, verb, *words):
    """Let a program of this node do something, in the node's version; what it says."""
    if not place.env:
        return json.loads(json.dumps(application.VERBS[verb](place.file, *words)))
    said = last_release.python(application.__file__, verb, place.file, *words, cwd=place.directory)
    return json.loads(said.splitlines()[-1])


def dropr(last_release, place, *words):
    """What a verb of the command line says, in the node's version, as JSON."""
    if place.env:
        return json.loads(last_release.dropr(*words, "-c", place.file, cwd=place.directory))
    command = [sys.executable, "-m", "dropr_core", *words, "-c", str(place.file)]
    return json.loads(subprocess.run(command, capture_output=True, check=True, text=True, timeout=120).stdout)


CASES = [("curl", ""), ("curl", "old"), ("zmq", ""), ("zmq", "new")]
"""Transport, and which of the two has no door."""


@pytest.mark.parametrize(("kind", "far"), CASES, ids=[f"{kind}-{far or 'both'}" for kind, far in CASES])
def test_mail_of_each_kind_goes_both_ways(pair, last_release, kind, far):
    """Small and large, many lanes, to several peers, with results and dead letters: each arrives once and in order,
    though all processes of both are killed in the middle; pushed both ways, or fetched by the one that has no door.
    """
    old, new = pair
    if kind == "zmq":
        over_zmq(old, new)
    places = {"old": old, "new": new}
    if far:
        cannot_be_reached(places[far], new if far == "old" else old)
    sent = {place: do(last_release, place, "send", other.name) for place, other in ((old, new), (new, old))}
    carriers = [place.run("server") for place in (old, new) if "listen" in place.config]
    carriers += [place.run("daemon") for place in (old, new)]
    with new.opened() as node:
        eventually(node.inbox.counts, what="the first of the old node's messages is here")
    for carrier in carriers:
        carrier.kill()
        carrier.start()
    for place, other in ((old, new), (new, old)):
        here = do(last_release, place, "take")
        assert here["extra"] == []
        rows = [(channel, priority, body) for channel, priority, body, _ in here["taken"]]
        assert not any(doubled for *_, doubled in here["taken"])
        assert rows.count(("large", 5, sent[other]["digest"])) == rows.count(("news", 5, "to both")) == 1
        numbers = [(channel, priority, int(body)) for channel, priority, body in rows if channel[0] == "c"]
        assert sorted(number for *_, number in numbers) == list(range(application.MANY))
        for lane in {row[:2] for row in numbers}:
            came = [number for *of, number in numbers if tuple(of) == lane]
            assert came == sorted(came)
    for place in (old, new):
        asked = sent[place]["asked"]
        told = do(last_release, place, "results", asked["6"], asked["bad"])
        assert told["result"] == "42"
        assert "cannot be done" in told["failed"]
    if kind == "curl" and not far:
        for place, other in ((old, new), (new, old)):
            story = dropr(last_release, place, "trace", sent[place]["asked"]["bad"], "--json")
            assert "cannot be done" in json.dumps(story["peers"])
            assert other.name in json.dumps(story["peers"])


def test_a_subscriber_of_the_other_version_gets_what_is_published(pair, last_release):
    """The request to join, the copies and the end go between the versions, from old to new and from new to old."""
    old, new = pair
    topics = {"topics": {"prices": {"join": ["old", "new"]}}}
    for place in pair:
        place.write(**topics)
        place.run("server")
        place.run("daemon")
    workers = {place: place.run("worker") for place in pair}
    code = "import sys, dropr_core as d\nwith d.open(sys.argv[1]) as n: n.subscribe('prices', 'audit', at='new')"
    last_release.python("-c", code, old.file, cwd=old.directory)
    with new.opened() as node:
        node.subscribe("prices", "audit", at="old")
        for place, other in ((old, new), (new, old)):
            said = workers[place]
            eventually(lambda said=said, other=other: f"{other.name} subscribes" in said.text, what="the subscription")
        node.publish("prices", b"1")
        code = "import sys, dropr_core as d\nwith d.open(sys.argv[1]) as n: n.publish('prices', b'2')"
        last_release.python("-c", code, old.file, cwd=old.directory)
        assert [message.body for message in node.receive("prices/audit", limit=1, timeout=PATIENCE)] == [b"2"]
    assert do(last_release, old, "numbers", "prices/audit", "1") == {"got": [1], "extra": []}


@pytest.mark.parametrize("first", ["sender", "receiver"])
def test_a_pair_is_upgraded_with_a_backlog(road, last_release, first):
    """Both are of the last release and mail is flowing; one is killed, opened by this tree, and then the other: nothing
    is lost, and nothing comes twice or out of order.
    """
    storage = {"sender": "sqlite", "receiver": "fs"}[first]
    shop, ware = road.build("shop", "ware", shop={"channels": {"orders": {"to": "ware"}}})
    for place in (shop, ware):
        last_release.dress(place)
        place.config["limits"]["batch_count"] = 10
        place.write(storage=storage)
    do(last_release, shop, "append", "orders", "0", "200")
    carriers = {shop: shop.run("daemon"), ware: ware.run("server")}
    backlog = ware.data / ("inbox.db" if storage == "sqlite" else "inbox")
    eventually(backlog.exists, what="the store of the receiver")
    for at, place in enumerate((shop, ware) if first == "sender" else (ware, shop), 1):
        carriers[place].kill()
        place.env = {}
        if place is shop:
            do(last_release, shop, "append", "orders", f"{at}000", "100")
        carriers[place] = place.run(carriers[place].role)
    do(last_release, shop, "append", "orders", "5000", "10")
    wanted = [*range(200), *range(*((1000, 1100) if first == "sender" else (2000, 2100))), *range(5000, 5010)]
    assert do(last_release, ware, "numbers", "orders", str(len(wanted))) == {"got": wanted, "extra": []}
    for carrier in carriers.values():
        assert "Traceback" not in carrier.text


def test_a_release_to_come_and_the_last_one_say_who_is_behind(pair, last_release):
    """They have no version in common: mail waits on both sides, each log says why and what to upgrade, and all flows
    when one was upgraded (here: the other one put back).
    """
    old, new = pair
    sent = {place: do(last_release, place, "send", other.name) for place, other in ((old, new), (new, old))}
    new.program = (str(Path(application.__file__).with_name("future.py")),)
    future = {role: new.run(role) for role in ("server", "daemon")}
    there = {role: old.run(role) for role in ("server", "daemon")}
    words = "upgrade dropr on old; until then"
    eventually(lambda: "version: protocol version 2: this node speaks 1" in future["daemon"].text, what="old's refusal")
    eventually(lambda: words in there["daemon"].text, what="the refusal of the future")
    said = (
        "old: another version of dropr: old speaks version 1 of the protocol, new versions 2 to 3: upgrade dropr on old"
    )
    assert future["server"].text.count(said) == 1
    with new.opened() as node:
        assert not node.inbox.counts()
        assert {stats.depth for stats in node.outbox.lanes("old")} != {0}
    for role, process in future.items():
        process.kill()
        new.program = Place.program
        new.run(role)
    do(last_release, old, "retry", "new")
    for place, other in ((old, new), (new, old)):
        here = do(last_release, place, "take")
        assert (len(here["taken"]), here["extra"]) == (application.MANY + 2, [])
        assert sent[other]["digest"] in json.dumps(here)
