"""Every limit that has two sides: what a sender keeps to, and what a receiver refuses.

Owns the numbers, once for both sides, and `clip`, which keeps texts for people within theirs. Whoever makes something
cuts it, counts it or refuses it here first, so that nothing is stored or sent that the other side has to refuse.
docs/limits.md is made of `TABLE`. Must not know who keeps to a limit.

Bytes are counted as they travel (UTF-8), durations in seconds.
"""

from typing import NamedTuple

from dropr_core.errors import UsageError

# ── one message ──────────────────────────────────────────────────────────────────────────────────

MAX_CHANNEL = 200
MAX_NAME = 64
MAX_KEY = 200
MAX_CONTENT_TYPE = 255
MAX_HEADERS = 64 * 1024
MAX_ENVELOPE_HEADER = 256 * 1024
MAX_INLINE = 4 * 1024 * 1024
MAX_HOPS = 16
MAX_SECONDS = 1e10

# ── one receipt ──────────────────────────────────────────────────────────────────────────────────

MAX_RESULT = 64 * 1024
MAX_REASON = 4096
MAX_REJECTION = 300

# ── one request ──────────────────────────────────────────────────────────────────────────────────

MAX_FRAME_HEADER = 4096
MAX_LANES = 2000
PUSH_LANES = 500
"""Lanes that a sender puts into one push: a storage with a file for each lane needs a while for so many new ones, and
the answer must come within `idle_timeout`."""
MAX_BATCH_COUNT = 50_000
MAX_BATCH_BYTES = 32 * 1024 * 1024
MAX_RECEIPTS = 1000
RECEIPTS_BYTES = 1024 * 1024
PIECE = 4 * 1024 * 1024
PIECES_AHEAD = 16 * 1024 * 1024
"""Bytes of a large body that its receiver keeps behind a piece which is late; what lies further on is sent again."""
MAX_WAIT = 55.0
MAX_SEQUENCE = 2**63 - 1

FRAMING = 2 * 1024 * 1024
"""Bytes of a request beside the envelopes that it carries: channels of `MAX_LANES` lanes, notes on `MAX_BATCH_COUNT`
envelopes. Also beside a page of receipts, whose rows are counted with `RECEIPTS_BYTES`."""

MAX_ENVELOPE = MAX_INLINE + MAX_ENVELOPE_HEADER + 64
"""Bytes of the largest envelope that a node makes."""

MAX_ANSWER = MAX_BATCH_BYTES + MAX_ENVELOPE + FRAMING


def max_request(batch_bytes: int) -> int:
    """Bytes of the largest request body that a node takes whose batches are of ``batch_bytes``.

    The sender computes it from what the receiver announces; no other option of either node has a part in it.
    """
    return max(batch_bytes, MAX_ENVELOPE, PIECE) + FRAMING


def clip(text: object, most: int = MAX_REASON) -> str:
    """A text for people, made fit to be stored and sent: valid UTF-8 of at most ``most`` bytes, cut at its end."""
    if not isinstance(text, str):
        text = str(text)
    if len(text) <= most and text.isascii():
        return text
    data = text[: most + 1].encode("utf-8", "backslashreplace")
    if len(data) <= most:
        return data.decode()
    return data[: most - 3].decode("utf-8", "ignore") + "…"


def shorten(value: object) -> str:
    """A value as an error shows it."""
    text = repr(value) if not isinstance(value, str) else repr(value[:60])
    return text if len(text) <= 60 else text[:57] + "..."


def to_utf8(text: str, what: str) -> bytes:
    """The UTF-8 of a text; raises UsageError naming ``what`` where it has none, as a file name that is no UTF-8."""
    try:
        return text.encode()
    except UnicodeEncodeError as error:
        raise UsageError(
            f"{what}: has no UTF-8 form (character {error.start} is half of a pair, or a byte that was no text)"
        ) from None


class Limit(NamedTuple):
    """One row of docs/limits.md."""

    what: str
    most: str
    sender: str
    """How the side that makes it keeps to the limit."""
    receiver: str
    """What the other side does with one that is over it."""


def _size(count: int) -> str:
    for unit, factor in (("MiB", 1024 * 1024), ("KiB", 1024)):
        if count % factor == 0:
            return f"{count // factor} {unit}"
    return f"{count:,} bytes"


TABLE = (
    Limit("name of a channel", f"{MAX_CHANNEL} characters", "`send` refuses", "the delivery fails: `bad_name`"),
    Limit("name of a node", f"{MAX_NAME} characters", "the configuration refuses", "the request is refused"),
    Limit("ordering key", f"{MAX_KEY} characters", "`send` refuses", "the delivery fails: `bad_message`"),
    Limit("content type", f"{MAX_CONTENT_TYPE} printable ASCII", "`send` refuses", "the delivery fails: `bad_message`"),
    Limit("headers together", _size(MAX_HEADERS), "`send` refuses", "the delivery fails: `bad_message`"),
    Limit("header of an envelope", _size(MAX_ENVELOPE_HEADER), "bounded by the four above",
          "the delivery fails: `bad_envelope`"),
    Limit("body within its envelope (`limits.inline_body`)", _size(MAX_INLINE), "the configuration refuses",
          "bounded by the request"),
    Limit("body (`limits.max_body`, of each node)", "no limit", "`send` refuses by its own",
          "the delivery fails: `too_big`"),
    Limit("delay, expiry, age", f"{MAX_SECONDS:.0e} s, finite, from 0", "`send` refuses",
          "the delivery fails: `bad_message`"),
    Limit("relays", f"{MAX_HOPS}", "nothing relays yet", "the delivery fails: `loop`"),
    Limit("result", _size(MAX_RESULT), "`ack` refuses; a worker goes without it, and says so",
          "the receipt is kept without it"),
    Limit("reason, error text", _size(MAX_REASON), "cut where it arises", "cut"),
    Limit("reason of a refused delivery", f"{MAX_REJECTION} bytes", "cut where it arises", "cut"),
    Limit("receipts in a page", f"{MAX_RECEIPTS:,}, and {_size(RECEIPTS_BYTES)}", "the page ends there",
          "bounded by the request"),
    Limit("lanes in a push, a probe, a fetch", f"{MAX_LANES:,}", "the rest goes with the next",
          "the request is refused: `too_big`"),
    Limit("envelopes in a push (`limits.batch_count` of the receiver, announced)", f"{MAX_BATCH_COUNT:,}",
          "the rest goes with the next", "the request is refused over the most"),
    Limit("envelopes in a push (`limits.batch_bytes` of the receiver, announced)", _size(MAX_BATCH_BYTES),
          "the rest goes with the next; one that is too large alone is set aside", "bounded by the request"),
    Limit("request", f"announced `batch_bytes`, at least {_size(PIECE + FRAMING)}", "bounded by the above",
          "refused before it is read: `too_big`"),
    Limit("answer", f"{MAX_ANSWER:,} bytes", "bounded by the above", "no answer: asked again"),
    Limit("piece of a body", _size(PIECE), "cut", "the piece is refused"),
    Limit("header of a frame", _size(MAX_FRAME_HEADER), "bounded by the names", "the request is refused: `bad_frame`"),
    Limit("sequence number", "2^63 - 1", "counted from 1", "the lane waits, with the reason `bad_lane`"),
    Limit("long poll", f"{MAX_WAIT:.0f} s", "asks for no more", "ends it there"),
)  # fmt: skip
