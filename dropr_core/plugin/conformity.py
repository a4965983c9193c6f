"""Whether what a plugin made is what its contract asks for.

Owns the contract of each kind and what an instance lacks of it. Must not know how plugins are found or made.
"""

import types
from collections.abc import Mapping

from dropr_core.contracts.gateway import STREAMS, WEB, Gateway
from dropr_core.contracts.handler import Handler
from dropr_core.contracts.serializer import Serializer
from dropr_core.contracts.storage import Storage
from dropr_core.contracts.transport import Transport

CONTRACTS: Mapping[str, type] = types.MappingProxyType(
    {"storage": Storage, "transport": Transport, "serializer": Serializer, "handler": Handler, "gateway": Gateway}
)
_ATTRIBUTES = {"transport": ["schemes"], "serializer": ["content_type"], "storage": ["outbox", "inbox"]}


def shortcoming(kind: str, instance: object) -> str:
    """What is wrong with an instance of that kind, as the end of a sentence about its plugin; empty if nothing."""
    contract = CONTRACTS[kind]
    name = contract.__name__
    if not isinstance(instance, contract):
        what = "nothing" if instance is None else f"a {type(instance).__name__}"
        return f"made {what} and no {name} ({contract.__module__})"
    # Python itself refuses a subclass with holes; a class that is only registered with the ABC may have some.
    wanted = [*getattr(contract, "__abstractmethods__", ()), *_ATTRIBUTES.get(kind, [])]
    missing = [member for member in sorted(wanted) if not _has(instance, member)]
    if isinstance(instance, Gateway):
        missing = _missing_of_gateway(instance)
    return f"lacks {', '.join(missing)} of {name}" if missing else ""


def _missing_of_gateway(gateway: Gateway) -> list[str]:
    """What it needs depends on what it says it serves."""
    served = set(gateway.schemes)
    if not served or served - {*STREAMS, *WEB}:
        return ["schemes"]
    methods = (("serve", STREAMS), ("application", WEB))
    return [
        name
        for name, schemes in methods
        if served & set(schemes) and getattr(type(gateway), name, None) is getattr(Gateway, name)
    ]


def _has(instance: object, name: str) -> bool:
    member = getattr(instance, name, None)
    return member is not None and not getattr(member, "__isabstractmethod__", False)
