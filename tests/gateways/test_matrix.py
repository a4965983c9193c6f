"""What is put in one dialect is taken in every other, on one node and across two, with the gateways killed in between.

One pair of nodes carries all pairs of dialects: the messages of all of them are there at the same time.
"""

import importlib.metadata
import itertools

import pytest
from support.dialects import DIALECTS
from support.gateways import Doors, listening
from support.nodes import eventually

pytestmark = [pytest.mark.e2e, pytest.mark.filterwarnings("ignore")]  # of strangers' clients

GATEWAYS = sorted(point.name for point in importlib.metadata.entry_points(group="dropr.gateway"))
NAMES = [*(name for name in GATEWAYS if name in DIALECTS), "python"]
PAIRS = list(itertools.product(NAMES, NAMES))
EACH = 2
"""Messages of each pair and way."""
WAYS = ("near", "far")
"""On one node; from one to the other."""


def channel_of(way, putter, taker):
    """The queue of a pair: a name that every dialect can say."""
    return f"{way}-{putter}-{taker}"


def body_of(channel, number, text):
    """What every byte of is compared: any bytes, or any text where one of the two can say no more."""
    head = f"{channel} {number} ".encode()
    return head + ("äöü ✓ \t\n\r <&> \U0001f4ee".encode() if text else bytes(range(256)) + b"\r\n.\r\n\0")


def bodies_of(way, putter, taker):
    """The messages of a pair."""
    channel = channel_of(way, putter, taker)
    text = DIALECTS[putter].text or DIALECTS[taker].text
    return [body_of(channel, number, text) for number in range(EACH)]


@pytest.mark.timeout(600)
def test_every_dialect_understands_every_other(road):
    """Nothing is lost, nothing is there twice, and not a byte is another one."""
    far = {channel_of("far", *pair): {"to": "ware"} for pair in PAIRS}
    near = {channel_of("near", *pair): {} for pair in PAIRS}
    gateways = listening(*(name for name in NAMES if name != "python"))
    places = road.build(
        "shop", "ware",
        shop={"gateways": gateways, "channels": far | near},
        ware={"gateways": gateways, "channels": {channel: {} for channel in far}},
    )  # fmt: skip
    shop, ware = (Doors(road, place).start() for place in places)
    ware.place.run("server")

    for putter in NAMES:
        client = DIALECTS[putter](shop)
        for way, taker in itertools.product(WAYS, NAMES):
            client.put(channel_of(way, putter, taker), bodies_of(way, putter, taker))
        client.close()

    for doors in (shop, ware):
        doors.kill()
    shop.place.run("daemon")
    for doors in (shop, ware):
        doors.start()

    wrong = []
    for taker in NAMES:
        for way, doors in zip(WAYS, (shop, ware), strict=True):
            client = DIALECTS[taker](doors)
            for putter in NAMES:
                got = client.take(channel_of(way, putter, taker), EACH)
                if sorted(got) != sorted(bodies_of(way, putter, taker)):
                    wrong.append((way, putter, taker, got))
            client.close()
    assert not wrong
    for doors in (shop, ware):
        with doors.place.opened() as node:
            eventually(lambda node=node: not left(node), what=f"nothing is left at {node.name}")


def left(node):
    """Channel → states of what is still in the inbox."""
    words = ("ready", "delayed", "blocked", "leased", "buried")
    found = {channel: {word: count[word] for word in words if count.get(word)}
             for channel, count in node.inbox.counts().items()}  # fmt: skip
    return {channel: states for channel, states in found.items() if states}
