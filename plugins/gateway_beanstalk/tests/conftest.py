"""Nodes with a beanstalk door in a process of its own, and a connection that reads whole answers."""

import pytest
from support.beanstalk import Wire
from support.nodes import Road

DOOR = {"beanstalk": {"listen": "tcp://127.0.0.1:0"}}


@pytest.fixture
def road(tmp_path):
    """Nodes; whatever they started is gone after the test."""
    road = Road(tmp_path)
    yield road
    road.close()


@pytest.fixture
def place(road):
    """A node alone, its gateway running."""
    (place,) = road.build("shop", shop={"gateways": DOOR})
    place.run("gateway")
    return place


@pytest.fixture
def connect(place):
    """A function that makes connections to the door, closed after the test."""
    made = []

    def start(of=place):
        made.append(Wire(port_of(of)))
        return made[-1]

    yield start
    for one in made:
        one.close()


def port_of(place):
    """Where its door listens."""
    return int(place.doors()["beanstalk"][0].rpartition(":")[2])
