"""Ids of messages as people type them: whole, or only their beginning.

Owns how a beginning finds its message, and how short an id may be shown. Must not know any verb.
"""

from collections.abc import Iterable
from itertools import islice
from typing import TYPE_CHECKING, Any, NewType

import click

from dropr_core.cli.failures import Stop, not_found
from dropr_core.errors import DroprError
from dropr_core.monitor.messages import beginning_with
from dropr_core.system.exit_codes import Exit

if TYPE_CHECKING:
    from dropr_core.api.runtime import Runtime
    from dropr_core.model.names import MessageId

SHORTEST = 6
"""Characters of a beginning at least: shorter ones are meant for something else."""

SHOWN = 13
"""Characters of an id as lists show it, if that tells the messages of the list apart."""

Beginning = NewType("Beginning", str)
"""The beginning of an id, in hexadecimal digits without dashes."""


class Identifier(click.ParamType):  # type: ignore[type-arg]  # generic only since click 8.4
    """A message's id: 16 bytes from a UUID, or a `Beginning`."""

    name = "id"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> "bytes | Beginning":
        """Read one."""
        from dropr_core.model.names import parse_id

        digits = str(value).replace("-", "").lower() if isinstance(value, str) else ""
        if SHORTEST <= len(digits) < 32 and not set(digits) - set("0123456789abcdef"):
            return Beginning(digits)
        try:
            return parse_id(value)
        except DroprError:
            text = f"{value!r} is no id of a message, and no beginning of one ({SHORTEST} digits at least)"
            self.fail(text, param, ctx)


IDENTIFIER = Identifier()


def known_id(node: "Runtime", given: "bytes | Beginning") -> "MessageId":
    """The id that was meant; looks through both halves if only its beginning was given.

    Stops with exit 66 if no message here begins so, with 64 if several do.
    """
    from dropr_core.model.names import MessageId, format_id

    if isinstance(given, bytes):
        return MessageId(given)
    found = list(islice(beginning_with(node, given), 3))
    if not found:
        raise not_found(f"no message here has an id that begins with {given}")
    if len(found) > 1:
        some = ", ".join(format_id(one) for one in found[:2]) + (" …" if len(found) > 2 else "")
        raise Stop(Exit.USAGE, f"several messages begin with {given}: {some}; type more of it")
    return found[0]


def known_ids(node: "Runtime", given: "Iterable[bytes | Beginning]") -> "tuple[MessageId, ...]":
    """`known_id` for each."""
    return tuple(known_id(node, one) for one in given)


def shortened(ids: Iterable[str]) -> dict[str, str]:
    """Each id by a beginning of it that no other of them has, all of one length."""
    known = sorted(set(ids))
    length = SHOWN
    while length < 36 and len({one[:length] for one in known}) < len(known):
        length += 1
    return {one: one[:length].rstrip("-") for one in known}
