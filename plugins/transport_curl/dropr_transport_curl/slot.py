"""One curl handle, used for one request after another.

Owns the handle's settings, the bytes of the answer and the two rules that end a stuck request: idle
time and minimum rate. Must not know threads or other requests.
"""

import ssl
from concurrent.futures import Future
from time import monotonic

import attrs
import pycurl  # type: ignore[import-untyped]

from dropr_core.contracts.transport import Tail
from dropr_core.errors import DroprError, Unanswered
from dropr_transport_curl.options import Options
from dropr_transport_curl.verdict import CONTENT_TYPE, failed, judged

_BIG = 64 << 10
_LEAST, _MOST = 16 << 10, 256 << 10
"""Bytes that curl takes of a body at a time. It allocates them for each request that is under way: with a thousand
peers the larger of the two would be a quarter of a gigabyte, of which the allocator gives little back.
"""

HEADERS = [f"Content-Type: {CONTENT_TYPE}", "Expect:", "User-Agent: dropr"]


@attrs.frozen(eq=False)
class Request:
    """One question under way."""

    url: str
    body: bytes
    """All of it, or what comes before the tail."""
    idle: float
    future: "Future[bytes]"
    owner: object
    """The connection that asked; closing it ends its requests."""
    tail: Tail | None = None

    @property
    def size(self) -> int:
        """Bytes to send."""
        return len(self.body) + (0 if self.tail is None else self.tail.size)


class Slot:
    """A curl handle with the state of the request that it carries now."""

    def __init__(self, options: Options) -> None:
        self.curl = curl = pycurl.Curl()
        self.request: Request | None = None
        self.turn = 0
        """Rises with each request, so that a note about an old one is known as such."""
        self._options = options
        self._begin(0.0)
        curl.setopt(pycurl.POST, 1)
        curl.setopt(pycurl.HTTPHEADER, HEADERS)
        curl.setopt(pycurl.NOSIGNAL, 1)
        curl.setopt(pycurl.PROTOCOLS, pycurl.PROTO_HTTP | pycurl.PROTO_HTTPS)
        curl.setopt(pycurl.FOLLOWLOCATION, 0)
        curl.setopt(pycurl.PATH_AS_IS, 1)
        curl.setopt(pycurl.PROXY, options.proxy)  # an empty one also turns the environment's off
        curl.setopt(pycurl.CONNECTTIMEOUT_MS, max(1, round(options.connect * 1000)))
        curl.setopt(pycurl.MAXFILESIZE_LARGE, options.max_answer)
        curl.setopt(pycurl.MAXAGE_CONN, 60)  # below the 75 s after which our listeners hang up
        curl.setopt(pycurl.TCP_KEEPALIVE, 1)
        curl.setopt(pycurl.BUFFERSIZE, _MOST)  # one for all requests of an engine
        curl.setopt(
            pycurl.HTTP_VERSION, pycurl.CURL_HTTP_VERSION_2TLS if options.http2 else pycurl.CURL_HTTP_VERSION_1_1
        )
        curl.setopt(pycurl.PIPEWAIT, int(options.http2))
        self._secure(options)
        curl.setopt(pycurl.WRITEFUNCTION, self._write)
        curl.setopt(pycurl.HEADERFUNCTION, self._header)
        curl.setopt(pycurl.PREREQFUNCTION, self._about_to_send)

    def _secure(self, options: Options) -> None:
        curl, tls = self.curl, options.tls
        curl.setopt(pycurl.SSL_VERIFYPEER, 1)
        curl.setopt(pycurl.SSL_VERIFYHOST, 2)
        curl.setopt(pycurl.SSLVERSION, pycurl.SSLVERSION_TLSv1_2)
        if tls.ca:
            curl.setopt(pycurl.CAINFO, str(tls.ca))
            curl.unsetopt(pycurl.CAPATH)  # else the system's authorities would count besides
        else:  # a curl from a wheel does not know where this system keeps them
            paths = ssl.get_default_verify_paths()
            if paths.cafile:
                curl.setopt(pycurl.CAINFO, paths.cafile)
            elif paths.capath:
                curl.setopt(pycurl.CAPATH, paths.capath)
        if tls.cert:
            curl.setopt(pycurl.SSLCERT, str(tls.cert))
            curl.setopt(pycurl.SSLKEY, str(tls.key or tls.cert))

    # ── one request ──────────────────────────────────────────────────────────────────────────────

    def load(self, request: Request) -> None:
        """Take a request on; the handle is then ready to be added to a multi."""
        now = monotonic()
        self.request = request
        self.turn += 1
        self._begin(now)
        self.curl.setopt(pycurl.URL, request.url)
        self._load_body(request)

    def _load_body(self, request: Request) -> None:
        self.curl.setopt(pycurl.UPLOAD_BUFFERSIZE, _LEAST if len(request.body) <= _LEAST else _MOST)
        self.curl.setopt(pycurl.POSTFIELDS, request.body)  # kept by reference, not copied

    def _begin(self, now: float) -> None:
        self.started = False
        self._chunks: list[bytes] = []
        self._size = 0
        self._headers: list[bytes] = []
        self._seen = -1
        self._moved_at = self._window_at = now
        self._window_bytes = 0

    def unload(self) -> Request:
        """Give the request back; the handle (already out of its multi) is free for another one."""
        request, self.request = self.request, None
        assert request is not None
        if request.tail is None and len(request.body) > _BIG:
            self.curl.setopt(pycurl.POSTFIELDS, b"")  # a waiting handle must not hold megabytes
        self._chunks, self._headers = [], []
        return request

    def result(self, number: int, text: str) -> bytes | DroprError:
        """What the ended transfer gave: curl's error ``number`` (0: none) or an HTTP answer."""
        assert self.request is not None
        url = self.request.url
        if number:
            return failed(url, number, text, started=self.started)
        body = self._chunks[0] if len(self._chunks) == 1 else b"".join(self._chunks)
        status = self.curl.getinfo(pycurl.RESPONSE_CODE)
        return judged(url, status, self.curl.getinfo(pycurl.CONTENT_TYPE), self._headers, body) or body

    def _sent(self) -> int:
        """Bytes of the request that went."""
        return int(self.curl.getinfo(pycurl.SIZE_UPLOAD_T))

    def pause_between_looks(self) -> float:
        """Seconds after which `look` is due again; a stuck request lives at most a quarter longer than it may."""
        assert self.request is not None
        return max(0.02, min(self.request.idle, self._options.rate_window) / 4)

    def look(self) -> DroprError | None:
        """Whether the request is stuck; the error that ends it, if so."""
        assert self.request is not None
        now, request, options = monotonic(), self.request, self._options
        if not self.started:  # curl itself limits the time for connecting
            self._moved_at = self._window_at = now
            return None
        sent = self._sent()
        moved = sent + self._size + sum(map(len, self._headers))
        if moved != self._seen:
            self._seen, self._moved_at = moved, now
        elif now - self._moved_at >= request.idle:
            return Unanswered(
                f"{request.url}: nothing came or went for {request.idle:g} s; the peer hangs, or the way to it is cut"
            )
        if sent >= request.size and not self._headers:  # waiting for the answer is no slowness
            self._window_at, self._window_bytes = now, moved
        elif now - self._window_at >= options.rate_window:
            rate = (moved - self._window_bytes) / (now - self._window_at)
            self._window_at, self._window_bytes = now, moved
            if rate < options.min_rate:
                return Unanswered(
                    f"{request.url}: only {rate:.0f} bytes a second got through for {options.rate_window:g} s "
                    f"(the option 'min_rate' asks for {options.min_rate})"
                )
        return None

    def close(self) -> None:
        """Release the handle; safe twice."""
        self.curl.close()

    # ── what curl calls ──────────────────────────────────────────────────────────────────────────

    def _about_to_send(self, *_ends: object) -> int:
        # Called once the connection stands, before the first byte of the request. curl may repeat a request on a
        # new connection when a kept one turns out dead; started then stays true, as it must.
        if not self.started:
            self.started = True
            self._moved_at = self._window_at = monotonic()
        return int(pycurl.PREREQFUNC_OK)

    def _header(self, line: bytes) -> None:
        if line.startswith(b"HTTP/"):
            self._headers.clear()
        self._headers.append(line)

    def _write(self, data: bytes) -> int | None:
        self._size += len(data)
        if self._size > self._options.max_answer:
            return -1
        self._chunks.append(data)
        return None


