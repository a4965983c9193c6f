"""A worker of Django's tasks: ``dropr worker`` for the channels of the project's queues.

Owns which channels those are and how its processes are started. Processes, threads, heart-beats, draining and the fresh
start are dropr's own.
"""

import os
from collections.abc import Callable, Collection, Sequence
from pathlib import Path

import attrs
from django.core.exceptions import ImproperlyConfigured

from dropr_core.angel.heartbeat import BEAT_VARIABLE
from dropr_core.config.node import NodeConfig
from dropr_core.config.schema import Component
from dropr_core.system.loading import unforked
from dropr_django.backend import DroprBackend
from dropr_django.framework import backends


def worker_config(
    config: NodeConfig, queues: Collection[str] = (), threads: int | None = None, processes: int | None = None
) -> NodeConfig:
    """The configuration of such a worker: the channels of these queues (none named: of all) that end at this node are
    handled, nothing else is. Raises ImproperlyConfigured if there is nothing to do.
    """
    known: dict[str, str] = {}
    anything = False
    for backend in backends():
        if isinstance(backend, DroprBackend):
            known |= {queue: backend.dropr.channel(queue) for queue in backend.queues}
            if not backend.queues:  # any name is a queue
                anything = True
                known |= {queue: backend.dropr.channel(queue) for queue in queues}
    if not known:
        what = "name --queue" if anything else "TASKS names no backend dropr_django.backend.DroprBackend"
        raise ImproperlyConfigured(f"there is no queue to work for: {what}")
    for queue in queues:
        if queue not in known:
            raise ImproperlyConfigured(f"no backend has a queue {queue!r} (known: {', '.join(sorted(known))})")
    wanted = {known[queue] for queue in queues or known}
    channels = {name: attrs.evolve(one, handler=None) for name, one in config.channels.items()}
    here = sorted(name for name in wanted if name in channels and not channels[name].to)
    if not here:
        raise ImproperlyConfigured(
            f"no channel of {', '.join(sorted(wanted))} ends at node {config.node}: they are sent to peers, or not in "
            f"{config.where.name or 'its file'}; run the worker where they end"
        )
    for name in here:
        channels[name] = attrs.evolve(channels[name], handler=Component("django"))
    worker = attrs.evolve(
        config.worker,
        threads=config.worker.threads if threads is None else threads,
        processes=config.worker.processes if processes is None else processes,
    )
    return attrs.evolve(config, channels=channels, handlers=(), schedules={}, worker=worker)


def run_worker(config: NodeConfig, path: Path, command: Callable[[], Sequence[str]]) -> int:
    """Work until told to stop; the exit code. ``command``: how one more of these processes is started."""
    if config.worker.processes > 1 and BEAT_VARIABLE not in os.environ:
        return _keep(config, command())
    with unforked:
        from dropr_core.processes.worker import run

    return run(config, path=path)


def _keep(config: NodeConfig, command: Sequence[str]) -> int:
    """Several of them, under an angel."""
    with unforked:
        from dropr_core.angel.angel import Angel
        from dropr_core.angel.child import ChildSpec
        from dropr_core.angel.systemd import ServiceManager

    numbers = range(1, config.worker.processes + 1)
    children = [ChildSpec("worker" if number == 1 else f"worker-{number}", tuple(command)) for number in numbers]
    settings = config.angel
    angel = Angel(
        children,
        hang=settings.hang,
        drain=settings.drain,
        backoff=(settings.backoff_min, settings.backoff_max),
        healthy=settings.healthy,
        max_memory=settings.max_memory,
        manager=ServiceManager.from_environment(),
    )
    return angel.run()
