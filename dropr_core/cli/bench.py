"""The verb bench: what the user's own disk and lines reach, and what dropr makes of them.

Owns its options, the directory that is filled and removed, and how the figures are shown. What is measured is in
dropr_core/bench/.
"""

import shutil
import signal
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from dropr_core.cli.common import DEFAULT_FILE, load_config, start_log, verb
from dropr_core.cli.failures import Stop
from dropr_core.cli.output import echo, echo_json, echo_table
from dropr_core.system.exit_codes import Exit

if TYPE_CHECKING:
    from dropr_core.bench.row import Row
    from dropr_core.config.node import NodeConfig

NEEDS = 512 * 1024 * 1024
"""Bytes that must be free where it works."""
SECONDS = 0.2
"""Of one measurement of the disk."""
MESSAGES = (10_000, 100)
"""Between two nodes: in batches, one at a time."""
PARTS = ("disk", "nodes", "line")


@verb(
    "bench",
    keys="`machine` (names and texts), `directory`, `rows`, a list: `part` (`disk`, `nodes` or `line`), `what`, "
    "`unit`, `median`, `spread` (range of the middle half, as a share of the median), `values`, `limit` (null, or "
    "`what`, `median`, `values`: the raw limit of the same rounds, or what else it is compared with), `problem` (why "
    "there are no values, and `median` and `spread` are null; empty if there are).",
)
@click.option(
    "--directory", type=click.Path(exists=True, file_okay=False, path_type=Path),
    help="A directory on the disk to measure. Default: that of the node's data; without a node, the current one.",
)  # fmt: skip
@click.option(
    "--only", "parts", type=click.Choice(PARTS), multiple=True, help="Only this part; may be repeated. Default: all."
)
@click.option("--storage", metavar="NAME", help="The storage to measure. Default: the node's, else sqlite.")
@click.option("--rounds", type=click.IntRange(2, 100), default=5, show_default=True, help="Measurements of each thing.")
@click.pass_context
def bench_verb(
    ctx: click.Context, config_file: Path | None, as_json: bool, directory: Path | None, parts: tuple[str, ...],
    storage: str | None, rounds: int,
) -> None:  # fmt: skip
    """Measure this disk and the lines to the peers, in less than a minute.

    disk: what the bare disk reaches, and beside it what dropr does: send, receive, acknowledge. nodes: two nodes on
    this machine, from one to the other. line: a signed request to each peer that this node calls, and how many bytes a
    second go there; nothing is stored there. Without a configuration there are no peers, and the rest is measured.
    Works in a directory that is removed again; the node's own store is not touched and may be in use.
    """
    from dropr_core.bench.machine import describe

    config = load_config(config_file) if config_file is not None or Path(DEFAULT_FILE).is_file() else None
    start_log(ctx, "dropr", least=-1)
    where = directory or _place_of(config)
    chosen = _component(config, storage)
    with ExitStack() as stack:
        stack.enter_context(_stopped_like_interrupted())
        home = stack.enter_context(_room_in(where))
        machine = describe(where)
        say = stack.enter_context(_saying())
        rows = list(_rows(config, home, chosen, parts or PARTS, say, rounds))
    if as_json:
        echo_json({"machine": machine, "directory": str(where), "rows": [_json(row) for row in rows]})
        return
    echo_table(("", ""), [(name, text) for name, text in machine.items() if name != "when"], header=False)
    echo("")
    echo_table(("what", "median>", "", "spread>", "beside it"), [_shown(row) for row in rows])


def _place_of(config: "NodeConfig | None") -> Path:
    """The nearest directory that is there, of the node's data or of whoever asks."""
    place = Path.cwd() if config is None else config.data
    while not place.is_dir():
        place = place.parent
    return place


def _component(config: "NodeConfig | None", storage: str | None) -> dict[str, Any]:
    """The storage as a file would name it, with the node's options if it is the node's."""
    if config is not None and storage in {None, config.storage.use}:
        return {"use": config.storage.use, **config.storage.options}
    return {"use": storage or "sqlite"}


@contextmanager
def _room_in(where: Path) -> Iterator[Path]:
    try:
        free = shutil.disk_usage(where).free
        if free < NEEDS:
            raise Stop(
                Exit.UNAVAILABLE,
                f"{where} has {free >> 20} MiB free, and the bench needs {NEEDS >> 20}; name another with --directory",
            )
        made = tempfile.mkdtemp(prefix="dropr-bench-", dir=where)
    except OSError as error:
        raise Stop(Exit.CANTCREAT, f"{where}: {error}; name another directory with --directory") from None
    try:
        yield Path(made)
    finally:
        shutil.rmtree(made, ignore_errors=True)


@contextmanager
def _stopped_like_interrupted() -> Iterator[None]:
    """SIGTERM ends it as Ctrl-C does: processes are ended, and the directory is removed."""
    kept = signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, kept)


@contextmanager
def _saying() -> Iterator[Any]:
    """A line for people about what is measured now; it is gone at the end."""
    from rich.console import Console

    with Console(stderr=True).status("bench") as status:
        yield lambda text: status.update(f"measuring {text}")


def _rows(
    config: "NodeConfig | None", home: Path, storage: Mapping[str, Any], parts: tuple[str, ...], say: Any, rounds: int
) -> Iterator["Row"]:
    from dropr_core.api.node import Node
    from dropr_core.bench import disk
    from dropr_core.bench.line import measure_lines
    from dropr_core.bench.loopback_nodes import measure_nodes
    from dropr_core.bench.row import Row
    from dropr_core.config.node import from_mapping
    from dropr_core.errors import ConfigError, DroprError, PluginError

    alone = from_mapping({
        "node": "bench", "data": str(home / "data"), "storage": dict(storage), "limits": {"min_free": 0},
        "peers": {"nobody": {"mode": "pull", "key": "of-nobody-who-ever-asks"}},
        "channels": {disk.CHANNEL: {"to": "nobody"}},
    }, home)  # fmt: skip
    if "disk" in parts:
        with Node.open(alone) as node:
            yield from disk.measure_disk(node, home, say, rounds=rounds, seconds=SECONDS)
    if "nodes" in parts:
        try:
            yield from measure_nodes(home, storage, say, rounds=rounds, counts=MESSAGES)
        except (ConfigError, PluginError):
            raise
        except DroprError as error:
            yield Row("nodes", "two nodes on this machine", "", problem=str(error))
    if "line" in parts and config is not None:
        yield from measure_lines(config, home, say, rounds=rounds, seconds=3.0)


def _shown(row: "Row") -> tuple[str, ...]:
    from dropr_core.bench.samples import say_number

    if row.problem:
        return (row.what, "-", "", "", row.problem)
    beside = ""
    if row.limit is not None:
        share = row.samples.over(row.limit).median
        beside = f"{say_number(share)} of {say_number(row.limit.median)} {row.limit_label}"
    return (row.what, say_number(row.samples.median), row.unit, f"±{row.samples.spread / 2:.0%}", beside)


def _json(row: "Row") -> dict[str, object]:
    limit = row.limit
    return {
        "part": row.part, "what": row.what, "unit": row.unit,
        "median": None if row.problem else row.samples.median, "spread": None if row.problem else row.samples.spread,
        "values": list(row.samples.values),
        "limit": limit and {"what": row.limit_label, "median": limit.median, "values": list(limit.values)},
        "problem": row.problem,
    }  # fmt: skip
