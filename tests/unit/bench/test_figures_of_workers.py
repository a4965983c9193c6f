"""What the figures of workers rest on: a worker that begins to work, and is told when there is something to do."""

import dropr_core as dropr
from bench.backlog import Peer
from bench.figure import Run
from bench.figures import task_queues
from bench.nodes import node_file
from bench.peers import redis_tasks
from dropr_core.model import topics


def test_tasks_of_our_own_are_handled_by_the_worker(tmp_path):
    """The worker beside the task queues has a sound configuration: it starts, and handles what was put."""
    run = Run(tmp_path, 1, 0.0001, storages=("fs",))
    assert task_queues.own_tasks(run, "fs", task_queues.one_by_one) > 0


def test_whoever_waits_is_woken_by_what_the_bench_pushes(tmp_path):
    """What the bench pushes wakes consumers as a server would, so that no figure waits for their next look."""
    with dropr.open(node_file(Run(tmp_path), "fs")) as node:
        waiting = node.runtime.notifier.subscribe(topics.inbox("orders"))
        try:
            waiting.prepare()
            Peer(node).push(3)
            assert waiting.wait(0)
        finally:
            waiting.close()


def test_a_library_without_its_client_of_redis_is_skipped(monkeypatch):
    """Celery may be there for other tests, without that client: this costs its own line and not the whole figure."""
    monkeypatch.setattr(redis_tasks.shutil, "which", lambda name: f"/usr/bin/{name}")
    monkeypatch.setattr(redis_tasks.importlib.util, "find_spec", lambda _name: None)
    assert redis_tasks.missing_server() == "the client redis is not installed"
