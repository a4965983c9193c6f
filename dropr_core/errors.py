"""Every exception that dropr raises on purpose.

Owns the tree below and the one question a caller has about an error: can trying again help?
It must not know any other module of dropr.

DroprError
 ├─ UsageError (also ValueError)       the call cannot work as it stands
 │   ├─ BadName                        a name breaks the one pattern for names
 │   ├─ UnknownPeer                    no peer, group or route of that name
 │   ├─ NotAllowed                     the configuration forbids it
 │   ├─ TooBig                         body, headers or result over the limit
 │   └─ Conflict                       this id was sent before with other content
 ├─ ConfigError                        the YAML is wrong; lists every mistake
 ├─ PluginError                        a plugin is missing, broken, doubled or not what it claims
 ├─ StoreError                         the durable queue could not do it
 │   ├─ QueueFull          (retryable) over a limit or the free-space floor
 │   ├─ StoreBusy          (retryable) somebody else holds the lock for too long
 │   ├─ WriteFailed        (retryable) a write or fsync failed: nothing was promised
 │   ├─ StoreGone                      the directory vanished, or is another store now
 │   ├─ StoreReadOnly                  no permission, read-only medium, or a copy opened to look at
 │   ├─ StoreCorrupt                   damage that the storage cannot step around by itself
 │   └─ StoreTooNew                    written by a newer dropr
 ├─ Held                               another process holds a lock that only one may hold
 ├─ LeaseLost                          this message is no longer ours to settle
 │   └─ AlreadyProcessed               it has taken effect before: nothing is to be done again
 ├─ TransportError         (retryable)
 │   ├─ Unreachable        (retryable) certain: nothing reached the peer
 │   └─ Unanswered         (retryable) unknown: the peer may have taken it
 ├─ ProtocolError                      bytes from outside that are not what they should be
 │   ├─ BadEnvelope
 │   ├─ BadFrame
 │   └─ BadBody
 ├─ Refused                            the peer said no to the whole request, with a code
 ├─ Retry                  (retryable) raised by a handler: again, later
 ├─ Reject                             raised by a handler: never again
 ├─ DeliveryFailed                     wait(): the message ended without being processed
 ├─ WaitTimeout (also TimeoutError)    wait(): not yet
 └─ Closed                             used after close, or in a forked child
"""

import errno
import re
from collections.abc import Sequence
from datetime import timedelta
from typing import ClassVar

_PASSING = frozenset({errno.EMFILE, errno.ENFILE, errno.ENOMEM, errno.EIO})


def passes(error: OSError) -> bool:
    """Whether what the system refused may succeed later though nobody changes the file or its path."""
    return error.errno in _PASSING


def code_of(error: BaseException) -> str:
    """The stable code of an error, `queue-full` for QueueFull; of a private kind, that of the public one above it.

    Empty for what is none of ours. `dropr explain CODE` says what it means.
    """
    for kind in type(error).__mro__:
        if kind.__module__ == __name__ and kind is not DroprError:
            return code_of_kind(kind)
    return ""


def code_of_kind(kind: type[BaseException]) -> str:
    """The code of an exception of this file."""
    return re.sub(r"(?<!^)(?=[A-Z])", "-", kind.__name__).lower()


class DroprError(Exception):
    """Root of all errors of dropr."""

    retryable: ClassVar[bool] = False
    """Whether the very same call may succeed later without anybody changing anything."""


class UsageError(DroprError, ValueError):
    """The call cannot work as it stands; nothing was stored."""


class BadName(UsageError):
    """A node, peer, group, channel or plugin name breaks the pattern for names."""


class UnknownPeer(UsageError):
    """No peer, group or route of that name is configured."""


class NotAllowed(UsageError):
    """The configuration forbids this to this caller."""


class TooBig(UsageError):
    """A body, headers or result are over their limit."""


class Conflict(UsageError):
    """A message with this id was sent before, with other content."""


