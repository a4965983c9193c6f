"""AWS Signature Version 4, the verifying half: who sent this request, and is it as it was sent?

Owns the canonical form of a request and the check of its signature, in the header or in the query string. It sees
the head first, so that a stranger is refused before his body is read. Must not know what a request asks for.
"""

import calendar
import hashlib
import hmac
import re
import time
from collections.abc import Mapping, Sequence
from typing import NamedTuple, TypeVar
from urllib.parse import quote, unquote_to_bytes

from dropr_gateway_sqs.failures import SqsError

ALGORITHM = "AWS4-HMAC-SHA256"
_CREDENTIAL = re.compile(r"([\w/.@=+-]{1,128})/(\d{8})/([a-z0-9-]{1,64})/([a-z0-9-]{1,64})/aws4_request")
_STAMP = re.compile(r"\d{8}T\d{6}Z")
_LONGEST = 7 * 86400
_MOST_KEYS = 256
_LONGEST_SIGNER = 1024
"""Characters of an Authorization header that are worth remembering."""

Headers = Sequence[tuple[bytes, bytes]]
K = TypeVar("K")
V = TypeVar("V")


class Claimed(NamedTuple):
    """What a request's head claims: enough to check it once the body is there."""

    key_id: str
    date: str
    region: str
    stamp: str
    signature: str
    canonical: str
    """The canonical request up to the digest of the body."""
    body_digest: str
    """What the client says the body's SHA-256 is; empty if it does not say."""


class Verifier:
    """Knows the secrets. A signature is good for ``skew`` seconds before and after the time that it names.

    What a client says the same each time is read once: its key and the names of its headers, the time of this second.
    """

    def __init__(self, secrets: Mapping[str, str], skew: float = 900.0) -> None:
        self._secrets, self._skew = dict(secrets), skew
        self._keys: dict[tuple[str, str, str], bytes] = {}
        self._signers: dict[str, _Signer] = {}
        self._stamp, self._when = "", 0

    def claim(self, method: str, raw_path: bytes, query: bytes, headers: Headers, now: float) -> Claimed:
        """Read the head of a request. Raises SqsError for a stranger, an old request, and what is not signed at all."""
        values = _Values(headers)
        authorization, expires = values.get("authorization"), 0.0
        if authorization:
            signer, signature = self._signer(authorization)
            stamp = values.get("x-amz-date")
        else:
            signer, signature, stamp, expires = _of_query(query)
        key_id, date, region, service, listed, names = signer
        # Whatever decides what is done must be signed: where it goes, which action, and Amazon's own headers.
        lacking = [name for name in ("host", *values.amazons) if name not in names]
        if lacking:
            raise _mismatch(f"These headers must be signed: {', '.join(sorted(lacking))}.")
        if not signature:
            raise _incomplete()
        if key_id not in self._secrets:
            raise SqsError(
                "UnrecognizedClientException", "The security token included in the request is invalid:"
                " its access key is none of this gateway's 'credentials'.", status=403,
            )  # fmt: skip
        if service != "sqs":
            raise _mismatch("Credential should be scoped to correct service: 'sqs'.")
        self._check_time(stamp, expires, date, now)
        lines = "".join([f"{name}:{values.get(name)}\n" for name in listed])
        asked = _query(query) if query else ""
        canonical = f"{method}\n{_path(raw_path)}\n{asked}\n{lines}\n{';'.join(listed)}\n"
        return Claimed(key_id, date, region, stamp, signature, canonical, values.get("x-amz-content-sha256"))

    def check(self, claimed: Claimed, body_digest: str) -> None:
        """Compare the signature, the body being there: ``body_digest`` is its SHA-256. Raises SqsError."""
        if claimed.body_digest and claimed.body_digest != body_digest:
            raise _mismatch("The x-amz-content-sha256 header is not the SHA-256 of the body.")
        digest = hashlib.sha256((claimed.canonical + body_digest).encode()).hexdigest()
        text = f"{ALGORITHM}\n{claimed.stamp}\n{claimed.date}/{claimed.region}/sqs/aws4_request\n{digest}"
        expected = hmac.digest(self._key(claimed), text.encode(), "sha256").hex()
        if not hmac.compare_digest(expected.encode(), claimed.signature.encode()):
            raise _mismatch(
                "The request signature we calculated does not match the signature you provided. Check your AWS Secret "
                "Access Key and signing method."
            )

    def _key(self, claimed: Claimed) -> bytes:
        name = (claimed.key_id, claimed.date, claimed.region)
        key = self._keys.get(name)
        if key is None:
            key = f"AWS4{self._secrets[claimed.key_id]}".encode()
            for part in (claimed.date, claimed.region, "sqs", "aws4_request"):
                key = hmac.digest(key, part.encode(), "sha256")
            _remember(self._keys, name, key)
        return key

    def _signer(self, authorization: str) -> "tuple[_Signer, str]":
        """Who signed, and the signature, of an Authorization header."""
        before, last, signature = authorization.rpartition(", Signature=")
        signer = self._signers.get(before) if last else None
        if signer is not None and "," not in signature:
            return signer, signature.strip()
        algorithm, _, rest = authorization.partition(" ")
        if algorithm != ALGORITHM:
            raise SqsError("IncompleteSignatureException", f"Sign with {ALGORITHM}.", status=403)
        parts = dict(part.strip().partition("=")[::2] for part in rest.split(","))
        signer = _signer(parts.get("Credential", ""), parts.get("SignedHeaders", ""))
        if last and len(before) <= _LONGEST_SIGNER and "," not in signature:
            _remember(self._signers, before, signer)
        return signer, parts.get("Signature", "")

    def _check_time(self, stamp: str, expires: float, date: str, now: float) -> None:
        if not _STAMP.fullmatch(stamp) or stamp[:8] != date:
            raise _mismatch("X-Amz-Date must be as 20260131T235959Z, of the day that the credential names.")
        if stamp != self._stamp:
            try:
                self._when = calendar.timegm(time.strptime(stamp, "%Y%m%dT%H%M%SZ"))
            except ValueError:
                raise _mismatch(f"X-Amz-Date: {stamp} is no time.") from None
            self._stamp = stamp
        if self._when - self._skew <= now <= self._when + max(self._skew, expires):
            return
        here = time.strftime("%Y%m%dT%H%M%SZ", time.gmtime(now))
        if now > self._when:
            raise _mismatch(f"Signature expired: {stamp} is too long before {here}, the time here. Set the clock.")
        raise _mismatch(f"Signature not yet current: {stamp} is after {here}, the time here. Set the clock.")


