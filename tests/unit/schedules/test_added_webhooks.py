"""Webhooks of schedules that were added on the command line, as a worker takes them up."""

import logging

from support.one_node import open_node

from dropr_core.angel.heartbeat import Heartbeat
from dropr_core.processes.mainloop import MainLoop
from dropr_core.processes.worker import Workers
from dropr_core.schedules.definitions import NAME, Definitions

LOG = logging.getLogger("dropr.test.webhooks")


def channels(node):
    """What a worker that starts now handles."""
    with MainLoop(Heartbeat(None, None, 5.0)) as loop:
        workers = Workers(node.runtime, loop, LOG)
        try:
            return workers.channels
        finally:
            workers.close()


def test_a_worker_calls_those_that_were_added_and_one_broken_costs_itself_alone(tmp_path, caplog):
    """So does a file of schedules that nobody can read: what the configuration names is handled all the same."""
    with open_node(tmp_path, channels={"jobs": {"handler": "python:os.path:basename"}}) as node:
        definitions = Definitions(node.runtime.config, node.runtime.documents)
        for name, address in {"good": "http://127.0.0.1:9/", "bad": "ftp://127.0.0.1/"}.items():
            definitions.add(name, {"every": "1h", "webhook": address})
        assert channels(node) == ("jobs", "schedules/good")
        assert "the webhook of schedule bad is not called" in caplog.text
        (node.runtime.config.data / NAME).write_text("{")
        assert channels(node) == ("jobs",)
        assert "webhooks of added schedules are not called" in caplog.text
