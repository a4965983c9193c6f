"""The rules by which an angel keeps one child alive. Pure: times and exit codes in, decisions out.

Owns the states of a child and every rule: when to start, when a silence is a hang, what an exit code
means, how long to wait after a crash. Must not know processes, pipes, signals or clocks: the angel
calls the verbs with the time and carries out the actions.

    WAITING ──start──▶ STARTING ──ready──▶ RUNNING
       ▲                   │ hung, over the memory limit, or told to stop
       │                   ▼
       ├──── ended ◀── STOPPING ──too long──▶ KILLED ──too long──▶ STUCK
       ├──── exit 78 ──▶ MISCONFIGURED (until a reload)
       └──── stopped by the angel ──▶ STOPPED
"""

import logging
from enum import Enum, StrEnum, auto

from attrs import define, field, frozen

from dropr_core.model.backoff import Backoff
from dropr_core.system.exit_codes import Exit, describe_exit

SHORTEST_LIFE = 1.0
"""Seconds. A child that asks for a fresh start sooner than this is treated as crashing."""


class State(StrEnum):
    """Where a child is; the words are shown to people."""

    WAITING = "waiting"
    STARTING = "starting"
    RUNNING = "running"
    STOPPING = "stopping"
    KILLED = "killed"
    STUCK = "stuck"
    MISCONFIGURED = "misconfigured"
    STOPPED = "stopped"


ALIVE = frozenset({State.STARTING, State.RUNNING})


class Action(Enum):
    """What the angel has to do for a child now."""

    START = auto()
    TERMINATE = auto()
    KILL = auto()
    GIVE_UP = auto()
    RELOAD = auto()


class Why(Enum):
    """Why a child was told to end."""

    ITSELF = auto()
    HUNG = auto()
    MEMORY = auto()
    SHUTDOWN = auto()


@frozen
class Policy:
    """The numbers of the rules. Times in seconds, memory in bytes."""

    hang: float = 60.0
    drain: float = 25.0
    grace: float = 5.0
    backoff: Backoff = field(factory=lambda: Backoff(0.1, 30.0))
    healthy: float = 60.0
    max_memory: int | None = None


@frozen
class ExitDecision:
    """What the end of a child means: for the log, how grave it is and what happens next."""

    level: int
    text: str


