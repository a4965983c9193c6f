"""Whether what a plugin made is what its contract asks for.

Owns the contract of each kind and what an instance lacks of it. Must not know how plugins are found or made.
"""

from importlib import import_module
from typing import TYPE_CHECKING

from dropr_core.system.loading import unforked

if TYPE_CHECKING:
    from dropr_core.contracts.gateway import Gateway

KINDS = ("storage", "transport", "serializer", "handler", "gateway")
"""Each has its contract in the module of that name, as a class of that name."""
_ATTRIBUTES = {"transport": ["schemes"], "serializer": ["content_type"], "storage": ["outbox", "inbox"]}


def contract_of(kind: str) -> type | None:
    """The class that an instance of a kind must be of; None for observers, which have none. Loaded when asked for:
    who only sends pays for no contract of gateways.
    """
    if kind not in KINDS:
        return None
    with unforked:
        found: type = getattr(import_module(f"dropr_core.contracts.{kind}"), kind.capitalize())
    return found


def shortcoming(kind: str, instance: object) -> str:
    """What is wrong with an instance of that kind, as the end of a sentence about its plugin; empty if nothing."""
    contract = contract_of(kind)
    assert contract is not None
    name = contract.__name__
    if not isinstance(instance, contract):
        what = "nothing" if instance is None else f"a {type(instance).__name__}"
        return f"made {what} and no {name} ({contract.__module__})"
    # Python itself refuses a subclass with holes; a class that is only registered with the ABC may have some.
    wanted = [*getattr(contract, "__abstractmethods__", ()), *_ATTRIBUTES.get(kind, [])]
    missing = [member for member in sorted(wanted) if not _has(instance, member)]
    if kind == "gateway":
        missing = _missing_of_gateway(instance)  # type: ignore[arg-type]  # it is one: see above
    return f"lacks {', '.join(missing)} of {name}" if missing else ""


def _missing_of_gateway(gateway: "Gateway") -> list[str]:
    """What it needs depends on what it says it serves."""
    with unforked:
        from dropr_core.contracts.gateway import STREAMS, WEB, Gateway

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
