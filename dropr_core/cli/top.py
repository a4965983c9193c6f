"""The verb that follows a node: top.

Owns the loop: the clock, the terminal and its keys, and lines of JSON. `top_view.py` has what is shown.
"""

import contextlib
import json
import os
import select
import signal
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, NoReturn

import click

from dropr_core.cli.common import DURATION, opened, verb
from dropr_core.cli.failures import Stop
from dropr_core.errors import StoreError
from dropr_core.system.exit_codes import Exit

if TYPE_CHECKING:
    from dropr_core.api.runtime import Runtime
    from dropr_core.monitor.history import History

SHORTEST = 0.1
"""Seconds between two pictures at least."""
KEYS = {
    "\x1b[A": "up", "\x1b[B": "down", "\x1b[C": "right", "\x1b[D": "left", "\x1bOA": "up", "\x1bOB": "down",
    "\x1bOC": "right", "\x1bOD": "left", "\x1b": "esc", "\r": "enter", "\n": "enter", "\t": "tab", " ": "space",
    "\x7f": "backspace", "\x08": "backspace", "\x03": "ctrl-c",
}  # fmt: skip
"""What a terminal sends → the name of the key; a sign that is not among them is its own name."""


@verb(
    "top",
    keys="one line for each picture: all that `status` has, with `rates` since the line before (null in the first).",
)
@click.option("--every", type=DURATION, metavar="DURATION", default="1s", show_default=True, help="Look so often.")
@click.option("--count", type=click.IntRange(1), metavar="N", help="End after so many pictures.  [default: never]")
def top_verb(config_file: Path | None, as_json: bool, every: float, count: int | None) -> None:
    """Follow the node live: rates, sparklines, peers and channels; keys sort and look into one. `?` shows the keys."""
    every = max(SHORTEST, every)
    with opened(config_file) as node:
        if as_json:
            _print_lines(node, every, count)
            return
        if not (sys.stdout.isatty() and sys.stdin.isatty()):
            raise Stop(Exit.USAGE, "top needs a terminal; for programs there is 'dropr top --json'")
        _follow(node, every, count)


def _pictures(node: "Runtime", history: "History") -> str:
    """Take one; what went wrong, if it could not be taken."""
    from dropr_core.monitor.gathering import take_snapshot

    try:
        history.add(take_snapshot(node))
    except StoreError as error:
        return f"the store cannot be read now: {error}"
    return ""


def _print_lines(node: "Runtime", every: float, count: int | None) -> None:
    from dropr_core.monitor.history import History

    history, due = History(), time.monotonic()
    done = 0
    while True:
        if trouble := _pictures(node, history):
            click.echo(json.dumps({"node": node.name, "wall": time.time(), "trouble": trouble}))
        elif history.last is not None:
            speeds = None if history.rates is None else history.rates.as_dict()
            click.echo(json.dumps({**history.last.as_dict(), "rates": speeds}))
        sys.stdout.flush()
        done += 1
        if done == count:
            return
        due = max(due + every, time.monotonic())
        time.sleep(max(0.0, due - time.monotonic()))


# ── the terminal ─────────────────────────────────────────────────────────────────────────────────


def _follow(node: "Runtime", every: float, count: int | None) -> None:
    from rich.console import Console, Group
    from rich.live import Live

    from dropr_core.cli.top_view import View, press, screen
    from dropr_core.monitor.history import History

    console, history, view = Console(highlight=False), History(), View()
    trouble, due, done = "", time.monotonic(), 0
    with _keyboard(), Live(console=console, screen=True, auto_refresh=False) as live:
        while not view.over:
            if time.monotonic() >= due:
                if not view.still:
                    trouble = _pictures(node, history)
                    done += 1
                due = max(due + every, time.monotonic())
            width, height = console.size
            live.update(Group(*screen(view, history, width, height, trouble)), refresh=True)
            if done == count:
                return
            for key in _read_keys(max(0.0, due - time.monotonic())):
                if history.last is not None or key in {"q", "ctrl-c"}:
                    view = press(view, key, history.last, history.rates)  # type: ignore[arg-type]


@contextlib.contextmanager
def _keyboard() -> Iterator[None]:
    """Each key comes at once and is not shown; the terminal is as before when this ends, also by a signal."""
    import termios
    import tty

    fd = sys.stdin.fileno()
    before = termios.tcgetattr(fd)
    ends = {number: signal.signal(number, _leave) for number in (signal.SIGTERM, signal.SIGHUP)}
    try:
        tty.setcbreak(fd)
        yield
    except KeyboardInterrupt:
        return
    finally:
        termios.tcsetattr(fd, termios.TCSADRAIN, before)
        for number, handler in ends.items():
            signal.signal(number, handler)


def _leave(number: int, _frame: object) -> NoReturn:
    sys.exit(128 + number)


def _read_keys(seconds: float) -> list[str]:
    """The keys that were pressed, as soon as there is one; none after so many seconds."""
    fd = sys.stdin.fileno()
    ready, _, _ = select.select([fd], [], [], seconds)
    if not ready:
        return []
    data = os.read(fd, 256)
    return keys_of(data.decode("utf-8", "ignore")) if data else ["q"]  # the terminal is gone


def keys_of(text: str) -> list[str]:
    """The names of the keys for which a terminal sent this."""
    found, at = [], 0
    while at < len(text):
        size = next((size for size in (3, 1) if text[at : at + size] in KEYS), 1)
        if text[at] == "\x1b" and size == 1 and text[at + 1 : at + 2] in {"[", "O"}:
            at += 3  # a key that means nothing here
            continue
        sign = text[at : at + size]
        found.append(KEYS.get(sign, sign))
        at += size
    return found
