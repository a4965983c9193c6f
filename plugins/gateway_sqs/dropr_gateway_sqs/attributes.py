"""Message attributes: what they may be, what they weigh, and SQS's own MD5 over them.

Owns `MessageAttribute`. Must not know in which protocol they came, nor how they travel.
"""

import base64
import binascii
import hashlib
import re
import struct
from collections.abc import Mapping
from typing import Any

import attrs

from dropr_gateway_sqs.failures import SqsError, invalid_parameter

MOST = 10
_NAME = re.compile(r"(?!(?i:aws|amazon)\.)(?!\.)(?!.*\.\.)(?!.*\.\Z)[A-Za-z0-9_.-]{1,256}")
_TYPE = re.compile(r"(String|Number|Binary)(\.[\x21-\x7e]{1,249})?")
_NUMBER = re.compile(r"[+-]?(\d+(\.\d*)?|\.\d+)([eE][+-]?\d{1,4})?")
_FORBIDDEN = re.compile("[^\t\n\r\x20-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")
_LENGTH = struct.Struct(">I")
_KINDS = {"String": b"\x01", "Number": b"\x01", "Binary": b"\x02"}


@attrs.frozen
class MessageAttribute:
    """One attribute: its data type (``String``, ``Number``, ``Binary``, with an optional label) and its value."""

    data_type: str
    value: bytes
    """As UTF-8 if it is a text."""

    @property
    def binary(self) -> bool:
        """Whether it is no text."""
        return self.data_type.startswith("Binary")

    def shown(self) -> dict[str, str]:
        """As an answer has it, bytes in base64."""
        if self.binary:
            return {"BinaryValue": base64.b64encode(self.value).decode(), "DataType": self.data_type}
        return {"StringValue": self.value.decode(), "DataType": self.data_type}


def is_text(text: str) -> bool:
    """Whether SQS takes these characters: those that XML can carry."""
    return _FORBIDDEN.search(text) is None


def is_attribute_name(name: str) -> bool:
    """Whether an attribute may be called so."""
    return _NAME.fullmatch(name) is not None


def read(given: object) -> dict[str, MessageAttribute]:
    """Check the attributes of a request. Raises SqsError."""
    if given is None:
        return {}
    if not isinstance(given, Mapping):
        raise invalid_parameter("The message attributes must be a map of names to values.")
    if len(given) > MOST:
        raise invalid_parameter(f"Number of message attributes [{len(given)}] exceeds the allowed maximum [{MOST}].")
    return {_checked_name(name): _read_one(name, value) for name, value in given.items()}


def _checked_name(name: object) -> str:
    if not isinstance(name, str) or not is_attribute_name(name):
        raise invalid_parameter(
            f"The message attribute name '{str(name)[:300]}' is invalid. Attribute name can contain A-Z, a-z, 0-9, "
            "underscore (_), hyphen (-), and period (.) characters; it must not start with AWS. or Amazon., nor begin "
            "or end with a period."
        )
    return name


def _read_one(name: str, value: Any) -> MessageAttribute:
    data_type = value.get("DataType") if isinstance(value, Mapping) else None
    if not data_type:
        raise invalid_parameter(f"The message attribute '{name}' must contain a non-empty message attribute type.")
    matched = _TYPE.fullmatch(data_type) if isinstance(data_type, str) else None
    if not matched:
        raise invalid_parameter(
            f"The message attribute '{name}' has an invalid message attribute type, the set of supported type prefixes "
            "is Binary, Number, and String."
        )
    if value.get("StringListValues") or value.get("BinaryListValues"):
        raise SqsError(
            "UnsupportedOperation", "Message attribute list values in SendMessage operation are not supported."
        )
    binary = matched[1] == "Binary"
    found = value.get("BinaryValue" if binary else "StringValue")
    if not isinstance(found, str) or not found:
        what = "binary" if binary else "string"
        raise invalid_parameter(
            f"The message attribute '{name}' must contain a non-empty message attribute value of the {what} kind for "
            f"the type '{data_type}'."
        )
    if binary:
        try:
            return MessageAttribute(data_type, base64.b64decode(found, validate=True))
        except (binascii.Error, ValueError):
            raise invalid_parameter(f"The message attribute '{name}' has a binary value that is no base64.") from None
    if matched[1] == "Number" and not _NUMBER.fullmatch(found):
        raise invalid_parameter(f"Can't cast the value of message (user) attribute '{name}' to a number.")
    if not is_text(found):
        raise invalid_parameter(f"Invalid binary character found in the value of the message attribute '{name}'.")
    return MessageAttribute(data_type, found.encode())


def weight(given: Mapping[str, MessageAttribute]) -> int:
    """Bytes that they count for in a message's size: names, types and values."""
    return sum(len(name) + len(one.data_type) + len(one.value) for name, one in given.items())


def digest(given: Mapping[str, MessageAttribute]) -> str:
    """Amazon's MD5 over attributes: by name, each with the lengths of name, type and value before them."""
    parts = []
    for name in sorted(given):
        one = given[name]
        kind = _KINDS[one.data_type.partition(".")[0]]
        for part in (name.encode(), one.data_type.encode()):
            parts += [_LENGTH.pack(len(part)), part]
        parts += [kind, _LENGTH.pack(len(one.value)), one.value]
    return hashlib.md5(b"".join(parts), usedforsecurity=False).hexdigest()


def chosen(given: Mapping[str, MessageAttribute], names: list[str]) -> dict[str, MessageAttribute]:
    """Those that a receiver asks for: by name, by prefix (``bar.*``), or all (``All``, ``.*``)."""
    if not names or not given:
        return {}
    if "All" in names or ".*" in names:
        return dict(given)
    prefixes = tuple(name[:-2] for name in names if name.endswith(".*"))
    return {name: one for name, one in given.items() if name in names or (prefixes and name.startswith(prefixes))}
