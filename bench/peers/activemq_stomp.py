"""ActiveMQ by STOMP: what a program that speaks it gets out of a door, whoever stands behind it.

Owns ActiveMQ as a peer (Debian's, with KahaDB, which flushes before the receipt of a persistent message), and the
client's side of the comparison: a socket, so that no client's work is in the figures.
"""

import shutil
import socket
import time
from collections.abc import Iterator
from pathlib import Path

from bench.peers.figure import BODY, Figure, repeated
from bench.peers.servers import free_port, server

NAME = "ActiveMQ"
JAR = Path("/usr/share/activemq/bin/activemq.jar")
CONFIG = """<beans xmlns="http://www.springframework.org/schema/beans" xmlns:xsi="http://www.w3.org/2001/XMLSchema-instance"
 xsi:schemaLocation="http://www.springframework.org/schema/beans http://www.springframework.org/schema/beans/spring-beans-2.0.xsd
 http://activemq.apache.org/schema/core http://activemq.apache.org/schema/core/activemq-core.xsd">
<broker xmlns="http://activemq.apache.org/schema/core" useJmx="false" brokerName="bench" dataDirectory="{home}/data">
<persistenceAdapter><kahaDB directory="{home}/data/kahadb"/></persistenceAdapter>
<transportConnectors><transportConnector name="stomp" uri="stomp://127.0.0.1:{port}?transport.tcpNoDelay=true"/></transportConnectors>
</broker></beans>"""


def missing() -> str:
    """Why it cannot be measured here."""
    if shutil.which("java") is None or not JAR.exists():
        return "no ActiveMQ here; Debian: apt-get install activemq"
    return ""


def version() -> str:
    """As Debian names it."""
    return "ActiveMQ of Debian, KahaDB"


class Client:
    """One connection."""

    def __init__(self, port: int) -> None:
        self._socket = socket.create_connection(("127.0.0.1", port), 30)
        self._socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._data = b""
        self._say(b"CONNECT\naccept-version:1.2\nhost:bench\n\n\0")
        self._hear()
        self._say(b"SUBSCRIBE\nid:s\nack:client-individual\ndestination:/queue/bench\nprefetch-count:1\n"
                  b"activemq.prefetchSize:1\nreceipt:s\n\n\0")  # fmt: skip
        self._hear()

    def _say(self, data: bytes) -> None:
        self._socket.sendall(data)

    def _hear(self) -> bytes:
        while b"\0" not in self._data:
            piece = self._socket.recv(65536)
            if not piece:
                raise ConnectionError("the server has closed the connection")
            self._data += piece
        frame, _, self._data = self._data.partition(b"\0")
        return frame.lstrip()

    def send(self, count: int) -> list[bytes]:
        """One by one, each durable before the next; what was delivered meanwhile is returned."""
        came = []
        for _ in range(count):
            self._say(b"SEND\ndestination:/queue/bench\npersistent:true\nreceipt:r\n\n" + BODY + b"\0")
            while not (frame := self._hear()).startswith(b"RECEIPT"):
                came.append(frame)
        return came

    def take(self, count: int, came: list[bytes]) -> None:
        """Receive and acknowledge with a receipt, one by one."""
        for _ in range(count):
            frame = came.pop(0) if came else self._hear()
            ack = frame.partition(b"\nack:")[2].partition(b"\n")[0]
            self._say(b"ACK\nid:" + ack + b"\nreceipt:a\n\n\0")
            while not (answer := self._hear()).startswith(b"RECEIPT"):
                came.append(answer)

    def close(self) -> None:
        """Close."""
        self._socket.close()


def rates(client: Client, messages: int, runs: int) -> Iterator[tuple[str, float, float]]:
    """What, messages a second, spread."""
    taken: list[float] = []

    def once() -> float:
        began = time.perf_counter()
        came = client.send(messages)
        middle = time.perf_counter()
        client.take(messages, came)
        taken.append(messages / (time.perf_counter() - middle))
        return messages / (middle - began)

    rate, spread = repeated(runs, once)
    yield "send with receipt", rate, spread
    after = sorted(taken[1:])
    yield "receive and ack", after[len(after) // 2], (after[-1] - after[0]) / after[len(after) // 2]


def measure(home: Path, messages: int, runs: int) -> Iterator[Figure]:
    """Send with receipt, then receive and acknowledge."""
    port, place = free_port(), home / "activemq"
    (place / "conf").mkdir(parents=True)
    config = place / "conf" / "activemq.xml"
    config.write_text(CONFIG.format(home=place, port=port))
    words = [f"-Dactivemq.{name}={where}" for name, where in (("home", JAR.parents[1]), ("base", place))]
    words += [f"-Dactivemq.conf={place}/conf", f"-Dactivemq.data={place}/data", "-Xmx512m", "-jar", str(JAR), "start"]
    with server(["java", *words, f"xbean:file:{config}"], place / "log", port):
        client = Client(port)
        for what, rate, spread in rates(client, messages, runs):
            yield Figure(what, rate, True, "a socket, KahaDB", " ".join(words), spread)
        client.close()
