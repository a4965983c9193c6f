"""A plain Gearman client for tests: packets out, packets in, nothing hidden."""

import socket

from dropr_gateway_gearman.packets import REQUEST, RESPONSE, Kind, Packet, Parser, Unusable, encode


class Peer:
    """One connection to a job server."""

    def __init__(self, port, timeout=30.0):
        self.socket = socket.create_connection(("127.0.0.1", port), timeout)
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._parser = Parser(1 << 27, RESPONSE)
        self._found = []

    def send(self, kind, *arguments):
        self.socket.sendall(encode(kind, *arguments, magic=REQUEST))
        return self

    def get(self):
        """The next packet as (kind, arguments...)."""
        while not self._found:
            data = self.socket.recv(1 << 20)
            if not data:
                raise ConnectionError("the server closed the connection")
            self._found += self._parser.receive(data)
        event = self._found.pop(0)
        assert not isinstance(event, Unusable), event
        assert isinstance(event, Packet), event
        return (event.kind, *event.arguments)

    def ask(self, kind, *arguments):
        return self.send(kind, *arguments).get()

    def text(self, line, *, many=False):
        """An admin command; ``many``: the answer ends with a line that has a single dot."""
        self.socket.sendall(line.encode() + b"\n")
        answer = b""
        while not (answer.endswith(b".\n") if many else answer.endswith(b"\n")):
            data = self.socket.recv(1 << 20)
            if not data:
                raise ConnectionError("the server closed the connection")
            answer += data
        return answer.decode()

    def idle(self):
        """Nothing stands between us: an echo comes back at once, and nothing before it."""
        return self.ask(Kind.ECHO_REQ, b"idle") == (Kind.ECHO_RES, b"idle")

    def close(self):
        self.socket.close()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.close()
