"""One call of a handler: what its answer or its failure means for the message.

Owns that border. Whatever comes back over it (a result of any kind, any exception, any text or number in it) becomes a
settlement that the store takes; only that message suffers, never the worker. Must not know threads, nor who settles.
"""

import asyncio
import contextlib
import logging
from collections.abc import Mapping
from contextlib import AbstractContextManager
from typing import Any

from dropr_core.api.failures import describe, excerpt, text_of
from dropr_core.api.received import Received
from dropr_core.api.send_options import as_seconds
from dropr_core.contracts.handler import AsyncHandler, Failed, Handler, NoResult, Work
from dropr_core.contracts.storage import Ack, Bury, Settlement
from dropr_core.errors import AlreadyProcessed, DroprError, ProtocolError, Reject, Retry, UsageError
from dropr_core.model.facts import facts_of
from dropr_core.model.limits import clip
from dropr_core.system.log_fields import about


def call(handler: Handler, received: Received, log: logging.Logger) -> Settlement:
    """Call a handler for a message, and say how the message is to be settled. Raises nothing."""
    try:
        with handling(received):
            result = handler.handle(as_work(received))
    except BaseException as error:  # also SystemExit: a handler that calls exit() ends no thread
        return _not_done(received, error, log)
    return _done(received, result, log)


async def call_async(
    handler: AsyncHandler, received: Received, seconds: float | None, log: logging.Logger
) -> Settlement:
    """The same on an event loop. When its time is over the handler is cancelled: then the attempt has failed, unless it
    was just done. Raises CancelledError only where who awaits this was cancelled.
    """
    limit = asyncio.timeout(seconds)
    try:
        async with limit:
            with handling(received):
                result = await handler.handle_async(as_work(received))
    except asyncio.CancelledError as error:
        if (task := asyncio.current_task()) is not None and task.cancelling():
            raise
        return _not_done(received, error, log)
    except TimeoutError as error:
        if not limit.expired():
            return _not_done(received, error, log)
        over = TimeoutError(f"it took longer than its timeout of {seconds:g} s")
        where = error.__cause__.__traceback__ if error.__cause__ is not None else None
        return _not_done(received, over.with_traceback(where), log)
    except BaseException as error:
        return _not_done(received, error, log)
    return _done(received, result, log)


def _not_done(received: Received, error: BaseException, log: logging.Logger) -> Settlement:
    if received.pending is not None and _took_effect(received):
        if not isinstance(error, AlreadyProcessed):
            log.warning("%s on %s has taken effect; what failed after that: %s",
                        received.id, received.channel, describe(error), extra=_about(received))  # fmt: skip
        return received.pending.ack
    if isinstance(error, Retry):
        return _again(received, error, log)
    if isinstance(error, Reject | ProtocolError):
        reason = text_of(error)
        log.warning("%s on %s is buried: %s", received.id, received.channel, reason, extra=_about(received))
        return Bury(received.claim, reason)
    return _failed(received, error, log)


def _took_effect(received: Received) -> bool:
    try:
        return received.took_effect()
    except DroprError:
        return False


def _done(received: Received, result: Any, log: logging.Logger) -> Settlement:
    """The work is done, and is not done again because its result cannot go home."""
    if received.pending is not None:
        try:
            concluded = received.conclude()
        except DroprError as error:  # when it comes again it is known whether it has taken effect
            return _failed(received, error, log)
        if result is None or not isinstance(concluded, Ack):
            return concluded
    if isinstance(result, NoResult):
        why = clip(result.reason)
    else:
        try:
            return received.make_ack(result)
        except UsageError as error:
            why = text_of(error)
    reason = f"processed, but its result cannot be sent: {why}"
    log.warning("%s on %s: %s", received.id, received.channel, reason, extra=_about(received))
    return received.make_done(reason)


def _again(received: Received, again: Retry, log: logging.Logger) -> Settlement:
    reason, delay, level = text_of(again), None, logging.INFO
    try:
        delay = as_seconds(again.after, "Retry(after=...)")
    except Exception as error:  # what was given for a duration may be anything
        reason = f"{reason} ({describe(error)}: tried again after the usual time)"
        level = logging.WARNING
    change = received.make_failure(delay, reason)
    log.log(
        level, "%s on %s asks to be tried again: %s; %s",
        received.id, received.channel, reason, received.outlook(change), extra=_about(received),
    )  # fmt: skip
    return change


def _failed(received: Received, error: BaseException, log: logging.Logger) -> Settlement:
    report = clip(error.report) if isinstance(error, Failed) else ""
    error = error.error if isinstance(error, Failed) else error
    said = describe(error)
    change = received.make_failure(None, report or said, error)
    log.warning(
        "%s on %s failed: %s; %s", received.id, received.channel, said, received.outlook(change, error),
        exc_info=excerpt(error), extra={"traceback": True, **_about(received)},
    )  # fmt: skip
    return change


def _about(received: Received) -> Mapping[str, object]:
    return about(message=received.id, channel=received.channel)


def as_work(received: Received) -> Work:
    """What a handler is given of a message. Raises ProtocolError for a body that its serializer cannot read."""
    claim, age = received.claim, received.age
    if received.large:
        return Work(received.message, received.open, None, claim.attempt, claim.possible_duplicate, age,
                    loads=received.loads, effects=received)  # fmt: skip
    body = received.body
    return Work(received.message, body, received.loads(body), claim.attempt, claim.possible_duplicate, age,
                effects=received)  # fmt: skip


_NOBODY: AbstractContextManager[None] = contextlib.nullcontext()


def handling(received: Received) -> AbstractContextManager[None]:
    """To be entered around the call of a handler: observers may carry a context along."""
    runtime = received._runtime  # noqa: SLF001 - what only this room may know
    if not runtime.observed or not runtime.observers.embracing:
        return _NOBODY
    return runtime.observers.handling(runtime.name, facts_of(received.claim.envelope), received.claim.attempt)
