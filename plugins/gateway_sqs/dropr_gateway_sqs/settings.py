"""What a queue is set to: its attributes, their limits and defaults.

Owns `Settings` and the reading of queue attributes, the redrive policies among them. Must not know where settings are
kept, nor what obeys them.
"""

import types
from collections.abc import Mapping
from typing import Any

import attrs
import msgspec

from dropr_gateway_sqs.failures import SqsError
from dropr_gateway_sqs.names import name_of_arn

LARGEST = 1024 * 1024
"""Bytes of a message, and of all messages of a batch together: Amazon's limit since August 2025."""

NUMBERS: Mapping[str, tuple[int, int, int]] = types.MappingProxyType(
    {
        "DelaySeconds": (0, 900, 0),
        "MaximumMessageSize": (1024, LARGEST, LARGEST),
        "MessageRetentionPeriod": (60, 1209600, 345600),
        "ReceiveMessageWaitTimeSeconds": (0, 20, 0),
        "VisibilityTimeout": (0, 43200, 30),
    }
)
"""Attribute → least, most, default."""
_FIFO_CHOICES: Mapping[str, tuple[str, ...]] = types.MappingProxyType(
    {
        "ContentBasedDeduplication": ("false", "true"),
        "DeduplicationScope": ("queue", "messageGroup"),
        "FifoThroughputLimit": ("perQueue", "perMessageGroupId"),
    }
)
_OURS = ("Policy", "KmsMasterKeyId", "KmsDataKeyReusePeriodSeconds")
"""What Amazon's own services would do. It is refused: a policy that is taken and not kept would be a lie."""
COUNTED = (
    "ApproximateNumberOfMessages", "ApproximateNumberOfMessagesNotVisible", "ApproximateNumberOfMessagesDelayed",
    "CreatedTimestamp", "LastModifiedTimestamp", "QueueArn",
)  # fmt: skip
"""What a queue tells and nobody sets."""
_NAMES = frozenset({"All", *NUMBERS, *_FIFO_CHOICES, *_OURS, *COUNTED, "FifoQueue", "RedrivePolicy",
                    "RedriveAllowPolicy", "SqsManagedSseEnabled"})  # fmt: skip


@attrs.frozen
class Redrive:
    """Where messages go that were received too often."""

    target: str
    """The name of the dead-letter queue."""
    most: int
    """After so many receives the next one moves it there."""


@attrs.frozen
class Settings:
    """The attributes that somebody set, checked; each as text, as it is told."""

    fifo: bool = False
    given: Mapping[str, str] = attrs.field(factory=dict)

    def number(self, name: str) -> int:
        """One of NUMBERS, in seconds or bytes."""
        value = self.given.get(name)
        return NUMBERS[name][2] if value is None else int(value)

    @property
    def content_dedup(self) -> bool:
        """Whether equal bodies are duplicates."""
        return self.given.get("ContentBasedDeduplication") == "true"

    @property
    def dedup_by_group(self) -> bool:
        """Whether each message group has deduplication ids of its own."""
        return self.given.get("DeduplicationScope") == "messageGroup"

    @property
    def redrive(self) -> Redrive | None:
        """The redrive policy."""
        text = self.given.get("RedrivePolicy")
        return read_redrive(text) if text else None

    def allows_source(self, name: str) -> bool:
        """Whether the queue of that name may have this one as its dead-letter queue."""
        text = self.given.get("RedriveAllowPolicy")
        policy = _policy("RedriveAllowPolicy", text) if text else {}
        permission = policy.get("redrivePermission", "allowAll")
        listed = [name_of_arn(arn, "sourceQueueArns") for arn in policy.get("sourceQueueArns", [])]
        return permission == "allowAll" or (permission == "byQueue" and name in listed)

    def shown(self) -> dict[str, str]:
        """All of them, defaults included."""
        made = {name: str(self.number(name)) for name in NUMBERS}
        if self.fifo:
            made["FifoQueue"] = "true"
            made |= {name: self.given.get(name, choices[0]) for name, choices in _FIFO_CHOICES.items()}
        made |= {name: self.given[name] for name in ("RedrivePolicy", "RedriveAllowPolicy") if self.given.get(name)}
        made["SqsManagedSseEnabled"] = self.given.get("SqsManagedSseEnabled", "false")
        return made

    def changed(self, attributes: Mapping[str, str]) -> "Settings":
        """With these attributes set. Raises SqsError."""
        given = dict(self.given)
        for name, value in attributes.items():
            if name == "FifoQueue":
                if value != str(self.fifo).lower():
                    raise _bad_value(
                        name, "a queue is a FIFO queue from its beginning or never; its name ends with .fifo"
                    )
            elif value == "" and name in ("RedrivePolicy", "RedriveAllowPolicy", *_OURS):
                given.pop(name, None)
            else:
                given[name] = _checked(name, value, fifo=self.fifo)
        return attrs.evolve(self, given=given)


