"""Queues: created, listed, set, tagged, purged, deleted.

Owns the actions of an administrator. Must not know messages.
"""

import base64
import binascii
from collections.abc import Iterable, Mapping
from typing import Any

import attrs

from dropr_gateway_sqs import requests
from dropr_gateway_sqs.counter import Caller, Counter, Result
from dropr_gateway_sqs.failures import SqsError, invalid_parameter, missing
from dropr_gateway_sqs.names import FIFO, check_known_name, check_new_name
from dropr_gateway_sqs.queues import MOST_TAGS, Queue
from dropr_gateway_sqs.receiving import Receiving
from dropr_gateway_sqs.settings import Settings, check_names


class Managing:
    """The actions."""

    def __init__(self, counter: Counter, receiving: Receiving) -> None:
        self._counter, self._receiving = counter, receiving
        self._queues = counter.queues

    # ── which there are ──────────────────────────────────────────────────────────────────────────

    async def create(self, parameters: Mapping[str, Any], caller: Caller) -> Result:
        """CreateQueue."""
        name = check_new_name(requests.text(parameters, "QueueName"))
        given = requests.text_map(parameters, "Attributes")
        tags = _checked_tags(requests.text_map(parameters, "tags") or requests.text_map(parameters, "Tags"))
        fifo = given.get("FifoQueue") == "true"
        if fifo != name.endswith(FIFO):
            raise invalid_parameter(
                "The name of a FIFO queue ends with .fifo, and its attribute FifoQueue is true from its creation on."
            )
        settings = Settings(fifo).changed(given)
        await self._check_redrive(name, settings)
        queue = await self._queues.create(Queue(name, settings, tags))
        shown = queue.settings.shown()
        for attribute, value in settings.given.items():
            if shown.get(attribute) != value:
                raise SqsError(
                    "QueueNameExists", f"A queue already exists with the same name and a different value for attribute"
                    f" {attribute}",
                )  # fmt: skip
        return {"QueueUrl": self._counter.url(caller, name)}

    async def url(self, parameters: Mapping[str, Any], caller: Caller) -> Result:
        """GetQueueUrl."""
        queue = await self._counter.queue(check_known_name(requests.text(parameters, "QueueName")))
        return {"QueueUrl": self._counter.url(caller, queue.name)}

    async def list_queues(self, parameters: Mapping[str, Any], caller: Caller) -> Result:
        """ListQueues: those created here, and the node's own channels."""
        prefix = requests.optional_text(parameters, "QueueNamePrefix") or ""
        names = {*self._queues.names(), *(name for name in await self._counter.channels() if _can_be_named(name))}
        return self._page(parameters, caller, "QueueUrls", (name for name in names if name.startswith(prefix)))

    async def sources(self, parameters: Mapping[str, Any], caller: Caller) -> Result:
        """ListDeadLetterSourceQueues."""
        queue = await self._counter.queue_of(parameters)
        return self._page(parameters, caller, "queueUrls", self._queues.sources_of(queue.name))

    def _page(self, parameters: Mapping[str, Any], caller: Caller, word: str, names: Iterable[str]) -> Result:
        most = requests.number(parameters, "MaxResults", 1, 1000)
        after = _read_token(requests.optional_text(parameters, "NextToken"))
        left = sorted(name for name in names if name > after)
        page = left[: most or 1000]
        made: dict[str, Any] = {word: [self._counter.url(caller, name) for name in page]}
        if most is not None and len(left) > len(page):
            made["NextToken"] = base64.urlsafe_b64encode(page[-1].encode()).decode()
        return made if page or word == "queueUrls" else {}

    async def delete(self, parameters: Mapping[str, Any], _caller: Caller) -> Result:
        """DeleteQueue: with its messages."""
        queue = await self._counter.queue_of(parameters)
        await self._empty(queue)
        await self._queues.remove(queue.name)
        self._counter.forget(queue.name)
        return None

    async def purge(self, parameters: Mapping[str, Any], _caller: Caller) -> Result:
        """PurgeQueue: those in flight, too."""
        await self._empty(await self._counter.queue_of(parameters))
        return None

    async def _empty(self, queue: Queue) -> None:
        held = self._receiving.held_of(queue.name)
        if held:
            await self._counter.desk.settle(*(one.acked() for one in held))
        await self._counter.desk.purge(queue.name)

    # ── what they are set to ─────────────────────────────────────────────────────────────────────

    async def attributes(self, parameters: Mapping[str, Any], _caller: Caller) -> Result:
        """GetQueueAttributes."""
        queue = await self._counter.queue_of(parameters)
        names = check_names(requests.texts(parameters, "AttributeNames"))
        if not names:
            return {}
        every = "All" in names
        shown = queue.settings.shown() | {
            "QueueArn": self._counter.arn(queue.name),
            "CreatedTimestamp": str(queue.created),
            "LastModifiedTimestamp": str(queue.modified),
        }
        if every or any(name.startswith("Approximate") for name in names):
            counts = await self._counter.desk.count(queue.name)
            shown |= {
                "ApproximateNumberOfMessages": str(counts.ready + counts.blocked),
                "ApproximateNumberOfMessagesNotVisible": str(counts.leased),
                "ApproximateNumberOfMessagesDelayed": str(counts.delayed),
            }
        return {"Attributes": shown if every else {name: shown[name] for name in names if name in shown}}

    async def set_attributes(self, parameters: Mapping[str, Any], _caller: Caller) -> Result:
        """SetQueueAttributes."""
        queue = await self._counter.queue_of(parameters)
        given = requests.text_map(parameters, "Attributes")
        if not given:
            raise missing("Attributes")
        await self._check_redrive(queue.name, queue.settings.changed(given))
        await self._queues.change(queue.name, lambda one: attrs.evolve(one, settings=one.settings.changed(given)))
        return None

    async def _check_redrive(self, name: str, settings: Settings) -> None:
        redrive = settings.redrive
        if redrive is None:
            return
        wrong = ""
        target = await self._counter.find(redrive.target)
        if redrive.target == name:
            wrong = "A queue cannot be its own dead letter target."
        elif target is None:
            wrong = "Dead letter target does not exist."
        elif target.fifo != settings.fifo:
            wrong = "Dead-letter queue must be same type of queue as the source."
        elif not target.settings.allows_source(name):
            wrong = "The dead letter target's RedriveAllowPolicy does not allow this queue."
        if wrong:
            raise invalid_parameter(f"Value for parameter RedrivePolicy is invalid. Reason: {wrong}")

    # ── tags ─────────────────────────────────────────────────────────────────────────────────────

    async def tag(self, parameters: Mapping[str, Any], _caller: Caller) -> Result:
        """TagQueue."""
        queue = await self._counter.queue_of(parameters)
        given = requests.text_map(parameters, "Tags")
        if not given:
            raise missing("Tags")
        _checked_tags({**queue.tags, **given})
        await self._queues.change(queue.name, lambda one: attrs.evolve(one, tags=_checked_tags({**one.tags, **given})))
        return None

    async def untag(self, parameters: Mapping[str, Any], _caller: Caller) -> Result:
        """UntagQueue."""
        queue = await self._counter.queue_of(parameters)
        keys = requests.texts(parameters, "TagKeys")
        if not keys:
            raise missing("TagKeys")
        await self._queues.change(queue.name, lambda one: _without(one, keys))
        return None

    async def tags(self, parameters: Mapping[str, Any], _caller: Caller) -> Result:
        """ListQueueTags."""
        queue = await self._counter.queue_of(parameters)
        return {"Tags": dict(queue.tags)}


def _without(queue: Queue, keys: list[str]) -> Queue:
    return attrs.evolve(queue, tags={key: value for key, value in queue.tags.items() if key not in keys})


def _checked_tags(tags: Mapping[str, str]) -> Mapping[str, str]:
    if len(tags) > MOST_TAGS:
        raise invalid_parameter(f"A queue has at most {MOST_TAGS} tags.")
    if any(not key or len(key) > 128 or len(value) > 256 for key, value in tags.items()):
        raise invalid_parameter("A tag's key has 1 to 128 characters, its value at most 256.")
    return tags


def _can_be_named(name: str) -> bool:
    try:
        check_known_name(name)
    except SqsError:
        return False
    return True


def _read_token(token: str | None) -> str:
    if token is None:
        return ""
    try:
        return base64.urlsafe_b64decode(token.encode("ascii")).decode()
    except (ValueError, binascii.Error):
        raise invalid_parameter("Value for parameter NextToken is invalid.") from None
