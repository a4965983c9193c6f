"""Our verifier of signatures against botocore's signer."""

import calendar
import datetime as dt
import hashlib
import time
from typing import Any
from unittest import mock
from urllib.parse import quote, urlsplit

import botocore.auth
import pytest
from botocore.awsrequest import AWSRequest
from botocore.credentials import Credentials
from dropr_gateway_sqs.failures import SqsError
from dropr_gateway_sqs.sigv4 import Verifier
from hypothesis import given
from hypothesis import strategies as st

KEY, SECRET = "AKIDEXAMPLE", "wJalrXUtnFEMI/K7MDENG+bPxRfiCYEXAMPLEKEY"
NOW = calendar.timegm((2026, 1, 31, 12, 0, 0))
WORD = st.text(st.characters(codec="utf-8", exclude_categories=["Cs"]), max_size=12)
PATH = st.lists(WORD.filter(lambda word: word not in (".", "..")), max_size=4).map(
    lambda parts: "/" + "/".join(quote(part, safe="") for part in parts)
)
VALUE = st.text("abc xyz=,;:/0", max_size=20)


def signed(
    method: str, url: str, body: bytes, headers: dict[str, str], at: float = NOW, *, presign: int | None = None,
    secret: str = SECRET, key: str = KEY,
) -> tuple[str, bytes, bytes, list[tuple[bytes, bytes]]]:  # fmt: skip
    """A request as it would come in, signed by botocore: method, raw path, query, headers."""
    request = AWSRequest(method=method, url=url, data=body, headers=headers)
    credentials = Credentials(key, secret)
    signer: Any = botocore.auth.SigV4Auth(credentials, "sqs", "eu-central-1")
    if presign is not None:
        signer = botocore.auth.SigV4QueryAuth(credentials, "sqs", "eu-central-1", expires=presign)
    moment = dt.datetime.fromtimestamp(at, dt.UTC)
    with mock.patch("botocore.auth.get_current_datetime", return_value=moment.replace(tzinfo=None)):
        signer.add_auth(request)
    prepared = request.prepare()
    parts = urlsplit(prepared.url)
    came = [(name.lower().encode(), str(value, "utf-8") if isinstance(value, bytes) else value)
            for name, value in prepared.headers.items()]  # fmt: skip
    raw = [(name, value.encode("utf-8")) for name, value in came]
    raw = [(name, value) for name, value in raw if name != b"host"]
    raw.append((b"host", parts.netloc.encode()))
    return method, parts.path.encode(), parts.query.encode(), raw


def verify(request: Any, body: bytes, now: float = NOW, skew: float = 900.0) -> str:
    """Both halves of the check; the key's id."""
    verifier = Verifier({KEY: SECRET}, skew)
    claimed = verifier.claim(*request, now)
    verifier.check(claimed, hashlib.sha256(body).hexdigest())
    return claimed.key_id


@given(
    method=st.sampled_from(["POST", "GET"]),
    path=PATH,
    query=st.lists(st.tuples(WORD.filter(bool), WORD), max_size=3),
    body=st.binary(max_size=100),
    port=st.sampled_from(["", ":9324"]),
    value=VALUE,
    presign=st.none() | st.integers(1, 3600),
)
def test_what_botocore_signs_is_accepted(
    method: str, path: str, query: list[tuple[str, str]], body: bytes, port: str, value: str, presign: int | None
) -> None:
    """Whatever path, query, headers and body: botocore's signature is right, and with one byte more it is not."""
    if presign is not None:
        method, body = "GET", b""  # botocore would put the form into the query string
    encoded = "&".join(f"{quote(name, safe='')}={quote(one, safe='')}" for name, one in query)
    url = f"http://localhost{port}{path}" + (f"?{encoded}" if encoded else "")
    headers = {"X-Amz-Target": "AmazonSQS.SendMessage", "X-Other": value} if presign is None else {}
    request = signed(method, url, body, headers, presign=presign)
    assert verify(request, body) == KEY
    with pytest.raises(SqsError, match="does not match"):
        verify(request, body + b"x")


def test_every_part_is_covered() -> None:
    """A change of method, path, query or a signed header makes the signature wrong."""
    method, path, query, headers = signed(
        "POST", "http://localhost:9324/0/q?a=1", b"{}", {"X-Amz-Target": "AmazonSQS.SendMessage"}
    )
    changed = [(name, b"AmazonSQS.DeleteQueue" if name == b"x-amz-target" else value) for name, value in headers]
    for other in (("GET", path, query, headers), (method, b"/0/p", query, headers), (method, path, b"a=2", headers),
                  (method, path, query, changed)):  # fmt: skip
        with pytest.raises(SqsError, match="does not match"):
            verify(other, b"{}")


