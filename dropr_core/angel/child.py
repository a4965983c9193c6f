"""One child process: how it is started, what it says, how it is told to end.

Owns the process, its process group and the reading end of its beat pipe. Must not know when any of
that is to happen: the angel asks ``supervision`` and calls.
"""

import os
import signal
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

from attrs import define, field, frozen

from dropr_core.angel.heartbeat import BEAT_VARIABLE, INTERVAL_VARIABLE, LIFELINE_VARIABLE, NAME_VARIABLE
from dropr_core.angel.policy import ChildState
from dropr_core.angel.systemd import VARIABLES


@frozen
class ChildSpec:
    """A process to keep alive. ``env`` is added to the angel's own environment."""

    name: str
    argv: Sequence[str]
    env: Mapping[str, str] = field(factory=dict)
    watched: bool = True
    """Whether it sends heart-beats. A child that does not is only looked after when it dies."""


def role_child(role: str, config: Path, number: int = 1, *flags: str) -> ChildSpec:
    """The child that runs ``dropr <role> -c <config> <flags>`` with this interpreter.

    ``number``: which of several of this role; from the second on it is part of the name.
    """
    name = role if number == 1 else f"{role}-{number}"
    return ChildSpec(name, (sys.executable, "-m", "dropr_core", role, "-c", str(config), *flags))


@define(eq=False)
class Child:
    """A child and what belongs to its present process."""

    spec: ChildSpec
    child_state: ChildState
    process: subprocess.Popen[bytes] | None = None
    beats: int | None = None
    dismissed: bool = False
    """Not wanted any more: to be forgotten once it has ended."""

    def start(self, lifeline: int, interval: float) -> int:
        """Start the process with the two pipes in its hands; its pid. Raises OSError or ValueError."""
        reading, writing = os.pipe()
        try:
            os.set_blocking(reading, False)
            environment = {key: value for key, value in os.environ.items() if key not in VARIABLES}
            environment |= self.spec.env
            environment[BEAT_VARIABLE] = str(writing)
            environment[LIFELINE_VARIABLE] = str(lifeline)
            environment[INTERVAL_VARIABLE] = repr(interval)
            environment[NAME_VARIABLE] = self.spec.name
            # A group of its own: Ctrl-C reaches the angel alone, and a kill reaches what the child started.
            self.process = subprocess.Popen(
                list(self.spec.argv),
                env=environment,
                stdin=subprocess.DEVNULL,
                pass_fds=(writing, lifeline),
                process_group=0,
            )
        except BaseException:
            os.close(reading)
            raise
        finally:
            os.close(writing)
        self.beats = reading
        return self.process.pid

    def said(self) -> bytes | None:
        """What it wrote since the last call; None when there is nothing, b"" when its end is closed."""
        if self.beats is None:
            return None
        try:
            return os.read(self.beats, 65536)
        except BlockingIOError:
            return None

    def send(self, number: signal.Signals) -> None:
        """Signal a process that was not reaped yet, so that the pid is certainly its own.

        SIGKILL takes everything in its process group along. Raises PermissionError.
        """
        if self.process is None:
            return
        try:
            if number is signal.SIGKILL:
                os.killpg(self.process.pid, number)
            else:
                os.kill(self.process.pid, number)
        except ProcessLookupError:
            return

    def reaped(self, code: int) -> None:
        """The process was waited for by somebody else."""
        process, self.process = self.process, None
        if process is None:
            return
        process.returncode = code  # or subprocess would wait for this pid again
        if code < 0:  # it could not tidy up: what it had started must not work on beside the next one
            try:
                os.killpg(process.pid, signal.SIGKILL)
            except (ProcessLookupError, PermissionError):
                return
