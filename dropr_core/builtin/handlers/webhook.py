"""The handler ``webhook``: POST the body to a URL.

Owns the request, its signature (as Stripe signs: ``t=<unix seconds>,v1=<hex hmac-sha256>`` over
``<t>.<body>``) and what each answer means. Must not know leases or stores.
"""

import contextlib
import datetime as dt
import email.utils
import hashlib
import hmac
import re
import threading
from pathlib import Path
from typing import Any, BinaryIO
from urllib.parse import urlsplit

import attrs
import msgspec
import requests

from dropr_core import options as fields
from dropr_core.builtin.handlers.http_session import Session, authorities, proxies_for
from dropr_core.contracts.context import Context
from dropr_core.contracts.handler import Handler, NoResult, Work
from dropr_core.errors import Reject, Retry, UsageError
from dropr_core.hookspecs import hookimpl
from dropr_core.model.limits import MAX_RESULT
from dropr_core.system.clock import Clock

MAX_RETRY_AFTER = 86400.0
"""Seconds: no server sends a message to sleep for longer."""

_LATER = frozenset({408, 425, 429})
"""Refusals that are about the moment and not about the message. So is every 5xx."""

_PLAIN = re.compile(r"[\x20-\x7e]{1,200}")


def _check_target(text: str) -> None:
    try:
        parts = urlsplit(text)
        good = parts.scheme in ("http", "https") and bool(parts.hostname) and parts.port != 0
    except ValueError:
        good = False
    if not good:
        raise UsageError(f"{text!r} is no web address; write webhook:https://host/path")


def _check_proxy(text: str) -> None:
    if text != "none":
        _check_target(text)


@attrs.frozen(kw_only=True)
class Options:
    """Options of the handler ``webhook``."""

    target: str = fields.option(doc="The URL to POST to.", check=_check_target)
    secret: str | None = fields.secret(None, doc="Signs each request (header Dropr-Signature).", unset="no signature")
    timeout: float = fields.duration(
        "30s", least=0.001, doc="How long it may take from the first byte sent to the last one of the answer."
    )
    connect: float = fields.duration("5s", least=0.001, doc="How long connecting may take.")
    ca: Path | None = fields.path(None, doc="PEM file of the authorities that sign the server's certificate.")
    proxy: str | None = fields.option(
        None,
        doc="URL of a proxy, or `none`.",
        unset="that of the environment (`https_proxy`, `http_proxy`, `no_proxy`); for loopback none",
        check=_check_proxy,
    )
    verify: bool = fields.option(default=True, doc="Check the server's certificate. Turn it off for tests only.")


