"""What has happened of one schedule: how far it has come, and its last runs.

Owns the documents ``schedules/<name in hex>.json`` of the node (docs/formats/schedules.md). Must not know what is
due, nor what a run sends.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import PurePath
from typing import Any

import attrs

from dropr_core.model.limits import clip
from dropr_core.model.recurrence import Recurrence
from dropr_core.schedules.due import Fired
from dropr_core.system.shared_document import Documents, Form

DIRECTORY = "schedules"
VERSION = 1
KEPT = 20
"""Runs of a schedule that are kept."""
MAX_TEXT = 4096
"""Characters of a result that are kept."""
ADVICE = (
    "it says how far a schedule has come; remove it: the schedule begins anew, and what it missed until now is left out"
)


@attrs.define
class Run:
    """One time at which a schedule happened."""

    due: int
    """Milliseconds since the epoch, as all times here."""
    at: int
    """When it was put into the queue."""
    id: str
    """Of its message; empty: there is none, see `reason`."""
    manual: bool = False
    """By a person, not by the clock."""
    state: str = ""
    """How it ended, if that is known here; of a message for peers the outbox knows it."""
    result: str | None = None
    reason: str = ""


@attrs.define
class State:
    """One schedule's. Empty as long as nobody has seen it."""

    rule: str = ""
    """The text of the rule for which this holds."""
    cursor: int = 0
    """Everything up to it was dealt with."""
    fired: Fired = Fired()
    skipped: int = 0
    """Due times that were missed and left out, ever."""
    runs: list[Run] = attrs.field(factory=list)
    """The newest last."""

    def begin(self, rule: Recurrence, now: int) -> bool:
        """If it does not hold for this rule: begin anew, now. Whether it did."""
        if self.rule == rule.text:
            return False
        self.rule, self.cursor, self.fired = rule.text, now, Fired()
        return True

    def add(self, run: Run) -> None:
        """One more run; it takes the place of one with the same message."""
        self.runs = [one for one in self.runs if not one.id or one.id != run.id]
        self.runs = [*self.runs, run][-KEPT:]

    def find(self, identity: str) -> Run | None:
        """The run whose message has an id."""
        return next((one for one in self.runs if one.id == identity), None)


class StateFile:
    """That of one schedule. Safe from many processes."""

    def __init__(self, documents: Documents, name: str) -> None:
        form = Form(_decode, _encode, State, ADVICE)
        self._file = documents.document(f"{DIRECTORY}/{name.encode().hex()}.json", form)

    def look(self) -> State:
        """What it says; not to be changed. Raises StoreError."""
        return self._file.look()

    @contextmanager
    def changing(self) -> Iterator[State]:
        """To be changed in the block, durable after it. Raises StoreError."""
        with self._file.changing() as state:
            yield state

    def remove(self) -> None:
        """Forget it. Raises StoreError."""
        self._file.remove()


def known(documents: Documents) -> list[str]:
    """The names of the schedules of which there is a state."""
    try:
        return sorted(bytes.fromhex(PurePath(name).stem).decode() for name in documents.names(f"{DIRECTORY}/"))
    except ValueError:
        return []


def _encode(state: State) -> object:
    runs = [attrs.asdict(one) for one in state.runs]
    for one in runs:
        one["result"] = None if one["result"] is None else one["result"][:MAX_TEXT]
        one["reason"] = clip(one["reason"])
    return {
        "version": VERSION, "rule": state.rule, "cursor": state.cursor, "fired": state.fired.ranges,
        "skipped": state.skipped, "runs": runs,
    }  # fmt: skip


def _decode(document: Any) -> State:
    if document["version"] != VERSION:
        raise ValueError(f"version {document['version']!r}")
    ranges: Sequence[Sequence[int]] = document["fired"]
    runs = [
        Run(
            int(one["due"]), int(one["at"]), str(one["id"]), bool(one["manual"]), str(one["state"]),
            None if one["result"] is None else str(one["result"]), str(one["reason"]),
        )
        for one in document["runs"]
    ]  # fmt: skip
    fired = Fired(tuple((int(first), int(last)) for first, last in ranges))
    return State(str(document["rule"]), int(document["cursor"]), fired, int(document["skipped"]), runs)


__all__ = ["KEPT", "Run", "State", "StateFile", "known"]
