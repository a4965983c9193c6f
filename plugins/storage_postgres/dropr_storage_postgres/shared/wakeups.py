"""Wake-ups between machines: NOTIFY and LISTEN, each in a session of its own.

Owns that a wake-up never waits and never holds up a commit. A NOTIFY in the transaction of a message would make the
commits of the whole server wait for each other (it takes one lock for all databases), so one thread of each process
sends what was said since it last did, each topic once, at most every few milliseconds. Must not know what a topic
means.
"""

import contextlib
import hashlib
import select
import threading
import time
from collections.abc import Callable, Collection

import psycopg

from dropr_core.errors import DroprError
from dropr_core.system.wake_up import WakeUp
from dropr_storage_postgres.engine.connection import Opener
from dropr_storage_postgres.engine.types import Connection

PAUSE = 0.005
"""Seconds at least between two notifications of a process: so many topics more go with the next one."""
MAX_TOPIC = 7000
"""Bytes of the longest topic; a notification of the server may have 8000."""
MOST = 10_000
"""Topics that may wait; more than that is "look at everything", which whoever waits does by himself."""
RESTS = (0.05, 0.2, 0.5, 1.0, 2.0)
"""Seconds between tries to reach a server that is away."""

_NOTIFY = "SELECT pg_notify(%s, word) FROM unnest(%s::text[]) AS word"


def channel_of(schema: str) -> str:
    """The server's channel of a store."""
    return "dropr_" + hashlib.blake2b(schema.encode(), digest_size=12).hexdigest()


class Sender:
    """Sends wake-ups of this process. The thread begins with the first one."""

    def __init__(self, opener: Opener, channel: str, mark: str) -> None:
        """``mark``: by which own wake-ups are known."""
        self._opener, self._channel, self._mark = opener, channel, mark
        self._news = threading.Condition()
        self._topics: dict[str, None] = {}
        self._thread: threading.Thread | None = None
        self._closed = False

    def notify(self, topics: Collection[str]) -> None:
        """Soon. Never waits."""
        with self._news:
            idle = not self._topics
            for topic in topics:
                if len(self._topics) < MOST and len(topic.encode()) <= MAX_TOPIC:
                    self._topics[topic] = None
            if self._closed or not self._topics:
                return
            if self._thread is None:
                self._thread = threading.Thread(target=self._run, name="dropr-notify", daemon=True)
                self._thread.start()
            elif idle:
                self._news.notify()

    def close(self) -> None:
        """Send what was said, and stop; safe twice."""
        with self._news:
            self._closed = True
            self._news.notify()
            thread = self._thread
        if thread is not None:
            thread.join(10)

    def _run(self) -> None:
        connection: Connection | None = None
        rest = 0
        while True:
            with self._news:
                while not self._topics and not self._closed:
                    self._news.wait()
                topics, self._topics = list(self._topics), {}
                closed = self._closed
            try:
                if topics:
                    if connection is None:
                        connection, _ = self._opener.open(durable=False)
                    connection.execute(_NOTIFY, (self._channel, [f"{self._mark}{topic}" for topic in topics]))
                    rest = 0
            except (psycopg.Error, DroprError, OSError):
                # Lost: who waits looks by himself. The next one finds a new session.
                _close(connection)
                connection = None
                rest += 1
            if closed:
                break
            time.sleep(PAUSE if rest == 0 else RESTS[min(rest, len(RESTS)) - 1])
        _close(connection)


class Listener:
    """One session that listens, for all who want to hear in this process."""

    def __init__(self, opener: Opener, channel: str, mark: str) -> None:
        self._opener, self._channel, self._mark = opener, channel, mark
        self._mutex = threading.Lock()
        self._hearers: list[Hearing] = []
        self._wake: WakeUp | None = None
        self._closed = False
        self._thread: threading.Thread | None = None

    def add(self, heard: Callable[[str | None], None]) -> "Hearing":
        """One more who wants to hear."""
        hearing = Hearing(self, heard)
        with self._mutex:
            self._hearers.append(hearing)
            if self._thread is None:
                self._wake = WakeUp()
                self._thread = threading.Thread(target=self._run, args=(self._wake,), name="dropr-listen", daemon=True)
                self._thread.start()
        return hearing

    def remove(self, hearing: "Hearing") -> None:
        """He does not, any more."""
        with self._mutex:
            if hearing in self._hearers:
                self._hearers.remove(hearing)

    def close(self) -> None:
        """Stop; safe twice."""
        with self._mutex:
            if self._closed:
                return
            self._closed = True
            thread, wake = self._thread, self._wake
        if wake is not None:
            wake.wake()
        if thread is not None and thread is not threading.current_thread():
            thread.join(10)

    def _tell(self, topic: str | None) -> None:
        with self._mutex:
            hearers = list(self._hearers)
        for hearing in hearers:
            hearing.hear(topic)

    def _run(self, wake: WakeUp) -> None:
        tries = 0
        while not self._closed:
            connection: Connection | None = None
            try:
                connection, _ = self._opener.open(durable=False)
                connection.execute(f'LISTEN "{self._channel}"'.encode(), prepare=False)
                tries = 0
                self._tell(None)  # whatever was said before
                self._hear(connection, wake)
            except (psycopg.Error, DroprError, OSError):
                tries += 1
            finally:
                _close(connection)
            if not self._closed:
                select.select([wake], [], [], RESTS[min(max(tries, 1), len(RESTS)) - 1])
        wake.close()

    def _hear(self, connection: Connection, wake: WakeUp) -> None:
        """Until it is closed, or the line is lost: then it raises."""
        poll = select.poll()
        poll.register(connection.pgconn.socket, select.POLLIN | select.POLLERR | select.POLLHUP)
        poll.register(wake, select.POLLIN)
        while not self._closed:
            connection.pgconn.consume_input()
            while (found := connection.pgconn.notifies()) is not None:
                word = found.extra.decode()
                if not word.startswith(self._mark):
                    self._tell(word.partition(":")[2])
            poll.poll()


class Hearing:
    """Implements `contracts.shared.Listening`."""

    def __init__(self, listener: Listener, heard: Callable[[str | None], None]) -> None:
        self._listener, self._heard = listener, heard
        self._closed = False

    def hear(self, topic: str | None) -> None:
        """Pass it on."""
        if not self._closed:
            self._heard(topic)

    def close(self) -> None:
        """See `Listening`."""
        self._closed = True
        self._listener.remove(self)


def _close(connection: Connection | None) -> None:
    if connection is not None:
        with contextlib.suppress(psycopg.Error, OSError):
            connection.close()


__all__ = ["Hearing", "Listener", "Sender", "channel_of"]