class _Signer(NamedTuple):
    """What a client says of itself, the same in each of its requests."""

    key_id: str
    date: str
    region: str
    service: str
    listed: tuple[str, ...]
    """The headers that are signed, in this order."""
    names: frozenset[str]


def _signer(credential: str, signed: str) -> _Signer:
    """Raises SqsError if something is missing."""
    matched = _CREDENTIAL.fullmatch(credential)
    listed = tuple(name for name in signed.split(";") if name)
    if not matched or not listed:
        raise _incomplete()
    key_id, date, region, service = matched.groups()
    return _Signer(key_id, date, region, service, listed, frozenset(listed))


def _of_query(query: bytes) -> tuple[_Signer, str, str, float]:
    """Who signed, signature, stamp and life of a URL that was signed."""
    parts = {name: value for name, value in _pairs(query) if name.startswith("X-Amz-")}
    if parts.get("X-Amz-Algorithm") != ALGORITHM:
        raise SqsError(
            "MissingAuthenticationTokenException",
            "Request is missing Authentication Token: this gateway answers signed requests only.", status=403,
        )  # fmt: skip
    seconds = parts.get("X-Amz-Expires", "0")
    if not re.fullmatch(r"\d{1,7}", seconds) or int(seconds) > _LONGEST:
        raise _mismatch(f"X-Amz-Expires must be a number of seconds up to {_LONGEST}.")
    signer = _signer(parts.get("X-Amz-Credential", ""), parts.get("X-Amz-SignedHeaders", ""))
    return signer, parts.get("X-Amz-Signature", ""), parts.get("X-Amz-Date", ""), float(seconds)


def _remember(known: dict[K, V], name: K, value: V) -> None:
    """Dates, regions and names are the caller's words: so many and no more."""
    if len(known) >= _MOST_KEYS:
        known.clear()
    known[name] = value


def _incomplete() -> SqsError:
    text = "The signature must name Credential, SignedHeaders and Signature."
    return SqsError("IncompleteSignatureException", text, status=403)


def _mismatch(message: str) -> SqsError:
    return SqsError("InvalidSignatureException", message, status=403)


class _Values:
    """The headers' values as they are signed: without needless blanks, those of a repeated header together."""

    def __init__(self, headers: Headers) -> None:
        self._found: dict[str, bytes | str] = {}
        self.amazons: list[str] = []
        """Those that begin with ``x-amz-``."""
        for raw, value in headers:
            name = raw.decode("latin-1")
            if name in self._found:
                self._found[name] = f"{self.get(name)},{_plain(value)}"
                continue
            self._found[name] = value
            if name.startswith("x-amz-"):
                self.amazons.append(name)

    def get(self, name: str) -> str:
        """Empty if there is none."""
        value = self._found.get(name, "")
        return value if isinstance(value, str) else _plain(value)


def _plain(value: bytes) -> str:
    return " ".join(value.decode("latin-1").split())


def _path(raw: bytes) -> str:
    """Without dot segments and double slashes, each octet of it encoded once more, as all services but S3 want it."""
    if raw == b"/":
        return "/"
    text = raw.decode("latin-1") or "/"
    kept: list[str] = []
    for segment in text.split("/"):
        if segment == "..":
            kept = kept[:-1]
        elif segment not in ("", "."):
            kept.append(segment)
    path = "/" + "/".join(kept) + ("/" if kept and text.endswith("/") else "")
    return quote(path, safe="/~")


def _pairs(query: bytes) -> list[tuple[str, str]]:
    parts = (part.partition(b"=") for part in query.split(b"&") if part)
    return [
        (unquote_to_bytes(name).decode("utf-8", "replace"), unquote_to_bytes(value).decode("utf-8", "replace"))
        for name, _, value in parts
    ]


def _query(query: bytes) -> str:
    encoded = sorted(
        (quote(name, safe="~"), quote(value, safe="~")) for name, value in _pairs(query) if name != "X-Amz-Signature"
    )
    return "&".join(f"{name}={value}" for name, value in encoded)
