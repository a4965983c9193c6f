"""Certificates of invitations: which one a listener shows, and whether this node believes it.

Owns the fingerprint and the one look at a listener before it is trusted. Nothing is sent over that look but a TLS
handshake. Must not know curl, nor where a configuration is written.
"""

import hashlib
import socket
import ssl
from urllib.parse import urlsplit

from dropr_core.contracts.transport import Trust
from dropr_core.errors import Unreachable, UsageError
from dropr_transport_curl.options import Options

_WRONG_NAME = frozenset({62, 64})
"""X509_V_ERR_HOSTNAME_MISMATCH, X509_V_ERR_IP_ADDRESS_MISMATCH."""


def own_fingerprint(options: Options) -> str:
    """SHA-256 of the certificate that listeners of this node show. Raises UsageError."""
    if options.tls.cert is None:
        raise UsageError("listening with https needs a certificate; set the option 'tls.cert'")
    try:
        text = options.tls.cert.read_text(encoding="ascii", errors="replace")
        end = "-----END CERTIFICATE-----"
        begin = text.index("-----BEGIN CERTIFICATE-----")
        der = ssl.PEM_cert_to_DER_cert(text[begin : text.index(end, begin) + len(end)])
    except (OSError, ValueError) as error:
        raise UsageError(f"{options.tls.cert}: no certificate can be read from it: {error}") from None
    return hashlib.sha256(der).hexdigest()


def find_trust(url: str, certificate: str, options: Options) -> Trust | None:
    """What to add so that the listener at ``url`` is believed; see `Transport.trust`."""
    try:
        _shake_hands(url, _verifying(options), options.connect)
    except ssl.SSLCertVerificationError as error:
        shown = _shake_hands(url, _blind(options), options.connect)
        if hashlib.sha256(shown).hexdigest() != certificate:
            raise UsageError(
                f"{url} shows another certificate than the one of the invitation: either it was renewed since, then "
                "ask for a new invitation, or something stands between this node and it"
            ) from None
        if error.verify_code in _WRONG_NAME:
            raise UsageError(
                f"the certificate at {url} is the right one, but not made for this name: invite again with --url and "
                "a name that stands in the certificate"
            ) from None
        pem = ssl.DER_cert_to_PEM_cert(shown)
        if options.tls.ca is not None:
            raise UsageError(
                f"{url} shows the certificate of the invitation, which {options.tls.ca} (transports.curl.tls.ca) does "
                f"not sign; add it to that file and run this again:\n{pem}"
            ) from None
        return Trust(("tls", "ca"), pem)
    return None


def _verifying(options: Options) -> ssl.SSLContext:
    tls = options.tls
    context = ssl.create_default_context(cafile=None if tls.ca is None else str(tls.ca))
    context.verify_flags |= ssl.VERIFY_X509_PARTIAL_CHAIN  # as libcurl: one certificate alone may be trusted
    return _identified(context, options)


def _blind(options: Options) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    return _identified(context, options)


def _identified(context: ssl.SSLContext, options: Options) -> ssl.SSLContext:
    """With this node's own certificate, if it has one: some listeners want to see it."""
    if options.tls.cert is not None:
        context.load_cert_chain(str(options.tls.cert), None if options.tls.key is None else str(options.tls.key))
    return context


def _shake_hands(url: str, context: ssl.SSLContext, timeout: float) -> bytes:
    """The certificate (DER) that is shown there. Raises SSLCertVerificationError, Unreachable."""
    parts = urlsplit(url)
    host, port = parts.hostname or "", parts.port or 443
    try:
        with (
            socket.create_connection((host, port), timeout=timeout) as raw,
            context.wrap_socket(raw, server_hostname=host) as secured,
        ):
            return secured.getpeercert(binary_form=True) or b""
    except ssl.SSLCertVerificationError:
        raise
    except OSError as error:
        raise Unreachable(f"{url}: no TLS connection: {error}") from None
