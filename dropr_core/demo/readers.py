"""The receivers' side of the demo: threads that read open nodes and enter what comes in the books.

Owns its threads and how a message is recognised. Must not know when trouble is made, nor how much is
to come.
"""

import hashlib
import threading
from collections.abc import Callable, Mapping

import dropr_core
from dropr_core.api.node import Node
from dropr_core.api.received import Received
from dropr_core.demo.tally import Stream

Enter = Callable[[Received], None]


class Readers:
    """Some threads, each with channels of a node."""

    def __init__(self) -> None:
        self._stop = threading.Event()
        self._threads: list[threading.Thread] = []
        self.error: Exception | None = None
        """What ended a reader before its time."""

    def start(self, node: Node, enters: Mapping[str, Enter], size: int) -> None:
        """Read the channels of ``enters``, up to ``size`` messages at a time."""

        def read() -> None:
            try:
                self._read(node, enters, size)
            except Exception as error:
                self.error = error

        thread = threading.Thread(target=read, name=f"demo-reader-{node.name}", daemon=True)
        self._threads.append(thread)
        thread.start()

    def _read(self, node: Node, enters: Mapping[str, Enter], size: int) -> None:
        last = False
        while not last:
            last = self._stop.is_set()  # asked before a drain: what is there by then is still read
            for batch in node.receive_batches(*enters, size=size, wait=0 if last else 0.5):
                for received in batch:
                    enters[received.channel](received)

    def stop(self) -> None:
        """Read what is there, then end; safe twice."""
        self._stop.set()
        for thread in self._threads:
            thread.join(20)


def enter_json(stream: Stream) -> Enter:
    """Messages whose value says ``n`` and ``count``."""

    def enter(received: Received) -> None:
        try:
            value = received.value
            number, count = int(value["n"]), int(value["count"])
        except (dropr_core.DroprError, TypeError, KeyError, ValueError):
            stream.strange()
            return
        stream.arrived(number, (received.channel, received.priority), count)

    return enter


def enter_file(stream: Stream, originals: Mapping[int, str]) -> Enter:
    """Files: the body's digest must be the header's, and that of the original with this number."""

    def enter(received: Received) -> None:
        try:
            number = int(received.headers["n"])
            said = received.headers["sha256"]
        except (KeyError, ValueError):
            stream.strange()
            return
        digest = hashlib.sha256()
        with received.open() as file:
            while piece := file.read(1 << 20):
                digest.update(piece)
        found = digest.hexdigest()
        intact = found == said == originals.get(number)
        # What has a large body goes by lanes of its own.
        stream.arrived(number, (received.channel, received.priority, received.large), number, intact=intact)

    return enter
