"""The angel: starts the processes of a node, watches them, starts them again.

Owns processes, pipes, signals and the status file; carries out what ``supervision`` decides. Sleeps
in one select() until the next deadline, so an idle angel costs nothing. Must not know what its
children do, nor read their configuration.
"""

import logging
import os
import selectors
import signal
import socket
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from types import FrameType

from dropr_core.angel.child import Child, ChildSpec, role_child
from dropr_core.angel.heartbeat import READY, mebibytes, resident_bytes
from dropr_core.angel.policy import ALIVE, Action, ChildState, Policy, State, Why
from dropr_core.angel.status_file import write_state
from dropr_core.angel.systemd import ServiceManager
from dropr_core.errors import DroprError, UsageError
from dropr_core.model.backoff import Backoff
from dropr_core.system.clock import Clock
from dropr_core.system.exit_codes import Exit
from dropr_core.system.log_fields import about
from dropr_core.system.turns import Turns

__all__ = ["Angel", "AwakeClock", "ChildSpec", "role_child"]

FOREVER = 1e9
"""Seconds. It sleeps until something happens."""
LATE = 1.0
"""Seconds. An angel that wakes up this much too late was itself stopped, and blames no child for it."""


class AwakeClock:
    """Time that stands still while the machine sleeps: no child can beat then."""

    def now(self) -> float:
        """Seconds, starting anywhere."""
        return time.monotonic()

    def wall(self) -> float:
        """Seconds since the epoch."""
        return time.time()


