"""The verb that checks a node's store: fsck.

Owns who must not run during a repair, the order of the checks, and how findings are shown. What is looked at is
in `contents.py` and in the storages.
"""

import logging
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from dropr_core.cli.common import load_config, start_log, verb
from dropr_core.cli.failures import Stop
from dropr_core.cli.output import echo, echo_json_list, say_count
from dropr_core.errors import DroprError, Held
from dropr_core.system.exit_codes import Exit

if TYPE_CHECKING:
    from dropr_core.config.node import NodeConfig
    from dropr_core.contracts.storage import Finding


class _Tally:
    """What was found until now."""

    def __init__(self) -> None:
        self.found = self.left = self.notes = self.messages = 0
        self.lost = False

    def add(self, finding: "Finding") -> None:
        if finding.severity == "note":
            self.notes += 1
            return
        self.found += 1
        self.left += not finding.repaired
        self.lost = self.lost or finding.severity == "damage"


@verb(
    "fsck",
    keys="`findings`, a list: `half` (`outbox`, `inbox`, `bodies` or `store`), `severity` (`damage`: something cannot "
    "be read any more; `mistake`: counters or states contradict the messages; `note`: nothing has to be done), `what` "
    "(it is about), `text` (what is wrong and what it means), `remedy` (what a repair does; empty: nothing), "
    "`repaired`. It is written while it is found.",
)
@click.option("--repair", is_flag=True, help="Repair what can be repaired. Every process of the node must be stopped.")
@click.pass_context
def fsck_verb(ctx: click.Context, config_file: Path | None, as_json: bool, repair: bool) -> None:
    """Check the node's store: files, counters, every message, every large body.

    Without --repair nothing changes, and the node may run meanwhile. Nothing that cannot be read is ever deleted:
    messages become dead letters, files are moved aside. Exit 0: nothing was found, or all of it was repaired; 1:
    something is left.
    """
    config = load_config(config_file)
    start_log(ctx, "dropr")
    if not config.data.is_dir():
        raise Stop(Exit.NO_INPUT, f"node {config.node} has nothing yet: {config.data} does not exist")
    tally = _Tally()
    with _alone(config) if repair else ExitStack():
        found = _findings(config, tally, repair=repair)
        if as_json:
            echo_json_list({}, "findings", map(_document, found))
        else:
            for finding in found:
                _show(finding)
    if not as_json:
        looked = f"{say_count(tally.messages, 'message')} looked at"
        if not tally.found:
            echo(f"nothing is wrong with the store of {config.node}: {looked}")
        else:
            tail = "" if repair or not tally.left else "; 'dropr fsck --repair' does what stands behind each"
            echo(f"{say_count(tally.found, 'finding')}, {tally.found - tally.left} repaired, {tally.left} left{tail}; "
                 f"{looked}")  # fmt: skip
    if tally.left:
        raise Stop(Exit.FAILED)


def _findings(config: "NodeConfig", tally: _Tally, *, repair: bool) -> "Iterator[Finding]":
    for finding in chain(
        _head(config, repair=repair), _of_storage(config, repair=repair), _of_messages(config, tally, repair=repair)
    ):
        tally.add(finding)
        yield finding


def _head(config: "NodeConfig", *, repair: bool) -> "Iterator[Finding]":
    """The node's id."""
    from dropr_core.api.data_directory import prepare
    from dropr_core.contracts.storage import Finding

    missing = not (config.data / "node.id").exists()
    try:
        prepare(config.data, read_only=not repair)
    except DroprError as error:
        remedy = "makes a new one; peers do not go by it" if missing else ""
        yield Finding("store", "damage", "node.id", str(error), remedy)
    else:
        if missing:
            yield Finding("store", "damage", "node.id", "was missing", "a new one was made", True)


def _of_storage(config: "NodeConfig", *, repair: bool) -> "Iterator[Finding]":
    """What the storage says about its own files."""
    import attrs

    from dropr_core.contracts.storage import Finding
    from dropr_core.plugin.host import make_context
    from dropr_core.plugin.observers import Observers
    from dropr_core.plugin.registry import create
    from dropr_core.system.clock import open_clock, read_clock

    log = logging.getLogger(f"dropr.{config.node}")
    clock = open_clock(config.data) if repair else read_clock(config.data)
    context = make_context(config, clock, log, Observers(), read_only=not repair)
    context = attrs.evolve(context, checking=True)
    use = config.storage
    try:
        storage = create("storage", use.use, use.options, context, "storage", config.where)
    except Held:
        raise
    except DroprError as error:
        if _is_mine(error):
            raise
        yield Finding("store", "damage", str(config.data), str(error))
        return
    try:
        yield from storage.check(repair=repair)
    finally:
        storage.close()


def _is_mine(error: DroprError) -> bool:
    """Whether an error is about the configuration or a plugin, not the store."""
    from dropr_core.errors import StoreError

    return not isinstance(error, StoreError)


def _of_messages(config: "NodeConfig", tally: _Tally, *, repair: bool) -> "Iterator[Finding]":
    """Whether each message can be read."""
    from dropr_core.api.runtime import Runtime
    from dropr_core.contracts.storage import Finding
    from dropr_core.fsck.contents import ContentCheck

    try:
        node = Runtime.open(config, read_only=not repair)
    except DroprError as error:
        if _is_mine(error):
            raise
        severity: Any = "note" if tally.left else "damage"
        yield Finding("store", severity, str(config.data), f"the messages could not be looked at ({error})")
        return
    with node:
        checkup = ContentCheck(
            node.outbox, node.inbox, node.bodies, repair=repair, lost=tally.lost,
            say=lambda text: node.log.info("%s", text),
        )  # fmt: skip
        try:
            yield from checkup.run()
        finally:
            tally.messages = checkup.messages


# ── who must not run ─────────────────────────────────────────────────────────────────────────────


@contextmanager
def _alone(config: "NodeConfig") -> Iterator[None]:
    """Keep daemon and angel from beginning; raises Held naming who runs."""
    from dropr_core.system.locks import FileLock, is_held
    from dropr_core.system.presence import living

    with ExitStack() as held:
        for path in (config.data / "run" / "angel.lock", config.data / "daemon.lock"):
            if path.parent.is_dir():
                lock = FileLock(path)
                lock.acquire("dropr fsck")
                held.callback(lock.release)
        for name in ("server", "worker"):
            for report in living(config.data / "run", name):
                raise Held(f"a {name} of this node runs (pid {report.get('pid')}); stop it first")
        consumers = config.data / "consumers"
        for path in sorted(consumers.iterdir()) if consumers.is_dir() else ():
            if is_held(path):
                raise Held(f"a consumer takes messages of this node ({path.name}); stop its process first")
        yield


# ── how it is shown ──────────────────────────────────────────────────────────────────────────────


def _document(finding: "Finding") -> dict[str, Any]:
    return {
        "half": finding.half, "severity": finding.severity, "what": finding.what, "text": finding.text,
        "remedy": finding.remedy, "repaired": finding.repaired,
    }  # fmt: skip


def _show(finding: "Finding") -> None:
    echo(f"{finding.severity}: {finding.half}: {finding.what}: {finding.text}")
    if finding.repaired:
        echo(f"    repaired: {finding.remedy}")
    elif finding.remedy:
        echo(f"    --repair {finding.remedy}")
    elif finding.severity != "note":
        echo("    --repair can do nothing about it")
