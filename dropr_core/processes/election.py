"""One daemon at a time for a store that several machines share.

Owns how a daemon waits for its turn and who may know where the one that works is. With a store of one machine there is
nothing to wait for: a lock of the data directory says who. Must not know what a daemon does.
"""

import contextlib
import json
import logging
import os
import socket
import time
from typing import Any, Protocol

import attrs

from dropr_core.api.runtime import Runtime
from dropr_core.errors import StoreError
from dropr_core.processes.mainloop import MainLoop
from dropr_core.system.files import replace_text
from dropr_core.system.shared_document import Form

NAME = "daemon"
EVERY = 2.0
"""Seconds between two tries of a daemon that waits."""
DOCUMENT = "elected.json"
VERSION = 1


class Office(Protocol):
    """The right to be the daemon."""

    def holds(self) -> bool:
        """Whether it is still ours."""
        ...

    def release(self) -> None:
        """Let another one have it; safe twice, never raises."""
        ...


class Unshared:
    """That of a store which one machine opens."""

    def holds(self) -> bool:
        """Always: the lock of the data directory is ours."""
        return True

    def release(self) -> None:
        """Nobody waits for it."""


@attrs.frozen
class Elected:
    """Where the daemon of a node works."""

    machine: str
    pid: int
    since: float
    """Time of the store."""


def stand(runtime: Runtime, loop: MainLoop, log: logging.Logger) -> Office | None:
    """Wait until this process is elected; None: it was told to stop."""
    shared = runtime.storage.shared
    if shared is None:
        return Unshared()
    said, away = "", False
    while not loop.stopping:
        try:
            office = shared.elect(NAME, loop.wake)
        except StoreError as error:  # the database is away: whoever holds it has lost it, too
            office = None
            if not away:
                away = True
                log.warning("cannot stand for election; it is tried again every %.0f s: %s", EVERY, error)
        else:
            away = False
        if office is not None:
            _note(runtime)
            log.info("elected: this daemon works for %s now", runtime.name)
            return office
        who = find_elected(runtime)
        where = "another machine" if who is None else f"machine {who.machine} (process {who.pid})"
        if where != said and not away:
            said = where
            log.info("the daemon of %s works on %s; this one waits, and takes over when that one ends", runtime.name,
                     where)  # fmt: skip
            _say_waiting(runtime, where)
        loop.run_posts()
        _wait(loop)
    return None


def _wait(loop: MainLoop) -> None:
    ends = time.monotonic() + EVERY
    while not loop.stopping and (left := ends - time.monotonic()) > 0:
        loop.sleep(left)


def _say_waiting(runtime: Runtime, where: str) -> None:
    """For `dropr status`."""
    document = {"pid": os.getpid(), "node": runtime.name, "peers": {}, "store": "", "waits_for": where}
    with contextlib.suppress(OSError):
        replace_text(runtime.run_directory / "daemon.json", json.dumps(document))


def _note(runtime: Runtime) -> None:
    now = runtime.clock.now() + runtime.documents.shift()
    try:
        with runtime.documents.document(DOCUMENT, _FORM).changing() as kept:
            kept[NAME] = Elected(socket.gethostname(), os.getpid(), now)
    except StoreError:  # it is only for people
        return


def find_elected(runtime: Runtime) -> Elected | None:
    """Where the daemon works, as it said when it was elected; None: nobody knows, or nobody shares this store."""
    if runtime.storage.shared is None:
        return None
    try:
        return runtime.documents.document(DOCUMENT, _FORM).look().get(NAME)
    except StoreError:
        return None


def _decode(document: Any) -> dict[str, Elected]:
    if document["version"] != VERSION:
        raise ValueError(f"version {document['version']!r}")
    return {
        str(name): Elected(str(one["machine"]), int(one["pid"]), float(one["since"]))
        for name, one in document["elected"].items()
    }


def _encode(kept: dict[str, Elected]) -> object:
    return {"version": VERSION, "elected": {name: attrs.asdict(one) for name, one in kept.items()}}


_FORM: Form[dict[str, Elected]] = Form(_decode, _encode, dict[str, Elected], "remove it: it only tells people")

__all__ = ["Elected", "Office", "Unshared", "find_elected", "stand"]