class Angel:
    """Keeps children alive until SIGTERM or SIGINT. One angel to a process: it reaps every child there is."""

    def __init__(
        self,
        children: Sequence[ChildSpec],
        *,
        clock: Clock | None = None,
        log: logging.Logger | None = None,
        state_file: Path | None = None,
        hang: float = 60.0,
        drain: float = 25.0,
        backoff: tuple[float, float] = (0.1, 30.0),
        healthy: float = 60.0,
        max_memory: int | None = None,
        grace: float = 5.0,
        manager: ServiceManager | None = None,
        renew: Callable[[], Sequence[ChildSpec]] | None = None,
    ) -> None:
        """``renew`` says at a reload which children there shall be from then on; a DroprError of it changes nothing."""
        names = [spec.name for spec in children]
        if not names or len(set(names)) < len(names):
            raise UsageError(f"an angel needs children, each with a name of its own; got {names}")
        policy = Policy(hang, drain, grace, Backoff(*backoff), healthy, max_memory)
        self._children = [Child(spec, ChildState(spec.name, policy, spec.watched)) for spec in children]
        self._clock: Clock = AwakeClock() if clock is None else clock
        self._log = logging.getLogger("dropr.angel") if log is None else log
        self._state_file = state_file
        self._shown: object = None
        self._policy, self._manager = policy, manager or ServiceManager()
        self._renew = renew
        self._selector: selectors.BaseSelector
        self._lifeline: tuple[int, int]
        self._caught: set[int] = set()
        self._stopping = self._announced = False
        self._turns = Turns()
        self._feed_at = 0.0

    def run(self) -> int:
        """Keep the children alive; back when all are stopped. Only in the main thread.

        Returns Exit.OK after a stop, Exit.CONFIG when every child is down for its configuration,
        Exit.SOFTWARE when a child could not even be killed.
        """
        with ExitStack() as stack:
            self._selector = stack.enter_context(selectors.DefaultSelector())
            self._lifeline = os.pipe()
            # Whatever ends this block, the lifeline ends too and the children drain.
            for fd in self._lifeline:
                stack.callback(os.close, fd)
            stack.callback(self._forget)
            stack.enter_context(self._signals())
            now = self._clock.now()
            for child in self._children:
                child.child_state.start_at = now
            self._log.info("angel %d watches %s", os.getpid(), ", ".join(c.spec.name for c in self._children))
            return self._loop()

    def _loop(self) -> int:
        while True:
            now = self._clock.now()
            self._take_signals(now)
            self._reap(now)
            for child in self._children:
                self._do(child, child.child_state.decide(now), now)
            self._children = [
                child for child in self._children if not (child.dismissed and child.child_state.state is State.STOPPED)
            ]
            self._show()
            code = self._finished()
            if code is not None:
                return code
            self._feed(now)
            dues = [due for child in self._children if (due := child.child_state.due()) is not None]
            if self._manager.watchdog is not None:
                dues.append(self._feed_at)
            wake = min(dues, default=None)
            rest = None if wake is None else max(0.0, wake - self._clock.now())
            self._turns.asleep(FOREVER if rest is None else rest)
            events = self._selector.select(rest)
            self._turns.awake()
            now = self._clock.now()
            if wake is not None and now - wake > LATE:
                for child in self._children:
                    child.child_state.forgive(now)
            for key, _ in events:
                if isinstance(key.data, Child):
                    self._listen(key.data, now)
                else:
                    os.read(key.fd, 4096)

    def _finished(self) -> int | None:
        states = [child.child_state.state for child in self._children]
        if self._stopping and all(state in {State.STOPPED, State.STUCK} for state in states):
            return Exit.SOFTWARE if State.STUCK in states else Exit.OK
        if all(state is State.MISCONFIGURED for state in states):
            self._log.error("every child is down for its configuration: correct it, then start again")
            return Exit.CONFIG
        return None

    # ── signals ──────────────────────────────────────────────────────────────────────────────────

    @contextmanager
    def _signals(self) -> Iterator[None]:
        """Let signals wake the select() and be remembered, for as long as the block lasts."""
        ours, theirs = socket.socketpair()
        numbers = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGCHLD)
        with ours, theirs:
            ours.setblocking(False)
            theirs.setblocking(False)
            self._selector.register(ours, selectors.EVENT_READ)
            wakeup_before = signal.set_wakeup_fd(theirs.fileno(), warn_on_full_buffer=False)
            handlers_before = {number: signal.signal(number, self._note) for number in numbers}
            try:
                yield
            finally:
                for number, handler in handlers_before.items():
                    signal.signal(number, handler)
                signal.set_wakeup_fd(wakeup_before)
                self._selector.unregister(ours)

    def _note(self, number: int, _frame: FrameType | None) -> None:
        self._caught.add(number)

    def _take_signals(self, now: float) -> None:
        caught, self._caught = self._caught, set()
        if caught & {signal.SIGTERM, signal.SIGINT}:
            if not self._stopping:
                self._stop(now)
            elif signal.SIGINT in caught:
                self._log.warning("told to stop a second time: killing what still drains")
                for child in self._children:
                    child.child_state.hurry(now)
        if signal.SIGHUP in caught and not self._stopping:
            self._log.info("reload: SIGHUP goes to the children; what is down gets a new chance")
            self._manager.reloading()
            self._announced = False
            for child in self._renewed(now):
                self._do(child, child.child_state.reload(now), now)

    def _renewed(self, now: float) -> list[Child]:
        """Take on and dismiss children as the configuration says by now; those that stay."""
        before = [child for child in self._children if not child.dismissed]
        if self._renew is None:
            return before
        try:
            wanted = {spec.name: spec for spec in self._renew()}
        except DroprError as error:
            self._log.error("the same processes as before are kept: %s", error)
            return before
        for child in before:
            if child.spec.name not in wanted:
                self._log.info("%s is not wanted any more", child.spec.name, extra=about(child=child.spec.name))
                child.dismissed = True
                self._do(child, child.child_state.stop(now), now)
        for name, spec in wanted.items():
            if name not in [child.spec.name for child in before]:
                self._children.append(Child(spec, ChildState(name, self._policy, spec.watched, start_at=now)))
        return [child for child in before if child.spec.name in wanted]

    def _stop(self, now: float) -> None:
        self._stopping = True
        self._turns.stopping()
        self._log.info("stopping: the children have %g s to drain", self._policy.drain)
        self._manager.stopping()
        for child in self._children:
            self._do(child, child.child_state.stop(now), now)

    # ── processes ────────────────────────────────────────────────────────────────────────────────

    def _do(self, child: Child, action: Action | None, now: float) -> None:
        child_state = child.child_state
        who = f"{child_state.name} (pid {child_state.pid})"
        fields = about(child=child_state.name, child_pid=child_state.pid)
        if action is None:
            return
        if action is Action.START:
            self._start(child, now)
        elif action is Action.RELOAD:
            self._send(child, signal.SIGHUP)
        elif action is Action.TERMINATE:
            if child_state.why is Why.HUNG:
                silence = round(now - child_state.heard_at, 1)
                self._log.error("%s is stuck: no heart-beat for %g s; ending it", who, silence, extra=fields)
            self._send(child, signal.SIGTERM)
        elif action is Action.KILL:
            self._log.warning("%s did not end when asked: killing it and what it started", who, extra=fields)
            self._send(child, signal.SIGKILL)
        else:
            self._log.error("%s hangs in the kernel and cannot be killed; look for a dead disk or mount", who,
                            extra=fields)  # fmt: skip

    def _start(self, child: Child, now: float) -> None:
        try:
            pid = child.start(self._lifeline[0], self._policy.hang / 4)
        except (OSError, ValueError) as error:
            verdict = child.child_state.start_failed(now, str(error))
            self._log.log(verdict.level, "%s", verdict.text, extra=about(child=child.spec.name))
            return
        if child.beats is not None:
            self._selector.register(child.beats, selectors.EVENT_READ, child)
        child.child_state.started(now, pid)
        self._log.info("%s started (pid %d)", child.spec.name, pid, extra=about(child=child.spec.name, child_pid=pid))

    def _send(self, child: Child, number: signal.Signals) -> None:
        try:
            child.send(number)
        except PermissionError as error:  # it became another user
            self._log.error("%s (pid %s): no %s: %s", child.spec.name, child.child_state.pid, number.name, error,
                            extra=about(child=child.spec.name, child_pid=child.child_state.pid))  # fmt: skip

    def _reap(self, now: float) -> None:
        """Collect every dead child of this process: ours, and as PID 1 or sub-reaper all orphans too."""
        while True:
            try:
                pid, status = os.waitpid(-1, os.WNOHANG)
            except ChildProcessError:
                return
            if pid == 0:
                return
            code = os.waitstatus_to_exitcode(status)
            child = next((c for c in self._children if c.process is not None and c.process.pid == pid), None)
            if child is None:
                self._log.debug("reaped orphan %d (exit %d)", pid, code)
                continue
            child.reaped(code)
            self._listen(child, now)  # what it said before it died
            self._forget_pipe(child)
            verdict = child.child_state.ended(now, code)
            self._log.log(verdict.level, "%s", verdict.text, extra=about(child=child.spec.name, child_pid=pid))

    def _listen(self, child: Child, now: float) -> None:
        """Read what a child says on its beat pipe, and weigh it."""
        said = child.said()
        if said is None:
            return
        if not said:  # it closed its end: it is ending, or will be found silent
            self._forget_pipe(child)
            return
        self._do(child, child.child_state.heard(now, ready=READY in said), now)
        if child.process is None or self._policy.max_memory is None:
            return
        held = resident_bytes(child.process.pid)
        action = child.child_state.weighed(now, held)
        if action is not None and held is not None:
            self._log.info(
                "%s (pid %d) holds %s, the limit is %s: it drains and a fresh one starts",
                child.spec.name, child.process.pid, mebibytes(held), mebibytes(self._policy.max_memory),
                extra=about(child=child.spec.name, child_pid=child.process.pid),
            )  # fmt: skip
            self._do(child, action, now)

    def _forget_pipe(self, child: Child) -> None:
        if child.beats is not None:
            self._selector.unregister(child.beats)
            os.close(child.beats)
            child.beats = None

    def _forget(self) -> None:
        """Let go of everything on the way out; a child that still lives drains by its lifeline."""
        for child in self._children:
            self._forget_pipe(child)
            child.reaped(0)  # if it still lives, somebody else waits for it from now on

    # ── telling others ───────────────────────────────────────────────────────────────────────────

    def _feed(self, now: float) -> None:
        if self._manager.watchdog is not None and now >= self._feed_at:
            self._manager.alive()
            self._feed_at = now + self._manager.watchdog / 2

    def _show(self) -> None:
        """Tell the service manager and the status file, if anything changed."""
        child_states = [child.child_state for child in self._children]
        wanted = [child_state for child_state in child_states if child_state.state is not State.MISCONFIGURED]
        running = bool(wanted) and all(child_state.state is State.RUNNING for child_state in wanted)
        if running and not self._announced and not self._stopping:
            self._announced = True
            self._manager.ready()
        shown = tuple((w.pid, w.state, w.restarts, w.last_exit, w.start_at) for w in child_states)
        if shown == self._shown:
            return
        self._shown = shown
        alive = sum(child_state.state in ALIVE for child_state in child_states)
        others = "".join(
            f"; {child_state.name} {child_state.state}"
            + (f" ({child_state.last_exit})" if child_state.last_exit else "")
            for child_state in child_states
            if child_state.state not in ALIVE
        )
        self._manager.status(f"{alive} of {len(child_states)} up{others}")
        if self._state_file is None:
            return
        try:
            write_state(self._state_file, child_states, self._clock)
        except OSError as error:
            self._log.warning("cannot write %s: %s; the children are not affected", self._state_file, error)
