"""Makes what is due happen, and takes in what became of it.

Owns the turn: for each schedule first its message is stored, under an id made of name and due time, then its state; so
a kill between the two repeats the first step, which finds the message there. Sleeps until the next due time. One
process of a node does it at a time (the daemon). Must not know loops or processes.
"""

import logging

import attrs

from dropr_core.api.runtime import Runtime
from dropr_core.config.schedules import ScheduleConfig
from dropr_core.errors import DroprError, StoreError
from dropr_core.model import topics
from dropr_core.model.media_types import parse_media_type
from dropr_core.model.message import Outcome
from dropr_core.model.names import StoreId, due_of_run, format_id, is_of_run
from dropr_core.model.recurrence import SECOND, Recurrence, to_moment
from dropr_core.schedules.definitions import Definitions
from dropr_core.schedules.due import Plan, jitter, plan
from dropr_core.schedules.firing import Firing, say_moment, sender_of
from dropr_core.schedules.state import MAX_TEXT, Run, StateFile, known

LONGEST = 300.0
"""Seconds until it looks again at the latest."""
PAGE = 100
"""Outcomes, and runs, that are written down together."""
DISABLED = "disabled"
"""In place of the rule of a schedule that is switched off."""
REST = 5.0
"""Seconds until a run is tried again for which there was no room."""


@attrs.define
class Entry:
    """A schedule that happens."""

    config: ScheduleConfig
    rule: Recurrence
    file: StateFile
    next: int | None
    """When to look at it, in milliseconds since the epoch; None: it is over."""


