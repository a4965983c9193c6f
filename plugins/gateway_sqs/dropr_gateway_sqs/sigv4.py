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
from urllib.parse import quote, unquote_to_bytes

import attrs

from dropr_gateway_sqs.failures import SqsError

ALGORITHM = "AWS4-HMAC-SHA256"
_CREDENTIAL = re.compile(r"([\w/.@=+-]{1,128})/(\d{8})/([a-z0-9-]{1,64})/([a-z0-9-]{1,64})/aws4_request")
_STAMP = re.compile(r"\d{8}T\d{6}Z")
_LONGEST = 7 * 86400
_MOST_KEYS = 256

Headers = Sequence[tuple[bytes, bytes]]


@attrs.frozen
class Claimed:
    """What a request's head claims: enough to check it once the body is there."""

    key_id: str
    date: str
    region: str
    stamp: str
    signature: str
    canonical: str = attrs.field(repr=False)
    """The canonical request up to the digest of the body."""
    body_digest: str
    """What the client says the body's SHA-256 is; empty if it does not say."""


class Verifier:
    """Knows the secrets. A signature is good for ``skew`` seconds before and after the time that it names."""

    def __init__(self, secrets: Mapping[str, str], skew: float = 900.0) -> None:
        self._secrets, self._skew = dict(secrets), skew
        self._keys: dict[tuple[str, str, str], bytes] = {}

    def claim(self, method: str, raw_path: bytes, query: bytes, headers: Headers, now: float) -> Claimed:
        """Read the head of a request. Raises SqsError for a stranger, an old request, and what is not signed at all."""
        found = _Found.of(query, headers)
        matched = _CREDENTIAL.fullmatch(found.credential)
        if not matched or not found.signature or not found.signed:
            raise SqsError(
                "IncompleteSignatureException", "The signature must name Credential, SignedHeaders and Signature.",
                status=403,
            )  # fmt: skip
        key_id, date, region, service = matched.groups()
        if key_id not in self._secrets:
            raise SqsError(
                "UnrecognizedClientException", "The security token included in the request is invalid:"
                " its access key is none of this gateway's 'credentials'.", status=403,
            )  # fmt: skip
        if service != "sqs":
            raise _mismatch("Credential should be scoped to correct service: 'sqs'.")
        self._check_time(found, date, now)
        canonical = "\n".join(
            (
                method,
                _path(raw_path),
                _query(query),
                _canonical_headers(headers, found.signed),
                ";".join(found.signed),
                "",
            )
        )
        claimed = _values(headers).get("x-amz-content-sha256", "")
        return Claimed(key_id, date, region, found.stamp, found.signature, canonical, claimed)

    def check(self, claimed: Claimed, body_digest: str) -> None:
        """Compare the signature, the body being there: ``body_digest`` is its SHA-256. Raises SqsError."""
        if claimed.body_digest and claimed.body_digest != body_digest:
            raise _mismatch("The x-amz-content-sha256 header is not the SHA-256 of the body.")
        digest = hashlib.sha256((claimed.canonical + body_digest).encode()).hexdigest()
        scope = f"{claimed.date}/{claimed.region}/sqs/aws4_request"
        text = f"{ALGORITHM}\n{claimed.stamp}\n{scope}\n{digest}"
        expected = hmac.new(self._key(claimed), text.encode(), hashlib.sha256).hexdigest()
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
            if len(self._keys) >= _MOST_KEYS:  # dates and regions are the caller's words
                self._keys.clear()
            self._keys[name] = key
        return key

    def _check_time(self, found: "_Found", date: str, now: float) -> None:
        if not _STAMP.fullmatch(found.stamp) or found.stamp[:8] != date:
            raise _mismatch("X-Amz-Date must be as 20260131T235959Z, of the day that the credential names.")
        try:
            when = calendar.timegm(time.strptime(found.stamp, "%Y%m%dT%H%M%SZ"))
        except ValueError:
            raise _mismatch(f"X-Amz-Date: {found.stamp} is no time.") from None
        here = time.strftime("%Y%m%dT%H%M%SZ", time.gmtime(now))
        if now > when + max(self._skew, found.expires):
            raise _mismatch(
                f"Signature expired: {found.stamp} is too long before {here}, the time here. Set the clock."
            )
        if now < when - self._skew:
            raise _mismatch(f"Signature not yet current: {found.stamp} is after {here}, the time here. Set the clock.")


@attrs.frozen
class _Found:
    """The parts of a signature, wherever they stood."""

    credential: str
    signed: tuple[str, ...]
    signature: str
    stamp: str
    expires: float

    @classmethod
    def of(cls, query: bytes, headers: Headers) -> "_Found":
        values = _values(headers)
        authorization = values.get("authorization")
        if authorization is not None:
            algorithm, _, rest = authorization.partition(" ")
            if algorithm != ALGORITHM:
                raise SqsError("IncompleteSignatureException", f"Sign with {ALGORITHM}.", status=403)
            parts = dict(part.strip().partition("=")[::2] for part in rest.split(","))
            stamp, expires = values.get("x-amz-date", ""), 0.0
            names = ("Credential", "SignedHeaders", "Signature")
        else:
            parts = {name: value for name, value in _pairs(query) if name.startswith("X-Amz-")}
            if parts.get("X-Amz-Algorithm") != ALGORITHM:
                raise SqsError(
                    "MissingAuthenticationTokenException",
                    "Request is missing Authentication Token: this gateway answers signed requests only.", status=403,
                )  # fmt: skip
            stamp, seconds = parts.get("X-Amz-Date", ""), parts.get("X-Amz-Expires", "0")
            if not re.fullmatch(r"\d{1,7}", seconds) or int(seconds) > _LONGEST:
                raise _mismatch(f"X-Amz-Expires must be a number of seconds up to {_LONGEST}.")
            expires = float(seconds)
            names = ("X-Amz-Credential", "X-Amz-SignedHeaders", "X-Amz-Signature")
        credential, signed, signature = (parts.get(name, "") for name in names)
        listed = tuple(name for name in signed.split(";") if name)
        # Whatever decides what is done must be signed: where it goes, which action, and Amazon's own headers.
        needed = {"host", *(name for name in values if name.startswith("x-amz-"))}
        lacking = sorted(needed - set(listed))
        if listed and lacking:
            raise _mismatch(f"These headers must be signed: {', '.join(lacking)}.")
        return cls(credential, listed, signature, stamp, expires)


def _mismatch(message: str) -> SqsError:
    return SqsError("InvalidSignatureException", message, status=403)


def _values(headers: Headers) -> dict[str, str]:
    """Name → value; the values of a repeated header together, as they are signed."""
    found: dict[str, str] = {}
    for raw_name, raw in headers:
        name, value = raw_name.decode("latin-1"), " ".join(raw.decode("latin-1").split())
        found[name] = f"{found[name]},{value}" if name in found else value
    return found


def _canonical_headers(headers: Headers, signed: Sequence[str]) -> str:
    values = _values(headers)
    return "".join(f"{name}:{values.get(name, '')}\n" for name in signed)


def _path(raw: bytes) -> str:
    """Without dot segments and double slashes, each octet of it encoded once more, as all services but S3 want it."""
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
