"""The little of AMQP 0-9-1 that is needed to push RabbitMQ to its limit from Python.

Owns frames, publishing with confirms and consuming with prefetch, on a blocking socket. pika reaches less than half of
it, so that the client would be measured and not the broker.
"""

import socket
import struct

CONNECTION, CHANNEL, QUEUE, BASIC, CONFIRM = 10, 20, 50, 60, 85
END = b"\xce"


def short(text: str) -> bytes:
    """A short string."""
    data = text.encode()
    return bytes([len(data)]) + data


def table(**values: str) -> bytes:
    """A field table of strings."""
    inner = b"".join(
        short(name.replace("_", "-")) + b"S" + struct.pack(">I", len(value)) + value.encode()
        for name, value in values.items()
    )
    return struct.pack(">I", len(inner)) + inner


def frame(kind: int, channel: int, payload: bytes) -> bytes:
    """One frame."""
    return struct.pack(">BHI", kind, channel, len(payload)) + payload + END


def method(channel: int, group: int, number: int, arguments: bytes = b"") -> bytes:
    """A method frame."""
    return frame(1, channel, struct.pack(">HH", group, number) + arguments)


class Amqp:
    """One connection with one channel."""

    def __init__(self, port: int) -> None:
        self.socket = socket.create_connection(("127.0.0.1", port), timeout=60)
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._buffer = bytearray()
        self.socket.sendall(b"AMQP\x00\x00\x09\x01")
        self._until(CONNECTION, 10)
        login = b"\0guest\0guest"
        self.call(0, CONNECTION, 11, table() + short("PLAIN") + struct.pack(">I", len(login)) + login + short("en_US"))
        self._until(CONNECTION, 30)
        self.call(0, CONNECTION, 31, struct.pack(">HIH", 2047, 131072, 0))
        self.call(0, CONNECTION, 40, short("/") + b"\0\0")
        self._until(CONNECTION, 41)
        self.call(1, CHANNEL, 10, short(""))
        self._until(CHANNEL, 11)

    def call(self, channel: int, group: int, number: int, arguments: bytes = b"") -> None:
        """Send a method."""
        self.socket.sendall(method(channel, group, number, arguments))

    def declare(self, queue: str, **arguments: str) -> None:
        """A durable queue."""
        self.call(1, QUEUE, 10, b"\0\0" + short(queue) + b"\x02" + table(**arguments))
        self._until(QUEUE, 11)

    def confirm(self) -> None:
        """Ask for a confirm of each message."""
        self.call(1, CONFIRM, 10, b"\0")
        self._until(CONFIRM, 11)

    def publish_all(self, queue: str, body: bytes, count: int, in_flight: int) -> None:
        """Send persistent messages, at most so many without their confirm; return when all are confirmed."""
        # content header: class, weight, size, flags (delivery-mode is bit 12), delivery-mode 2
        header = struct.pack(">HHQHB", BASIC, 0, len(body), 0x1000, 2)
        one = method(1, BASIC, 40, b"\0\0" + short("") + short(queue) + b"\0") + frame(2, 1, header) + frame(3, 1, body)
        sent = confirmed = 0
        while confirmed < count:
            more = min(in_flight - (sent - confirmed), count - sent)
            if more:
                self.socket.sendall(one * more)
                sent += more
            for group, number, payload in self._frames():
                if (group, number) == (BASIC, 80):
                    tag, multiple = struct.unpack_from(">QB", payload, 4)
                    confirmed = tag if multiple else confirmed + 1
                elif (group, number) == (BASIC, 120):
                    raise RuntimeError("the broker refused a message")

    def consume(self, queue: str, prefetch: int) -> None:
        """Begin to receive."""
        self.call(1, BASIC, 10, struct.pack(">IHB", 0, prefetch, 0))
        self._until(BASIC, 11)
        self.call(1, BASIC, 20, b"\0\0" + short(queue) + short("") + b"\0" + table())
        self._until(BASIC, 21)

    def take(self, count: int) -> None:
        """Receive and acknowledge so many, what one read brought at once."""
        while count > 0:
            last = 0
            for group, number, payload in self._frames():
                if (group, number) == (BASIC, 60):
                    at = 5 + payload[4]
                    (last,) = struct.unpack_from(">Q", payload, at)
                    count -= 1
            if last:
                self.call(1, BASIC, 80, struct.pack(">QB", last, 1))

    def close(self) -> None:
        """Say goodbye; what was acknowledged before is done when it returns."""
        self.call(0, CONNECTION, 50, struct.pack(">H", 200) + short("") + b"\0\0\0\0")
        self._until(CONNECTION, 51)
        self.socket.close()

    def _until(self, group: int, number: int) -> None:
        while True:
            for got_group, got_number, payload in self._frames():
                if (got_group, got_number) == (group, number):
                    return
                if (got_group, got_number) in {(CONNECTION, 50), (CHANNEL, 40)}:
                    raise RuntimeError(f"the broker ended it: {bytes(payload[7:])!r}")

    def _frames(self) -> list[tuple[int, int, bytes]]:
        """What one read brought: class and method of each method frame, with its payload; others are left out."""
        data = self.socket.recv(1 << 18)
        if not data:
            raise ConnectionError("the broker closed the connection")
        self._buffer += data
        buffer, at, found = bytes(self._buffer), 0, []
        while len(buffer) - at >= 8:
            kind, _, size = struct.unpack_from(">BHI", buffer, at)
            if len(buffer) - at < size + 8:
                break
            if kind == 1:
                payload = buffer[at + 7 : at + 7 + size]
                found.append((payload[0] << 8 | payload[1], payload[2] << 8 | payload[3], payload))
            at += size + 8
        del self._buffer[:at]
        return found