@define(eq=False)
class ChildState:
    """One child as the rules see it."""

    name: str
    policy: Policy = field(factory=Policy)
    watched: bool = True
    state: State = State.WAITING
    pid: int | None = None
    restarts: int = 0
    failures: int = 0
    last_exit: str = ""
    start_at: float = 0.0
    started_at: float = 0.0
    heard_at: float = 0.0
    well_since: float | None = None
    why: Why = Why.ITSELF
    reload_when_ready: bool = False
    _end_at: float = 0.0

    def due(self) -> float | None:
        """When ``decide`` has something to decide, if nothing happens before; None: never."""
        if self.state is State.WAITING:
            return self.start_at
        if self.state in ALIVE:
            return self.heard_at + self.policy.hang if self.watched else None
        if self.state in {State.STOPPING, State.KILLED}:
            return self._end_at
        return None

    def decide(self, now: float) -> Action | None:
        """What to do at this time. The state moves with the answer; START needs ``started`` as well."""
        due = self.due()
        if due is None or now < due:
            return None
        if self.state is State.WAITING:
            return Action.START
        if self.state in ALIVE:
            return self._end(now, Why.HUNG, self.policy.grace)
        self._end_at = now + self.policy.grace
        if self.state is State.STOPPING:
            self.state = State.KILLED
            return Action.KILL
        self.state = State.STUCK
        return Action.GIVE_UP

    def started(self, now: float, pid: int) -> None:
        """The process runs."""
        self.pid, self.why = pid, Why.ITSELF
        self.started_at = self.heard_at = now
        self.reload_when_ready = False
        self.state = State.STARTING if self.watched else State.RUNNING
        self.well_since = None if self.watched else now

    def heard(self, now: float, *, ready: bool = False) -> Action | None:
        """A heart-beat came, or the word that start-up is over."""
        self.heard_at = now
        if self.well_since is None:
            self.well_since = now
        if not ready or self.state is not State.STARTING:
            return None
        self.state = State.RUNNING
        if self.reload_when_ready:
            self.reload_when_ready = False
            return Action.RELOAD
        return None

    def weighed(self, now: float, held: int | None) -> Action | None:
        """The process holds this many bytes of memory (None: nobody can tell)."""
        limit = self.policy.max_memory
        if limit is None or held is None or held <= limit or self.state not in ALIVE:
            return None
        return self._end(now, Why.MEMORY, self.policy.drain)

    def forgive(self, now: float) -> None:
        """The angel itself was stopped or asleep: the silence until now is nobody's fault."""
        if self.state in ALIVE:
            self.heard_at = now

    def stop(self, now: float) -> Action | None:
        """End for good."""
        if self.state in ALIVE:
            return self._end(now, Why.SHUTDOWN, self.policy.drain)
        if self.state in {State.STOPPING, State.KILLED, State.STUCK}:
            self.why = Why.SHUTDOWN
        else:
            self.state = State.STOPPED
        return None

    def hurry(self, now: float) -> None:
        """No more patience: what is still draining is to be killed now."""
        if self.state is State.STOPPING:
            self._end_at = now

    def reload(self, now: float) -> Action | None:
        """The configuration changed: what waits or was misconfigured gets a new chance at once."""
        if self.state in {State.WAITING, State.MISCONFIGURED}:
            self.state, self.start_at, self.failures = State.WAITING, now, 0
        elif self.state is State.RUNNING:
            return Action.RELOAD
        elif self.state is State.STARTING:  # it may not listen to signals yet, and would die of one
            self.reload_when_ready = True
        return None

    def ended(self, now: float, code: int) -> ExitDecision:
        """The process ended; negative codes are signals. Says what that means."""
        exit_text = describe_exit(code)
        if self.why is Why.HUNG:
            exit_text = f"silent for {self.policy.hang:g} s, {exit_text}"
        elif self.why is Why.MEMORY:
            exit_text = f"over the memory limit, {exit_text}"
        return self._after(now, exit_text, code)

    def start_failed(self, now: float, error: str) -> ExitDecision:
        """There is no process: the system refused to start it."""
        self.started_at, self.well_since, self.why = now, None, Why.ITSELF
        return self._after(now, f"cannot be started: {error}", Exit.OS_ERROR)

    def _end(self, now: float, why: Why, patience: float) -> Action:
        self.state, self.why, self._end_at = State.STOPPING, why, now + patience
        return Action.TERMINATE

    def _after(self, now: float, exit_text: str, code: int) -> ExitDecision:
        why, self.why, self.pid, self.last_exit = self.why, Why.ITSELF, None, exit_text
        if why is Why.SHUTDOWN:
            self.state = State.STOPPED
            return ExitDecision(logging.INFO, f"{self.name} stopped: {exit_text}")
        if code == Exit.CONFIG:
            self.state = State.MISCONFIGURED
            return ExitDecision(
                logging.ERROR,
                f"{self.name} ended: {exit_text}. It stays down until its configuration is corrected and "
                "the angel gets SIGHUP or starts again; what is wrong stands above, in its own words",
            )
        if self._was_well(now, why) >= self.policy.healthy:
            self.failures = 0
        self.restarts += 1
        self.state, self.start_at = State.WAITING, now
        lived = now - self.started_at
        # Below these ages a "fresh start" would be a loop that burns a CPU, so they count as crashes.
        enough = self.policy.healthy if why is Why.MEMORY else SHORTEST_LIFE
        if why is Why.MEMORY or (code == Exit.RECYCLE and why is Why.ITSELF):
            if lived >= enough:
                return ExitDecision(logging.INFO, f"{self.name} ended: {exit_text}. A fresh one starts now")
            exit_text += f" after only {lived:.1f} s of life (is a limit set too low?)"
        self.failures += 1
        delay = self.policy.backoff.fixed(self.failures)
        self.start_at = now + delay
        count = f", crash {self.failures} in a row" if self.failures > 1 else ""
        return ExitDecision(logging.WARNING, f"{self.name} ended: {exit_text}{count}. It starts in {delay:g} s")

    def _was_well(self, now: float, why: Why) -> float:
        """Seconds of shown health in this life: a hung child was well until its last beat."""
        if self.well_since is None:
            return 0.0
        return (self.heard_at if why is Why.HUNG else now) - self.well_since
