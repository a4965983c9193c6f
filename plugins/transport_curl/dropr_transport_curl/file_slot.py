"""A curl handle for requests that end in a piece of a file, which the kernel sends without copying it.

Owns how curl is made to send the beginning alone, and the sending of the rest. Must not know when sockets are ready
(engine.py).

curl would have each byte read into memory, copy it, and copy it again when it sends it: a third of what a node does to
send a large body. So it is given the beginning as the whole body, under a head that says the length of all of it. When
it has sent that and waits for the answer, the rest goes into its socket by `sendfile`. Until all of that has gone the
connection must not carry another request, and only a line without TLS can be written to beside curl.
"""

import os

import pycurl  # type: ignore[import-untyped]

from dropr_core.contracts.transport import FileTail
from dropr_core.errors import Unanswered
from dropr_transport_curl.options import Options
from dropr_transport_curl.slot import HEADERS, Request, Slot

_STEP = 256 << 10
"""Bytes read and sent at once where the kernel does not do both."""


class FileSlot(Slot):
    """A handle for such requests."""

    def __init__(self, options: Options) -> None:
        super().__init__(options)
        self._at = 0
        self._copies = self._broken = False

    @staticmethod
    def may(url: str) -> bool:
        """Whether the line to there can be written to beside curl. A pycurl before 7.46 does not tell its socket."""
        return url[:7].lower() == "http://" and hasattr(pycurl, "ACTIVESOCKET")

    def _load_body(self, request: Request) -> None:
        super()._load_body(request)
        self._from_the_beginning()
        self.curl.setopt(pycurl.HTTPHEADER, [f"Content-Length: {request.size}", *HEADERS])
        self.curl.setopt(pycurl.FORBID_REUSE, 1)

    def _about_to_send(self, *ends: object) -> int:
        self._from_the_beginning()  # curl sends it again on a new connection when a kept one turns out dead
        return super()._about_to_send(*ends)

    def _from_the_beginning(self) -> None:
        self._at, self._copies, self._broken = 0, False, False

    def _sent(self) -> int:
        return super()._sent() + self._at

    @property
    def unsent(self) -> bool:
        """Whether some of the tail is to go yet, and may."""
        assert self.request is not None
        assert self.request.tail is not None
        return self._at < self.request.tail.size and not self._broken

    def line(self) -> int | None:
        """The socket that the tail goes into; None: curl has not sent the beginning; -1: curl does not say."""
        assert self.request is not None
        if not self.started or super()._sent() < len(self.request.body):
            return None
        return int(self.curl.getinfo(pycurl.ACTIVESOCKET))

    def pour(self, line: int) -> Unanswered | None:
        """Send what the line takes now; the error that ends the request, if the tail cannot be read."""
        assert self.request is not None
        tail = self.request.tail
        assert isinstance(tail, FileTail)
        try:
            while self._at < tail.size:
                try:
                    took = 0 if self._copies else tail.send(line, self._at, tail.size - self._at)
                except BlockingIOError:
                    return None
                except OSError:
                    took = 0
                if not took:  # a file that the kernel cannot send, or that is damaged, or a broken line
                    self._copies = True
                    data = tail.read(self._at, min(_STEP, tail.size - self._at))
                    try:
                        took = os.write(line, data)
                    except BlockingIOError:
                        return None
                    except OSError:
                        self._broken = True  # curl finds it broken, too, and says so
                        return None
                self._at += took
        except OSError as error:
            return Unanswered(f"{self.request.url}: the end of the request cannot be read: {error}")
        self.curl.setopt(pycurl.FORBID_REUSE, 0)
        return None