class Scheduler:
    """The schedules of one open node. For one thread."""

    def __init__(self, runtime: Runtime, log: logging.Logger) -> None:
        self._runtime, self._log = runtime, log
        self._definitions = Definitions(runtime.config, runtime.documents)
        self._firing = Firing(runtime)
        self._entries: dict[str, Entry] = {}
        self._stamp: object = None
        self._said: dict[str, str] = {}
        self._wall = 0
        self._owner = sender_of(runtime.name)
        self._open: set[str] = set()
        """Messages of runs in this node's own queue that have not ended."""
        self._fresh = True
        """Nothing was read yet: what ended while nobody was here is still to be taken in."""
        self._log_id: StoreId | None = None
        self._read = 0
        self.topic = topics.outcomes(self._owner)
        """Notified when a run in this node's own queue has ended."""

    def turn(self, now: float) -> float:
        """Everything that is due; the node time at which to look again at the latest. Raises StoreError: what was not
        done is due still.
        """
        wall = to_moment(self._runtime.clock.wall())
        self._load(wall)
        if not self._entries:
            return now + LONGEST
        if self._open or self._fresh:
            self._collect()
            self._fresh = False
        failed: StoreError | None = None
        for entry in self._entries.values():
            # A clock that was set back: whatever comes now is nearer than it was.
            if wall < self._wall or (entry.next is not None and wall >= entry.next):
                try:
                    self._happen(entry, wall)
                except StoreError as error:
                    failed = error
        self._wall = wall
        if failed is not None:
            raise failed
        nearest = min((entry.next for entry in self._entries.values() if entry.next is not None), default=None)
        return now + (LONGEST if nearest is None else min(LONGEST, max(0.0, (nearest - wall) / SECOND)))

    # ── which there are ──────────────────────────────────────────────────────────────────────────

    def _load(self, wall: int) -> None:
        stamp = self._definitions.stamp()
        if stamp is self._stamp:
            return
        found, bad = self._definitions.all()
        paused, entries = self._definitions.paused, dict[str, Entry]()
        for name, config in found.items():
            if name in paused or not config.enabled:
                continue
            try:
                rule = config.rule()
            except DroprError as error:  # the library was removed, or a time zone
                bad[name] = str(error)
                continue
            file = StateFile(self._runtime.documents, name)
            if file.look().rule != rule.text:
                with file.changing() as state:
                    state.begin(rule, wall)
            entries[name] = Entry(config, rule, file, wall)
            if not self._firing.peers(config):
                self._open.update(run.id for run in file.look().runs if run.id and not run.state)
        for name in set(known(self._runtime.documents)) - found.keys() - bad.keys():
            StateFile(self._runtime.documents, name).remove()
        for name, config in found.items():
            file = StateFile(self._runtime.documents, name)
            if not config.enabled and file.look().rule not in {"", DISABLED}:  # enabled again, it begins anew
                with file.changing() as state:
                    state.rule = DISABLED
        for name, text in bad.items():
            if self._said.get(name) != text:
                self._log.error("schedule %s does not happen: %s", name, text)
        self._said, self._entries, self._stamp = bad, entries, stamp

    # ── what is due ──────────────────────────────────────────────────────────────────────────────

    def _happen(self, entry: Entry, wall: int) -> None:
        config, state = entry.config, entry.file.look()
        if state.cursor > wall:  # else nothing would happen until the clock is there again
            if state.cursor - wall > SECOND:
                self._log.warning(
                    "schedule %s: the clock was set back behind %s; nothing that has happened happens again",
                    config.name, say_moment(state.cursor),
                )  # fmt: skip
            with entry.file.changing() as state:
                state.cursor = wall
        later = jitter(config.name, self._runtime.name, to_moment(config.jitter))
        made = plan(entry.rule, state.cursor, state.fired, wall, config.missed, later)
        if made.skipped:
            self._log.warning(
                "schedule %s: %d due times up to %s were missed and are left out (missed: %s)",
                config.name, made.skipped, say_moment(made.upto), config.missed,
            )  # fmt: skip
        runs = list[Run]()
        try:
            for due in made.fire:
                runs.append(self._fire(config, due, wall))
                if len(runs) == PAGE:
                    self._note(entry, runs, due, 0)
                    runs = []
        except StoreError:
            entry.next = wall + to_moment(REST)
            if runs:
                self._note(entry, runs, runs[-1].due, 0)
            raise
        self._finish(entry, made, runs)
        entry.next = made.next

    def _finish(self, entry: Entry, made: Plan, runs: list[Run]) -> None:
        if runs or made.skipped:
            self._note(entry, runs, made.upto, made.skipped)

    def _fire(self, config: ScheduleConfig, due: int, wall: int) -> Run:
        try:
            identity = self._firing.fire(config, due)
        except StoreError:
            raise
        except (DroprError, OSError, TypeError, ValueError) as error:  # a value that its serializer does not take
            self._log.error("schedule %s: the run of %s sends nothing: %s", config.name, say_moment(due), error)
            return Run(due, wall, "", state="failed", reason=str(error))
        self._log.debug("schedule %s: the run of %s is message %s", config.name, say_moment(due), identity)
        if not self._firing.peers(config):
            self._open.add(identity)
        return Run(due, wall, identity)

    def _note(self, entry: Entry, runs: list[Run], upto: int, skipped: int) -> None:
        with entry.file.changing() as state:
            for run in runs:
                state.fired = state.fired.add(entry.rule, run.due)
                if run.id == "" or state.find(run.id) is None:
                    state.add(run)
            state.cursor = upto
            state.skipped += skipped

    # ── what became of it ────────────────────────────────────────────────────────────────────────

    def _collect(self) -> None:
        """Write down how runs in this node's own queue have ended. Before anything is fired: what has ended was put,
        though a kill may have kept its state from being written.
        """
        inbox = self._runtime.inbox
        while True:
            self._log_id, rows = inbox.outcomes(self._owner, self._log_id, self._read, PAGE)
            if not rows:
                return
            for name, ended in self._by_schedule(rows).items():
                entry = self._entries.get(name)
                file = entry.file if entry is not None else StateFile(self._runtime.documents, name)
                with file.changing() as state:
                    for row in ended:
                        self._open.discard(format_id(row.id))
                        known_run = state.find(format_id(row.id))
                        due = due_of_run(row.id)
                        run = known_run or Run(due, due, format_id(row.id))
                        run.state, run.reason, run.result = str(row.state), row.reason, _text_of(row)
                        if known_run is None and entry is not None and due not in state.fired:
                            state.fired = state.fired.add(entry.rule, due)
                            state.add(run)
            self._read = rows[-1].number

    def _by_schedule(self, rows: list[Outcome]) -> dict[str, list[Outcome]]:
        found, _ = self._definitions.all()
        sorted_rows: dict[str, list[Outcome]] = {}
        for row in rows:
            if is_of_run(row.id):
                due = due_of_run(row.id)
                name = next((name for name, one in found.items() if self._firing.identity(one, due) == row.id), None)
                if name is not None:
                    sorted_rows.setdefault(name, []).append(row)
        return sorted_rows


def _text_of(outcome: Outcome) -> str | None:
    """A result as it is kept: text, cut; of other bytes how many they are."""
    if outcome.result is None:
        return None
    kind = parse_media_type(outcome.content_type)
    if kind is not None and (kind.name.startswith("text/") or kind.name == "application/json" or kind.suffix == "json"):
        return outcome.result[: 4 * MAX_TEXT].decode("utf-8", "replace")[:MAX_TEXT]
    return f"({len(outcome.result)} bytes of {outcome.content_type})"


__all__ = ["Scheduler"]