def check_names(names: list[str]) -> list[str]:
    """Those that GetQueueAttributes is asked for. Raises SqsError."""
    for name in names:
        if name not in _NAMES:
            raise SqsError("InvalidAttributeName", f"Unknown Attribute {name[:100]}.")
    return names


def _bad_value(name: str, reason: str) -> SqsError:
    return SqsError("InvalidAttributeValue", f"Invalid value for the parameter {name}. Reason: {reason}.")


def _checked(name: str, value: str, *, fifo: bool) -> str:
    if name in NUMBERS:
        least, most, _ = NUMBERS[name]
        digits = value.strip()
        if not digits.isascii() or not digits.isdecimal() or len(digits) > 9 or not least <= int(digits) <= most:
            raise _bad_value(name, f"it must be a whole number from {least} to {most}")
        return str(int(digits))
    if name in _FIFO_CHOICES:
        if not fifo:
            raise SqsError("InvalidAttributeName", f"Unknown Attribute {name}: it is one of FIFO queues only.")
        if value not in _FIFO_CHOICES[name]:
            raise _bad_value(name, f"it must be {' or '.join(_FIFO_CHOICES[name])}")
        return value
    if name == "SqsManagedSseEnabled" and value in ("true", "false"):
        return value
    if name == "RedrivePolicy":
        read_redrive(value)
        return value
    if name == "RedriveAllowPolicy":
        _check_allow(value)
        return value
    if name in _OURS:
        raise _bad_value(name, "this gateway has no access policies and no key service of Amazon's; whom it answers "
                         "stands in the node's configuration under 'credentials'")  # fmt: skip
    if name in _NAMES:
        raise SqsError("InvalidAttributeName", f"{name} cannot be set.")
    raise SqsError("InvalidAttributeName", f"Unknown Attribute {name[:100]}.")


def _policy(name: str, text: str) -> dict[str, Any]:
    try:
        policy = msgspec.json.decode(text)
    except (msgspec.DecodeError, RecursionError):
        policy = None
    if not isinstance(policy, dict):
        raise _bad_value(name, "it must be a JSON object")
    return policy


def read_redrive(text: str) -> Redrive:
    """A RedrivePolicy. Raises SqsError."""
    policy = _policy("RedrivePolicy", text)
    arn, most = policy.get("deadLetterTargetArn"), policy.get("maxReceiveCount", 10)
    if isinstance(most, str) and most.isascii() and most.isdecimal():
        most = int(most[:9])  # both forms are usual
    if not isinstance(arn, str):
        raise _bad_value("RedrivePolicy", "deadLetterTargetArn is missing")
    if type(most) is not int or not 1 <= most <= 1000:
        raise _bad_value("RedrivePolicy", "maxReceiveCount must be a whole number from 1 to 1000")
    return Redrive(name_of_arn(arn, "deadLetterTargetArn"), most)


def _check_allow(text: str) -> None:
    policy = _policy("RedriveAllowPolicy", text)
    permission, arns = policy.get("redrivePermission"), policy.get("sourceQueueArns", [])
    if permission not in ("allowAll", "denyAll", "byQueue"):
        raise _bad_value("RedriveAllowPolicy", "redrivePermission must be allowAll, denyAll or byQueue")
    if not isinstance(arns, list) or len(arns) > 10 or not all(isinstance(arn, str) for arn in arns):
        raise _bad_value("RedriveAllowPolicy", "sourceQueueArns must be a list of at most 10 ARNs")
    for arn in arns:
        name_of_arn(arn, "sourceQueueArns")
