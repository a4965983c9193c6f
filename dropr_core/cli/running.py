"""The verbs that run until they are told to stop: daemon, server, worker, gateway, monitor, angel, up.

Owns how a process of dropr begins: its configuration, its log, its exit code. What it then does is
in the module of its name; the angel starts these very verbs.
"""

import contextlib
import logging
import os
import signal
import threading
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import click

from dropr_core.cli.common import find_config, load_config, start_log, verb
from dropr_core.cli.failures import Stop
from dropr_core.system.exit_codes import Exit
from dropr_core.system.loading import collect_rarely, collector_paused

if TYPE_CHECKING:
    from dropr_core.angel.child import ChildSpec
    from dropr_core.config.node import NodeConfig

HEARTBEAT = "DROPR_HEARTBEAT_FD"
"""Set where an angel started us (heartbeat.py)."""

CHILD_NAME = "DROPR_CHILD_NAME"
"""What it calls us (the same)."""

ROLES = ("daemon", "server", "worker", "gateway", "monitor")


@verb("daemon")
@click.pass_context
def daemon_verb(ctx: click.Context, config_file: Path | None) -> None:
    """Carry this node's messages to its peers, and fetch from peers that are fetched from."""
    path, config = _begin(ctx, "daemon", config_file)
    with collector_paused():
        from dropr_core.processes.daemon import run

    collect_rarely()
    ctx.exit(run(config, path=path))


@verb("server")
@click.pass_context
def server_verb(ctx: click.Context, config_file: Path | None) -> None:
    """Listen for peers: take their messages in, hand them what they fetch."""
    path, config = _begin(ctx, "server", config_file)
    if not config.listen:
        raise Stop(Exit.CONFIG, f"{path}: node {config.node} has no `listen:`, so a server has nothing to do")
    with collector_paused():
        from dropr_core.processes.server import run

    collect_rarely()
    ctx.exit(run(config, path=path))


@verb("worker")
@click.option(
    "--reload", "reloads", is_flag=True, help="For development: start afresh whenever code or YAML here changes."
)
@click.pass_context
def worker_verb(ctx: click.Context, config_file: Path | None, reloads: bool) -> None:
    """Call the handlers of this node's channels for the messages that came in.

    With `worker: {processes: N}` and no angel above it, it starts N processes and keeps them alive.
    """
    if reloads:
        from dropr_core.cli.autoreload import watch_worker

        start_log(ctx, "worker")
        ctx.exit(watch_worker(find_config(config_file).absolute(), ctx.obj.verbosity))
    path, config = _begin(ctx, "worker", config_file)
    if config.worker.processes > 1 and HEARTBEAT not in os.environ:
        ctx.exit(_keep(config, lambda config: _children(ctx, path, config, ["worker"]), path))
    with collector_paused():
        from dropr_core.processes.worker import run

    ctx.exit(run(config, path=path))


@verb("gateway")
@click.pass_context
def gateway_verb(ctx: click.Context, config_file: Path | None) -> None:
    """Open doors for programs that speak beanstalkd, STOMP, SQS and the like: those that `gateways:` names."""
    path, config = _begin(ctx, "gateway", config_file)
    if not config.gateways:
        raise Stop(Exit.CONFIG, f"{path}: node {config.node} has no `gateways:`, so a gateway has nothing to do")
    with collector_paused():
        from dropr_core.processes.gateway import run

    ctx.exit(run(config, path=path))


@verb("monitor")
@click.pass_context
def monitor_verb(ctx: click.Context, config_file: Path | None) -> None:
    """Serve the page that shows how this node does, in a process of its own: where `monitor:` listens.

    A node whose `run:` does not name monitor has it served by its server. 'dropr dashboard' shows the link.
    """
    path, config = _begin(ctx, "monitor", config_file)
    if not config.monitor.listen:
        raise Stop(
            Exit.CONFIG,
            f"{path}: node {config.node} has no page; say where: monitor: {{listen: http://127.0.0.1:8429}}",
        )
    with collector_paused():
        from dropr_core.processes.monitor import run

    collect_rarely()
    ctx.exit(run(config, path=path))