class ConfigError(DroprError):
    """The configuration is wrong. ``problems`` has one finished line for each mistake."""

    def __init__(self, problems: Sequence[str]) -> None:
        self.problems = tuple(problems)
        super().__init__("\n".join(self.problems))


class PluginError(DroprError):
    """A plugin is missing, broken, claimed twice, or does not keep its contract."""


class StoreError(DroprError):
    """The durable queue could not do what was asked; what it promised before still holds."""


class QueueFull(StoreError):
    """Over a limit of messages or bytes, or under the free-space floor.

    ``queue``: whose limit it is: ``("peer", name)``, ``("channel", name)``, ``("all", "")`` of everything that waits;
    None: there is no room, whatever is to be stored. ``never``: this alone is over the limit, and waiting cannot help.
    """

    retryable = True

    def __init__(self, *args: object, queue: tuple[str, str] | None = None, never: bool = False) -> None:
        super().__init__(*args)
        self.queue, self.never = queue, never


class StoreBusy(StoreError):
    """Another process holds the store's lock for longer than the bounded wait."""

    retryable = True


class WriteFailed(StoreError):
    """A write or fsync failed. Nothing was promised; the file is not trusted until checked again."""

    retryable = True


class StoreGone(StoreError):
    """The store's directory vanished, or holds another store than the one that was opened."""


class StoreReadOnly(StoreError):
    """The store cannot be written: permissions, a read-only medium, or opened only to look."""


class StoreCorrupt(StoreError):
    """Damage that the storage cannot step around by itself; nothing was deleted."""


class StoreTooNew(StoreError):
    """The store was written by a newer dropr than this one."""


class Held(DroprError):
    """Another living process holds a lock that only one process may hold."""


class LeaseLost(DroprError):
    """The lease on this message ended; another consumer may have it. Nothing was changed."""


class AlreadyProcessed(LeaseLost):
    """The message has taken effect before, with another transaction; this one is to be rolled back."""


class TransportError(DroprError):
    """The hop failed as a whole."""

    retryable = True


class Unreachable(TransportError):
    """Certain: nothing reached the peer (no route, refused, DNS, TLS, connect time-out)."""


class Unanswered(TransportError):
    """Unknown: the peer may or may not have taken it (time-out, broken line, unreadable answer)."""


class ProtocolError(DroprError):
    """Bytes from a disk or a network that are not what they should be."""


class BadEnvelope(ProtocolError):
    """A stored or shipped message that is torn, damaged, or of an unknown version."""


class BadFrame(ProtocolError):
    """A request or answer that is not a dropr frame, or breaks a limit."""


class BadBody(ProtocolError):
    """A large body that arrived whole has another digest than its sender promised."""


class Refused(DroprError):
    """The peer refused the whole request. ``code`` is a word for machines, the text is for people.

    ``signed``: the peer itself said so, proven by the pair's key; else it may have been anybody on
    the way, and nothing is decided by it that costs a message.
    """

    def __init__(self, code: str, reason: str, *, signed: bool = False) -> None:
        self.code, self.reason, self.signed = code, reason, signed
        super().__init__(f"{code}: {reason}")


class Retry(DroprError):
    """Raised by a handler: try this message again, ``after`` that long from now (None: usual backoff).

    ``after``: seconds, a text such as ``"5m"``, or a timedelta. Anything else means the usual backoff, and is said.
    """

    retryable = True

    def __init__(self, reason: str = "", after: float | str | timedelta | None = None) -> None:
        self.reason, self.after = reason, after
        super().__init__(reason or "the handler asked to try again")


class Reject(DroprError):
    """Raised by a handler: this message can never work; bury it and tell the sender."""

    def __init__(self, reason: str = "") -> None:
        self.reason = reason
        super().__init__(reason or "the handler rejected the message")


class DeliveryFailed(DroprError):
    """A message that was waited for ended without being processed everywhere."""


class WaitTimeout(DroprError, TimeoutError):
    """What was waited for did not happen in time; it may still happen."""


class Closed(DroprError):
    """The object was closed, or was opened in a parent process before a fork."""
