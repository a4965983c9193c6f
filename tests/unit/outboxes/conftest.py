"""Relays with a clock that is moved by hand, and pages of few rows."""

import pytest
from support.full_queues import shop_of

from dropr_core.outboxes import relay as relay_module
from dropr_core.outboxes import waiting as waiting_module


class Clock:
    """Time of a relay, moved by hand."""

    def __init__(self):
        self.now = 1000.0

    def monotonic(self):
        return self.now


@pytest.fixture
def clock(monkeypatch):
    made = Clock()
    monkeypatch.setattr(relay_module, "time", made)
    return made


@pytest.fixture
def small(monkeypatch):
    """Pages of a few rows, so that few rows are many."""
    monkeypatch.setattr(relay_module, "ROWS", 4)
    monkeypatch.setattr(waiting_module, "WINDOW", 2)


@pytest.fixture(params=["sqlite", "postgresql"])
def place(request, tmp_path):
    """Where the table is."""
    made = []

    def make(*limits, **fields):
        url = request.getfixturevalue("postgres_url") if request.param == "postgresql" else None
        made.append(shop_of(tmp_path, url, *limits, **fields))
        return made[-1]

    yield make
    for shop in made:
        shop.close()
