"""The verb that sends: send.

Owns how words of a command line become a value for the channel's serializer. This is the verb that
scripts call most often: what it imports decides how fast they are.
"""

import contextlib
import json
import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import click

from dropr_core.cli.bars import bar
from dropr_core.cli.common import DURATION, MOMENT, PAIR, opened, verb
from dropr_core.cli.failures import Stop
from dropr_core.cli.output import echo, echo_json
from dropr_core.cli.streams import forget_output
from dropr_core.system.exit_codes import Exit

if TYPE_CHECKING:
    from dropr_core.api.runtime import Runtime
    from dropr_core.api.sent import Sent
    from dropr_core.config.node import NodeConfig
    from dropr_core.contracts.bodies import Progress


@verb(
    "send",
    keys="`id`, `existed` (this id was sent before with the same content), `state` (of the message), "
    "`deliveries` (a list: `peer`, `channel`, `state`, `reason`); with --wait also `result` and `problem` "
    "(null if it was processed).",
)
@click.argument("value", required=False)
@click.option("--file", type=click.Path(path_type=Path, dir_okay=False), help="Send the content of this file.")
@click.option("--to", multiple=True, metavar="NAME", help="A peer or a group; may be repeated. Default: the channel's.")
@click.option("--channel", metavar="NAME", help="The queue at the peer.  [default: common]")
@click.option("--priority", type=click.IntRange(0, 9), help="0 (first) to 9 (last). Default: the channel's, or 5.")
@click.option(
    "--rank",
    type=click.IntRange(0, (1 << 32) - 1),
    metavar="N",
    help="A finer order, 0 first; the priority follows from it.",
)
@click.option("--delay", type=DURATION, metavar="DURATION", help="No consumer gets it earlier, such as 30s, 5m.")
@click.option("--at", type=MOMENT, metavar="MOMENT", help="The same as a moment, such as 2026-12-24T18:00+01:00.")
@click.option("--expires-in", type=DURATION, metavar="DURATION", help="No consumer gets it later, such as 1h, 7d.")
@click.option("--header", "headers", type=PAIR, multiple=True, metavar="NAME=VALUE", help="A header; may be repeated.")
@click.option("--key", help="Ordering key: messages of one key are handled one after the other.")
@click.option("--id", "message_id", metavar="UUID", help="The message's id; sent twice, it is stored once.")
@click.option("--dedup-key", help="The same with any text of yours in place of a UUID.")
@click.option("--receipt/--no-receipt", default=None, help="Learn whether it was processed. Default: the channel's.")
@click.option("--content-type", metavar="TYPE", help="What the body is. Default: the serializer's.")
@click.option("--timeout", type=DURATION, default=0.0, metavar="DURATION", help="Wait for room if the queue is full.")
@click.option(
    "--wait", type=DURATION, metavar="SECONDS",
    help="Wait until it is processed (without receipt: accepted); exit 1 if not.",
)  # fmt: skip
def send_verb(
    config_file: Path | None,
    as_json: bool,
    value: str | None,
    file: Path | None,
    to: tuple[str, ...],
    headers: tuple[tuple[str, str], ...],
    message_id: str | None,
    wait: float | None,
    **options: Any,
) -> None:
    """Put a message into the outbox; print its id. Once it returns, the message is on this machine's disk.

    VALUE goes through the channel's serializer: with json it is read as JSON, else it is sent as text.
    '-' reads the body from standard input.
    """
    _check_source(value, file)
    pairs = _headers(headers)
    with opened(config_file, change=True) as node, contextlib.ExitStack() as stack:
        from dropr_core.api.sender import Sender  # a Node would bring all that receives, too

        meaning = _meaning(node.config, options["channel"], value, file)
        progress = _bar(meaning, stack)
        sender_options: Any = {"to": list(to) or None, "headers": pairs, "id": message_id, **options}
        timeout = sender_options.pop("timeout")
        sent = Sender(node).send(meaning, sender_options, timeout, progress)
        stack.close()
        ended = _wait(node, sent, wait) if wait is not None else None
        try:
            _print(sent, ended, as_json=as_json)
            sys.stdout.flush()
        except (OSError, ValueError) as error:
            # It is stored. Who calls us would send it again if we failed now.
            forget_output()
            click.echo(f"dropr: {sent.id} is stored, but could not be printed: {error}", err=True)
    if ended is not None and ended.problem:
        raise Stop(Exit.FAILED, ended.problem)


