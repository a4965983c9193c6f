"""Errors as a caller sees them: application/problem+json, with words for the person who reads them at night.

Owns which error of dropr has which status, and how long to wait before the same call may succeed. Must not know
operations.
"""

from http import HTTPStatus

import msgspec

from dropr_core.errors import (
    Closed,
    Conflict,
    DroprError,
    LeaseLost,
    NotAllowed,
    QueueFull,
    StoreError,
    TooBig,
    UsageError,
)
from dropr_gateway_http import words

MEDIA = "application/problem+json"


class Trouble(Exception):
    """A request that is refused. ``code``: a word for machines; ``more``: headers."""

    def __init__(self, status: int, code: str, detail: str, more: dict[str, str] | None = None) -> None:
        self.status, self.code, self.detail, self.more = status, code, detail, more or {}
        super().__init__(detail)

    def body(self) -> bytes:
        """The document."""
        title = HTTPStatus(self.status).phrase
        return msgspec.json.encode(words.Problem(title, self.status, self.detail, code=self.code))


_KINDS: tuple[tuple[type[DroprError], int, str], ...] = (
    (TooBig, 413, "too_big"),
    (Conflict, 409, "conflict"),
    (NotAllowed, 403, "not_allowed"),
    (UsageError, 400, "bad_request"),
    (LeaseLost, 404, "lease_lost"),
    (QueueFull, 503, "queue_full"),
    (Closed, 503, "closing"),
)


def trouble_of(error: DroprError) -> Trouble:
    """What a caller is told about an error of dropr."""
    for kind, status, code in _KINDS:
        if isinstance(error, kind):
            retry = {"Retry-After": "1"} if status == 503 else None
            return Trouble(status, code, _detail(error, status), retry)
    if isinstance(error, StoreError) and error.retryable:
        return Trouble(503, "store_busy", _detail(error, 503), {"Retry-After": "1"})
    return Trouble(500, "store" if isinstance(error, StoreError) else "internal", str(error))


def _detail(error: DroprError, status: int) -> str:
    return f"{error}; nothing was changed, the same request may succeed later" if status == 503 else str(error)


def lease_over(handle: str) -> Trouble:
    """Nobody holds that lease any more."""
    return Trouble(
        404,
        "lease_lost",
        f"the lease {handle[:60]} is over: its time ended, or it was settled before. Nothing was changed; the message, "
        "if it still waits, comes again to whoever receives next. Ask for a longer `hold`, or touch the lease in time",
    )
