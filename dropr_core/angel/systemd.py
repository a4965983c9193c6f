"""The client's side of systemd's notify protocol.

Owns the few datagrams by which a service tells its manager how it is. Everything does nothing
outside systemd. Must not know who tells what for which reason.
"""

import os
import socket
import time
from collections.abc import MutableMapping
from typing import Self

VARIABLES = ("NOTIFY_SOCKET", "WATCHDOG_USEC", "WATCHDOG_PID")
"""What belongs to the main process of a service and must not reach its children."""


class ServiceManager:
    """Where to send the notices. A lost notice is lost: the service matters more than its report."""

    def __init__(self, address: str = "", watchdog: float | None = None) -> None:
        self._address = address
        self.watchdog = watchdog
        """Seconds within which ``alive()`` must be called again and again; None: not asked for."""

    @classmethod
    def from_environment(cls, environ: MutableMapping[str, str] | None = None) -> Self:
        """Take NOTIFY_SOCKET and the watchdog's variables out of the environment (default: ours)."""
        environ = os.environ if environ is None else environ
        address, usec, pid = (environ.pop(name, "") for name in VARIABLES)
        if not address.startswith(("/", "@")):
            address = ""
        asked = usec.isascii() and usec.isdigit() and int(usec) > 0 and pid in {"", str(os.getpid())}
        return cls(address, int(usec) / 1e6 if asked and address else None)

    def ready(self) -> None:
        """Start-up, or the reload that was announced, is over."""
        self.tell("READY=1")

    def status(self, text: str) -> None:
        """One line for ``systemctl status``."""
        self.tell("STATUS=" + " ".join(text.split()))

    def alive(self) -> None:
        """Feed the watchdog."""
        self.tell("WATCHDOG=1")

    def reloading(self) -> None:
        """The configuration is being read again; ``ready()`` must follow."""
        self.tell("RELOADING=1", f"MONOTONIC_USEC={time.clock_gettime_ns(time.CLOCK_MONOTONIC) // 1000}")

    def stopping(self) -> None:
        """The service has begun to stop."""
        self.tell("STOPPING=1")

    def tell(self, *lines: str) -> None:
        """Send assignments in one datagram. Never blocks, never raises for a manager that is not there."""
        if not self._address:
            return
        name = "\0" + self._address[1:] if self._address.startswith("@") else self._address
        try:
            with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as line:
                line.setblocking(False)
                line.sendto("\n".join(lines).encode(), name)
        except OSError:
            return