class _Ended(NamedTuple):
    """What came of waiting: a result, or why there is none."""

    result: Any = None
    problem: str = ""


def _print(sent: "Sent", ended: _Ended | None, *, as_json: bool) -> None:
    """Id, and after waiting state and result; also when it failed."""
    if not as_json:
        echo(sent.id if ended is None or not ended.problem else f"{sent.id} {sent.state}")
        if ended is not None and ended.result is not None:
            echo(ended.result if isinstance(ended.result, str) else json.dumps(ended.result, default=_plain))
        return
    status = sent.status
    document: dict[str, Any] = {
        "id": sent.id,
        "existed": sent.existed,
        "state": str(status.state),
        "deliveries": [
            {"peer": d.peer, "channel": d.channel, "state": str(d.state), "reason": d.reason} for d in status.deliveries
        ],
    }
    if ended is not None:
        document["result"] = json.loads(json.dumps(ended.result, default=_plain))
        document["problem"] = ended.problem or None
    echo_json(document)


def _check_source(value: str | None, file: Path | None) -> None:
    if file is not None and value is not None:
        raise click.UsageError("give VALUE or --file, not both")
    if file is None and value is None:  # never an empty message by accident; '' sends one on purpose
        raise click.UsageError("what is to be sent? give VALUE, --file PATH, or - for standard input")


def _meaning(config: "NodeConfig", channel: str | None, value: str | None, file: Path | None) -> Any:
    """What `Node.send` is given, so that the channel's serializer carries what was meant."""
    from dropr_core.model.names import DEFAULT_CHANNEL

    name = channel or DEFAULT_CHANNEL
    found = config.channels.get(name)
    serializer = found.serializer.use if found is not None and found.serializer is not None else None
    if serializer in {None, "bytes"} and (file is not None or value == "-"):
        return file or sys.stdin.buffer  # streamed: it may be a movie
    data = file.read_bytes() if file is not None else sys.stdin.buffer.read() if value == "-" else value or ""
    if serializer == "json":
        try:
            return json.loads(data)
        except RecursionError:
            raise click.UsageError(f"channel {name} carries JSON, and this is nested too deeply") from None
        except ValueError as error:
            raise click.UsageError(f"channel {name} carries JSON, and this is none: {error}") from None
    if serializer == "text" and isinstance(data, bytes):
        try:
            return data.decode("utf-8")
        except UnicodeDecodeError:
            raise click.UsageError(f"channel {name} carries text, and this is not UTF-8") from None
    if isinstance(data, str) and (serializer == "bytes" or (serializer is None and not _is_text(data))):
        return os.fsencode(data)
    return data


def _is_text(words: str) -> bool:
    """Whether what stood on the command line was UTF-8."""
    try:
        words.encode("utf-8")
    except UnicodeEncodeError:
        return False
    return True


def _bar(meaning: Any, stack: contextlib.ExitStack) -> "Progress | None":
    """A bar for people while a large file is taken over; nothing for scripts."""
    if not isinstance(meaning, Path):
        return None
    step = stack.enter_context(bar(meaning.name, meaning.stat().st_size))
    return None if step is None else lambda done, _total: step(done)


def _headers(pairs: tuple[tuple[str, str], ...]) -> dict[str, str] | None:
    headers = dict(pairs)
    if len(headers) < len(pairs):
        raise click.UsageError("a header is given twice")
    return headers or None


def _wait(node: "Runtime", sent: "Sent", seconds: float) -> _Ended:
    from dropr_core.errors import DeliveryFailed, WaitTimeout
    from dropr_core.monitor.process_reports import daemon_runs

    try:
        return _Ended(sent.wait(seconds))
    except WaitTimeout as error:
        hint = "" if daemon_runs(node) else ". No daemon runs here: 'dropr daemon' or 'dropr up' ships it"
        return _Ended(problem=f"{error}{hint}")
    except DeliveryFailed as error:
        return _Ended(problem=str(error))


def _plain(value: object) -> str:
    return bytes(value).decode("utf-8", "replace") if isinstance(value, bytes | bytearray | memoryview) else str(value)
