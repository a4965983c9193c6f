"""Handlers as a configuration makes them, closed after the test."""

import logging

import pytest

from dropr_core.contracts.context import Context
from dropr_core.plugin.registry import create
from dropr_core.system.clock import SystemClock


@pytest.fixture
def make(tmp_path):
    made = []

    def make(kind, target, **options):
        context = Context("node", tmp_path, SystemClock(), logging.getLogger("test"))
        made.append(create("handler", kind, {"target": target, **options}, context, where="channels.orders.handler"))
        return made[-1]

    yield make
    for handler in made:
        handler.close()
        handler.close()