@verb("angel")
@click.argument("roles", metavar="ROLE...", nargs=-1, required=True, type=click.Choice(ROLES))
@click.pass_context
def angel_verb(ctx: click.Context, config_file: Path | None, roles: tuple[str, ...]) -> None:
    """Keep these processes of a node alive: daemon, server, worker, gateway, monitor.

    SIGHUP makes them read the file again.
    """
    path, config = _begin(ctx, "angel", config_file)
    _watch(ctx, path, config, lambda _config: list(dict.fromkeys(roles)))


@verb("up")
@click.pass_context
def up_verb(ctx: click.Context, config_file: Path | None) -> None:
    """Run the whole node: an angel with every process that `run:` names."""
    path, config = _begin(ctx, "angel", config_file)
    _watch(ctx, path, config, lambda config: config.run)


def _ignore_reloads() -> None:
    """SIGHUP ends no process that is on its way out: where the main loop does not listen any more, there is nothing to
    reload. (It listens with a handler of its own; what it starts does not inherit this.)
    """
    if threading.current_thread() is threading.main_thread() and signal.getsignal(signal.SIGHUP) is signal.SIG_DFL:
        signal.signal(signal.SIGHUP, signal.SIG_IGN)


def _begin(ctx: click.Context, role: str, config_file: Path | None) -> "tuple[Path, NodeConfig]":
    _ignore_reloads()
    path = find_config(config_file).absolute()
    config = load_config(path)
    log = start_log(ctx, role, name=os.environ.get(CHILD_NAME, ""), node=config.node, logs=config.logs)
    log.hide(key.decode("utf-8", "replace") for peer in config.peers.values() for key in peer.keys)
    log.hide(filter(None, [config.monitor.token]))
    from dropr_core.plugin.confidential import IN_PROCESS, secrets_of

    log.hide(text for _, text in secrets_of(config, IN_PROCESS.get(role, ())))
    if role == "angel" or HEARTBEAT not in os.environ:  # else the angel has said it
        from dropr_core.config.exposure import find_exposures

        for warning in (*config.warnings, *find_exposures(config, lambda: (steps for steps, _ in secrets_of(config)))):
            logging.getLogger("dropr").warning("%s", warning)
    return path, config


def _watch(
    ctx: click.Context, path: Path, config: "NodeConfig", roles: "Callable[[NodeConfig], Sequence[str]]"
) -> None:
    from dropr_core.api.data_directory import prepare
    from dropr_core.system.locks import FileLock
    from dropr_core.system.os_errors import store_errors

    prepare(config.data, read_only=False)
    directory = config.data / "run"
    lock = FileLock(directory / "angel.lock")
    with store_errors(lock.path):
        lock.acquire("dropr angel")
    state = directory / "angel.json"
    try:
        code = _keep(config, lambda config: _children(ctx, path, config, roles(config)), path, state)
    finally:
        with contextlib.suppress(OSError):  # a disk that is read-only by now: `status` asks the lock
            state.unlink(missing_ok=True)
        lock.release()
    ctx.exit(code)


def _children(ctx: click.Context, path: Path, config: "NodeConfig", roles: Sequence[str]) -> "list[ChildSpec]":
    """The processes of these roles; of workers as many as the configuration says."""
    from dropr_core.angel.angel import role_child

    loudness = ctx.obj.verbosity  # what was asked of the angel goes for its children
    flags = [] if not loudness else ["-q"] if loudness < 0 else ["-" + "v" * min(loudness, 3)]
    return [
        role_child(role, path, number, *flags)
        for role in roles
        for number in range(1, 1 + (config.worker.processes if role == "worker" else 1))
    ]


def _keep(
    config: "NodeConfig",
    children: "Callable[[NodeConfig], list[ChildSpec]]",
    path: Path,
    state: Path | None = None,
) -> int:
    """Keep children alive until told to stop; after a reload those that the file says then. The angel's exit code."""
    from dropr_core.angel.angel import Angel
    from dropr_core.angel.systemd import ServiceManager

    settings = config.angel
    angel = Angel(
        children(config),
        state_file=state,
        hang=settings.hang,
        drain=settings.drain,
        backoff=(settings.backoff_min, settings.backoff_max),
        healthy=settings.healthy,
        max_memory=settings.max_memory,
        manager=ServiceManager.from_environment(),  # taken out of it: the children are not its business
        renew=lambda: children(load_config(path)),
    )
    return angel.run()