def test_what_is_remembered_of_a_client_proves_nothing() -> None:
    """After a good request of a client each later one is checked whole: signature, headers, time and key."""
    verifier = Verifier({KEY: SECRET})

    def verified(request: Any, now: float = NOW) -> None:
        verifier.check(verifier.claim(*request, now), hashlib.sha256(b"").hexdigest())

    url = "http://localhost/"
    good = signed("POST", url, b"", {"X-Amz-Target": "AmazonSQS.SendMessage"})
    for _ in range(2):
        verified(good)
    verified(signed("POST", url, b"", {"X-Amz-Target": "AmazonSQS.ListQueues"}))
    verified(signed("POST", url, b"", {"X-Amz-Target": "AmazonSQS.ListQueues"}, at=NOW + 1))
    method, path, query, headers = good
    (authorization,) = (value for name, value in headers if name == b"authorization")

    def instead(name: bytes, value: bytes) -> Any:
        return method, path, query, [(one, value if one == name else had) for one, had in headers]

    for forged, words in (
        (instead(b"authorization", authorization[:-4] + b"0000"), "does not match"),
        (instead(b"authorization", authorization.rpartition(b",")[0]), "must name"),
        (instead(b"x-amz-target", b"AmazonSQS.DeleteQueue"), "does not match"),
        (instead(b"x-amz-date", b"20260131T120002Z"), "does not match"),
        (instead(b"x-amz-date", b"20260130T120000Z"), "of the day"),
        ((method, path, query, [*headers, (b"x-amz-new", b"1")]), "x-amz-new"),
        (signed("POST", url, b"", {"X-Amz-Target": "AmazonSQS.SendMessage"}, secret="other"), "does not match"),
    ):
        with pytest.raises(SqsError, match=words):
            verified(forged)
    with pytest.raises(SqsError, match="expired"):
        verified(good, NOW + 901)
    verified(good, NOW + 899)


def test_what_decides_must_be_signed() -> None:
    """An X-Amz header beside a good signature, added on the way, is refused; so is a request without any signature."""
    method, path, query, headers = signed("POST", "http://localhost/", b"", {})
    with pytest.raises(SqsError, match="x-amz-target"):
        verify((method, path, query, [*headers, (b"x-amz-target", b"AmazonSQS.DeleteQueue")]), b"")
    with pytest.raises(SqsError) as caught:
        verify((method, path, query, [(b"host", b"localhost")]), b"")
    assert caught.value.query_code == "MissingAuthenticationToken"


@pytest.mark.parametrize(("late", "good"), [(0, True), (899, True), (901, False), (-899, True), (-901, False)])
def test_old_and_early_requests_are_refused(late: int, good: bool) -> None:
    """A signature is good for the skew around the time it names, before and after: so long can it be replayed."""
    request = signed("POST", "http://localhost/", b"x", {})
    if good:
        assert verify(request, b"x", NOW + late) == KEY
    else:
        with pytest.raises(SqsError, match="Set the clock") as caught:
            verify(request, b"x", NOW + late)
        assert caught.value.status == 403


def test_a_presigned_request_expires() -> None:
    """One in the query string is good as long as it says, and for no longer than the skew beyond a shorter one."""
    request = signed("GET", "http://localhost/?Action=ListQueues", b"", {}, presign=3600)
    assert verify(request, b"", NOW + 3599) == KEY
    with pytest.raises(SqsError, match="expired"):
        verify(request, b"", NOW + 3601)


def test_a_stranger_and_a_wrong_secret_are_told_apart() -> None:
    """An unknown key is refused by the request's head alone, a wrong secret when the body is there."""
    for request, match in ((signed("POST", "http://x/", b"", {}, key="OTHER"), "security token"),
                           (signed("POST", "http://x/", b"", {}, secret="no"), "does not match")):  # fmt: skip
        with pytest.raises(SqsError, match=match):
            verify(request, b"")


@given(st.text(max_size=200), st.binary(max_size=100), st.text(max_size=30))
def test_garbage_in_the_head_is_refused_in_words(authorization: str, query: bytes, date: str) -> None:
    """Whatever stands in the headers, the answer is an SqsError."""
    named = "SignedHeaders=host;x-amz-date, Signature=ä"
    good = f"AWS4-HMAC-SHA256 Credential={KEY}/20260131/r/sqs/aws4_request, {named}"
    for value in (authorization, f"AWS4-HMAC-SHA256 {authorization}", good):
        headers = [(b"authorization", value.encode()), (b"x-amz-date", date.encode()), (b"host", b"x")]
        with pytest.raises(SqsError):
            verify(("POST", b"/", query, headers), b"")
    stamp = time.strftime("%Y%m%dT%H%M%SZ", time.gmtime(NOW)).encode()
    with pytest.raises(SqsError, match="does not match"):
        verify(("POST", b"/", query, [(b"authorization", good.encode()), (b"x-amz-date", stamp), (b"host", b"x")]), b"")
