"""What the tests of this distribution are given: Django, and nodes in memory in place of those of files."""

import logging
import os

import pytest
from support.django_shop import HOME, set_up

set_up()

DATABASE = f"sqlite:///{HOME / 'db.sqlite3'}"
TASKS = {"serializer": "json"}
AWAY = {"to": "warehouse", "serializer": "json"}


@pytest.fixture
def dropr_config():
    """The shop sends to the warehouse, and keeps one queue to itself."""
    here = {"serializer": "json", "retention": "1d", "attempts": 1}
    return {
        "shop": {
            "storage": "sqlite",
            "outboxes": {"django": {"url": DATABASE}},
            "channels": {"default": AWAY, "post/mails": AWAY, "here": here},
        },
        "warehouse": {"channels": {"default": {**TASKS, "attempts": 2, "retry_backoff_min": 0}, "post/mails": TASKS}},
    }


def install(node):
    """Have a node be that of this process; what it was before."""
    from dropr_django.opened import of_app

    opened = of_app()
    before = opened._node, opened._pid
    opened._node, opened._pid = node, os.getpid()
    return before


@pytest.fixture
def pair(dropr_pair):
    """`shop` (the node of this process), `warehouse`, and what carries their mail."""
    from dropr_django.opened import of_app

    before = install(dropr_pair["shop"])
    yield dropr_pair
    opened = of_app()
    opened._node, opened._pid = before


@pytest.fixture
def shop(pair):
    """The node of this process."""
    return pair["shop"]


@pytest.fixture
def handle(pair):
    """Run what has come to a node, as its worker does: `handle("warehouse")`. How many."""
    from dropr_django.handler import DjangoHandler

    def run(name):
        pair.deliver()
        node = pair[name]
        for channel in ("default", "post/mails", "here"):
            if channel in node.config.channels and not node.config.channels[channel].to:
                node.registered._handlers.setdefault(channel, DjangoHandler(name, logging.getLogger("test")))
        return node.work(wait=0)

    return run


@pytest.fixture(autouse=True)
def seen():
    """What tasks did."""
    from support.django_shop.tasks import SEEN

    SEEN.clear()
    return SEEN
