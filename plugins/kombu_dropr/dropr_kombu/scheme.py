"""How Kombu learns of ``dropr://``.

Kombu knows its transports by a table, and has no entry point for more of them. It has one for serializers, which it
loads when `kombu.serialization` is imported; Celery imports that with itself. What is registered there is a name
without an encoder and a decoder: nobody can use it by mistake. Must stay cheap: every program with Celery imports this.
"""

from kombu.transport import TRANSPORT_ALIASES

SERIALIZER = (None, None, "application/x-dropr", "utf-8")
"""Encoder, decoder, content type and encoding, as Kombu's entry point wants them; loading it is what counts."""


def make_known() -> None:
    """Let ``dropr://`` in a broker's URL mean the transport of this package; safe twice."""
    TRANSPORT_ALIASES.setdefault("dropr", "dropr_kombu.transport:Transport")


make_known()  # the one work at import: an entry point for serializers has no other moment
