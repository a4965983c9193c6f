"""Log lines to syslog: the daemon of this machine, or one on the network.

Owns the two forms of a line that syslog reads (RFC 5424 over a network, that of the C library for a socket of this
machine), and that nobody waits for it: a thread sends, and what it cannot send stands on the error stream. Must not
know who logs what.
"""

import contextlib
import logging
import logging.handlers
import queue
import socket
import threading
import time
from datetime import UTC, datetime

from dropr_core.cli.logs import ErrorStream, one_line, severity
from dropr_core.system.log_fields import fields_of
from dropr_core.system.syslog_address import SyslogAddress, parse_syslog_address

MOST = 1000
"""Events that may wait for the thread that sends; more go to the error stream at once."""
PATIENCE = 5.0
"""Seconds that the network may take for one line."""
REST = 30.0
"""Seconds without another try after syslog could not be reached."""
LAST = 3.0
"""Seconds at the end of the process for what still waits."""
LONGEST = {"unix": 8192, "udp": 2048, "tcp": 8192}
"""Bytes of a line: what every receiver must take over UDP (RFC 5426), and the usual limit elsewhere."""
ELEMENT = "dropr@32473"
"""Names the fields in RFC 5424; the number is the one that RFC 5612 keeps for those who have none."""


class SyslogHandler(ErrorStream):
    """Sends each event in a thread of its own, which sleeps while there is none."""

    def __init__(self, fallback: ErrorStream, address: str = "/dev/log", facility: str = "daemon") -> None:
        """``fallback`` gets what syslog does not take. Raises UsageError for an address that is none."""
        super().__init__(fallback.line)
        self._fallback = fallback
        self._address = parse_syslog_address(address)
        self._facility = logging.handlers.SysLogHandler.facility_names[facility]
        self._events: queue.Queue[logging.LogRecord | None] = queue.Queue(MOST)
        self._socket: socket.socket | None = None
        self._rest_until, self._failing = 0.0, False
        self._thread = threading.Thread(target=self._run, name="dropr-syslog", daemon=True)
        self._closed = False
        self._thread.start()

    def emit(self, record: logging.LogRecord) -> None:
        """Hand one event to the thread."""
        try:
            if not self._closed:
                self._events.put_nowait(record)
                return
        except queue.Full:
            pass
        self._fallback.emit(record)

    def close(self) -> None:
        """Send what waits, as far as syslog takes it soon; safe twice."""
        if self._closed:
            return
        self._closed = True
        with contextlib.suppress(queue.Full):
            self._events.put(None, timeout=LAST)
        self._thread.join(LAST)
        while True:  # the thread hangs in the network, or had no time
            try:
                record = self._events.get_nowait()
            except queue.Empty:
                break
            if record is not None:
                self._fallback.emit(record)
        super().close()

    # ── in the thread ────────────────────────────────────────────────────────────────────────────

    def _run(self) -> None:
        while (record := self._events.get()) is not None:
            if time.monotonic() < self._rest_until:
                self._fallback.emit(record)
                continue
            try:
                self._send(record)
            except OSError as error:
                self._failed(error)
                self._fallback.emit(record)
            else:
                self._failing = False
        self._disconnect()

    def _send(self, record: logging.LogRecord) -> None:
        for data in self._lines(record):
            connected = self._socket is not None
            try:
                self._connection().sendall(data)
            except OSError:
                self._disconnect()
                if not connected:
                    raise
                self._connection().sendall(data)  # syslog was started anew: once more

    def _connection(self) -> socket.socket:
        if self._socket is None:
            self._socket = connect(self._address)
        return self._socket

    def _disconnect(self) -> None:
        if self._socket is not None:
            self._socket.close()
            self._socket = None

    def _failed(self, error: OSError) -> None:
        self._disconnect()
        self._rest_until = time.monotonic() + REST
        if not self._failing:
            self._failing = True
            why = error.strerror or error
            text = f"syslog at {self._address} takes nothing ({why}); its lines come here until it does"
            self._fallback.emit(logging.LogRecord("dropr", logging.WARNING, __file__, 0, text, None, None))

    def _lines(self, record: logging.LogRecord) -> list[bytes]:
        """What goes to the wire; a traceback is lines of their own."""
        priority = f"<{self._facility * 8 + severity(record.levelno)}>"
        begin = self._local(record) if self._address.kind == "unix" else self._rfc5424(record)
        limit = LONGEST[self._address.kind]
        lines = []
        for text in self.line.untimed(record).splitlines():
            data = f"{priority}{begin}{text}".encode("utf-8", "replace")[:limit]
            if self._address.kind == "tcp":
                data = b"%d %s" % (len(data), data)  # counted, as in RFC 6587
            lines.append(data)
        return lines

    def _local(self, record: logging.LogRecord) -> str:
        when = time.strftime("%b %e %H:%M:%S", time.localtime(record.created))
        return f"{when} dropr[{record.process}]: "

    def _rfc5424(self, record: logging.LogRecord) -> str:
        when = datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
        fields = {"node": self.line.node, "logger": record.name, **fields_of(record)}
        said = "".join(f' {name}="{_escaped(self.line.masked(str(value)))}"' for name, value in fields.items() if value)
        host = socket.gethostname().partition(" ")[0] or "-"
        return f"1 {when} {host} dropr {record.process} {self.line.role} [{ELEMENT}{said}] "


def connect(address: SyslogAddress) -> socket.socket:
    """A socket that leads there; raises OSError. What is sent on it takes a few seconds at most."""
    if address.kind == "unix":
        made = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        try:
            made.settimeout(PATIENCE)
            made.connect(address.path)
        except OSError:
            made.close()
            raise
        return made
    if address.kind == "tcp":
        return socket.create_connection((address.host, address.port), PATIENCE)
    family, kind, number, _, place = socket.getaddrinfo(address.host, address.port, type=socket.SOCK_DGRAM)[0]
    made = socket.socket(family, kind, number)
    try:
        made.settimeout(PATIENCE)
        made.connect(place)
    except OSError:
        made.close()
        raise
    return made


def _escaped(text: str) -> str:
    return one_line(text).replace("\\", "\\\\").replace('"', '\\"').replace("]", "\\]")