class LongSlot(Slot):
    """A handle for requests with a tail, which is read while it is sent.

    A handle that was ever given a whole body cannot be told to ask for it in steps again, so these are handles of
    their own.
    """

    def __init__(self, options: Options) -> None:
        super().__init__(options)
        self._at = 0
        self.curl.setopt(pycurl.UPLOAD_BUFFERSIZE, 1 << 20)  # the fewer steps, the less is done in Python
        self.curl.setopt(pycurl.READFUNCTION, self._read)
        self.curl.setopt(pycurl.SEEKFUNCTION, self._seek)

    def _load_body(self, request: Request) -> None:
        self._at = 0
        self.curl.setopt(pycurl.POSTFIELDSIZE_LARGE, request.size)

    def _read(self, size: int) -> bytes | int:
        request = self.request
        assert request is not None
        assert request.tail is not None
        offset = self._at - len(request.body)
        if offset < 0:
            data = request.body[self._at : self._at + size]
        else:
            try:
                data = request.tail.read(offset, min(size, request.tail.size - offset))
            except OSError:
                return int(pycurl.READFUNC_ABORT)
        self._at += len(data)
        return data

    def _seek(self, offset: int, origin: int) -> int:
        """Curl sends it again on a new connection when a kept one turns out dead."""
        if origin != 0:
            return int(pycurl.SEEKFUNC_CANTSEEK)
        self._at = offset
        return int(pycurl.SEEKFUNC_OK)