class Webhook(Handler):
    """2xx is done. 408, 425, 429, 5xx and a failing network are tried again, and so are 3xx, 401 and 403: the
    message is not to blame for a wrong address or key. Every other answer buries the message.
    """

    def __init__(self, options: Options, clock: Clock) -> None:
        self._options, self._clock = options, clock
        self._local = threading.local()
        self._lock = threading.Lock()
        self._sessions: list[Session] = []
        self._proxies = proxies_for(options.target, options.proxy)

    def handle(self, work: Work) -> Any:
        """POST the body; the answer's body, up to 64 KiB, is the result."""
        ends = self._clock.now() + self._options.timeout
        with contextlib.ExitStack() as stack:
            # A large body is read from its file as it goes out.
            body: bytes | BinaryIO = stack.enter_context(work.open()) if work.large else work.body
            return self._post(work, body, ends)

    def _post(self, work: Work, body: bytes | BinaryIO, ends: float) -> Any:
        options = self._options
        verify: bool | str = False
        if options.verify:
            verify = str(options.ca) if options.ca else authorities()
        status = 0
        try:
            with self._session().post(
                options.target, body, self._headers(work), connect=options.connect, total=options.timeout, verify=verify
            ) as answer:
                status = answer.status_code
                return self._judge(answer, ends)
        except (requests.RequestException, OSError) as error:
            if 200 <= status < 300:  # it was answered only when its time was over
                return _broken(status, error)
            raise Retry(f"webhook: {type(error).__name__}: {_short(str(error))}") from error

    def _headers(self, work: Work) -> dict[str, str]:
        now = int(self._clock.wall())
        kind = work.message.content_type
        headers = {
            # The content type comes from the network: what cannot stand in a header is not put there.
            "Content-Type": kind if _PLAIN.fullmatch(kind) else "application/octet-stream",
            "User-Agent": "dropr",
            "Accept-Encoding": "identity",  # so that 64 KiB of an answer are no more than 64 KiB of memory
            "X-Dropr-Id": work.id,
            "X-Dropr-Channel": work.message.channel,
            "X-Dropr-Attempt": str(work.attempt),
            "X-Dropr-Timestamp": str(now),
        }
        if _PLAIN.fullmatch(trace := work.headers.get("traceparent", "")):
            headers["traceparent"] = trace.strip()
        if self._options.secret:
            with work.open() as body:
                headers["Dropr-Signature"] = sign(self._options.secret, now, body)
        return headers

    def _judge(self, answer: requests.Response, ends: float) -> Any:
        status = answer.status_code
        body: bytes | None = b""
        try:
            body = self._read(answer, ends)
        except (requests.RequestException, OSError) as error:
            # The status is the answer: whatever happens to the text after it, the work is done, refused or not.
            if 200 <= status < 300:
                return _broken(status, error)
        if 200 <= status < 300:
            if body is None:
                return NoResult(f"an answer of more than {MAX_RESULT} bytes")
            return _result(answer.headers.get("Content-Type", ""), body)
        text = (body or b"")[:500].decode("utf-8", "replace").strip()
        reason = f"webhook: HTTP {status} {answer.reason or ''}".rstrip() + (f": {text}" if text else "")
        if 300 <= status < 400:
            where = answer.headers.get("Location", "elsewhere")
            raise Retry(f"webhook: HTTP {status}, moved to {_short(where)}; write that address into the configuration")
        if status in _LATER or status >= 500:
            raise Retry(reason, self._retry_after(answer) if status in (429, 503) else None)
        if status in (401, 403):
            # About our credentials and not about the message: somebody can repair it.
            raise Retry(reason)
        raise Reject(reason)

    def _read(self, answer: requests.Response, ends: float) -> bytes | None:
        """The body, or None if it is longer than a result may be."""
        data = b""
        for piece in answer.iter_content(8192):
            data += piece
            if len(data) > MAX_RESULT:
                return None
            if self._clock.now() > ends:  # the library's own time-out is for each read
                raise requests.ReadTimeout("the answer took too long")
        return data

    def _retry_after(self, answer: requests.Response) -> float | None:
        value = answer.headers.get("Retry-After", "").strip()
        if value.isascii() and value.isdigit():
            return min(float(value[:10]), MAX_RETRY_AFTER)
        with contextlib.suppress(ValueError, OverflowError):
            moment = email.utils.parsedate_to_datetime(value)
            if moment.tzinfo is None:
                moment = moment.replace(tzinfo=dt.UTC)
            return min(max(0.0, moment.timestamp() - self._clock.wall()), MAX_RETRY_AFTER)
        return None

    def _session(self) -> Session:
        """One for each thread: a session keeps its connection, and is not made to be shared."""
        session: Session | None = getattr(self._local, "session", None)
        if session is None:
            session = self._local.session = Session(self._proxies)
            with self._lock:
                self._sessions.append(session)
        return session

    def close(self) -> None:
        """Close all connections; safe twice."""
        with self._lock:
            sessions, self._sessions = self._sessions, []
        for session in sessions:
            session.close()


def sign(secret: str, timestamp: int, body: bytes | BinaryIO) -> str:
    """The value of the header Dropr-Signature: HMAC-SHA256 over the time, a dot and the body."""
    digest = hmac.new(secret.encode(), f"{timestamp}.".encode(), hashlib.sha256)
    if isinstance(body, bytes):
        digest.update(body)
    else:
        while piece := body.read(1024 * 1024):
            digest.update(piece)
    return f"t={timestamp},v1={digest.hexdigest()}"


def _broken(status: int, error: Exception) -> NoResult:
    return NoResult(f"the answer broke off after HTTP {status}: {type(error).__name__}: {_short(str(error))}")


def _result(content_type: str, body: bytes) -> Any:
    kind = content_type.partition(";")[0].strip().lower()
    if not body:
        return None
    if kind == "application/json" or kind.endswith("+json"):
        with contextlib.suppress(msgspec.MsgspecError, ValueError, RecursionError):
            return msgspec.json.decode(body)
    if kind.startswith("text/") or kind == "application/json":
        return body.decode("utf-8", "replace")
    return body


def _short(text: str) -> str:
    return text if len(text) <= 300 else text[:297] + "..."


@hookimpl
def dropr_handler(options: Options, context: Context) -> Handler:
    """The handler ``webhook``."""
    return Webhook(options, context.clock)
