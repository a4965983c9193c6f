"""Raw callers of a listener: bytes out, bytes in."""

import socket

WAIT = 30.0


def talk(listener, *parts, end=False):
    """Send raw bytes and return everything that comes back until the server hangs up."""
    port = int(listener.url.split(":")[2].split("/")[0])
    with socket.create_connection(("127.0.0.1", port), timeout=WAIT) as line:
        for part in parts:
            line.sendall(part)
        if end:
            line.shutdown(socket.SHUT_WR)
        back = b""
        try:
            while more := line.recv(65536):
                back += more
        except ConnectionResetError:
            pass
        return back


def dial(listener):
    """A raw connection."""
    return socket.create_connection(("127.0.0.1", int(listener.url.split(":")[2].split("/")[0])), timeout=WAIT)


def status(line):
    """The status of the next answer on a raw connection; the answer is read to its end."""
    back = b""
    while b"\r\n\r\n" not in back:
        back += line.recv(65536)
    head, _, body = back.partition(b"\r\n\r\n")
    length = next(int(part[15:]) for part in head.lower().split(b"\r\n") if part.startswith(b"content-length:"))
    while len(body) < length:
        body += line.recv(65536)
    return int(head.split()[1])


def gone(line):
    """Whether the server ended it."""
    try:
        return line.recv(1) == b""
    except ConnectionResetError:
        return True


def post(body, length=None, path="/dropr", more=b"Connection: close\r\n"):
    size = len(body) if length is None else length
    return b"POST %s HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n%s\r\n" % (path.encode(), size, more) + body
