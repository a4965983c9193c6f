"""What an HTTP answer, or the lack of one, means to dropr.

Owns the mapping from curl's errors and from status codes to Unreachable, Unanswered and Refused.
Pure: must not know sockets, threads or what a request was about.
"""

from collections.abc import Sequence

import pycurl  # type: ignore[import-untyped]

from dropr_core.errors import DroprError, Refused, Unanswered, Unreachable

CONTENT_TYPE = "application/vnd.dropr.v1"
CODE_HEADER = "dropr-code"
SHOWN = 200
"""Characters of a stranger's page that go into an error."""

_REFUSALS = {
    400: ("bad_request", "the HTTP server calls the request malformed; is a proxy between the nodes that changes it?"),
    401: ("unauthorized", "the HTTP server wants other credentials; check what stands before the peer's node"),
    403: ("unauthorized", "the HTTP server forbids it; check what stands before the peer's node, and the TLS settings"),
    404: ("not_dropr", "no dropr node listens at this path; check the path of the peer's url"),
    405: ("not_dropr", "what listens there takes no POST; check the peer's url"),
    407: ("unauthorized", "the proxy wants credentials; check the option 'proxy'"),
    413: ("too_big", "a server before the peer's node does not take so big a request; raise its limit"),
    429: ("busy", "the HTTP server has too much to do"),
    503: ("busy", "the HTTP server has too much to do, or the node behind it is down"),
}

_CONNECTING = {
    pycurl.E_COULDNT_RESOLVE_HOST: "the host name is not known; check the peer's url and this machine's DNS",
    pycurl.E_COULDNT_RESOLVE_PROXY: "the proxy's name is not known; check the option 'proxy'",
    pycurl.E_COULDNT_CONNECT: "nobody listens there, or a firewall is between; check that the peer's server runs, "
    "its port, and the route",
    pycurl.E_OPERATION_TIMEDOUT: "no connection within the time for it; check the address, the route and firewalls",
    pycurl.E_PEER_FAILED_VERIFICATION: "the peer's TLS certificate was not accepted; check 'tls.ca', the name in the "
    "certificate and its dates",
    pycurl.E_SSL_CONNECT_ERROR: "the TLS handshake failed; check that the peer speaks https there, and both "
    "sides' TLS settings",
    pycurl.E_SSL_CERTPROBLEM: "this node's own TLS certificate cannot be used; check 'tls.cert' and 'tls.key'",
    pycurl.E_SSL_CACERT_BADFILE: "the file of TLS authorities cannot be read; check 'tls.ca'",
    pycurl.E_URL_MALFORMAT: "this is no usable url",
}

_SPEAKING = {
    pycurl.E_GOT_NOTHING: "the peer closed the connection without an answer",
    pycurl.E_PARTIAL_FILE: "the answer broke off in the middle",
    pycurl.E_RECV_ERROR: "the connection broke while the answer was awaited",
    pycurl.E_SEND_ERROR: "the connection broke while the request was sent",
    pycurl.E_FILESIZE_EXCEEDED: "the answer is bigger than the option 'max_answer' allows",
    pycurl.E_WRITE_ERROR: "the answer is bigger than the option 'max_answer' allows",
    pycurl.E_UNSUPPORTED_PROTOCOL: "what came back is not HTTP; check the peer's url and port",
}


def failed(url: str, number: int, text: str, *, started: bool) -> DroprError:
    """The error for a transfer that curl gave up with ``number``; ``started``: the request may have been sent."""
    detail = f" ({printable(text)})" if text else ""
    if started:
        return Unanswered(f"{url}: {_SPEAKING.get(number, 'the conversation broke off')}{detail}")
    return Unreachable(f"{url}: {_CONNECTING.get(number, 'no connection')}{detail}")


def judged(url: str, status: int, content_type: str | None, headers: Sequence[bytes], body: bytes) -> DroprError | None:
    """None for a real answer of a dropr node; otherwise what the HTTP answer means."""
    if status == 200:
        if (content_type or "").partition(";")[0].strip().lower() == CONTENT_TYPE:
            return None
        return Unanswered(
            f"{url}: not the answer of a dropr node but {content_type or 'something without a type'}; "
            f"is a proxy or another program at this address?{_excerpt(body)}"
        )
    code = _header(headers, CODE_HEADER)
    if code:
        return Refused(printable(code), printable(body.decode("utf-8", "replace"), 1000) or "without a reason")
    if 300 <= status < 400:
        where = printable(_header(headers, "location")) or "somewhere else"
        return Refused("redirect", f"{url} sends us to {where}; if that is right, write it into the peer's url")
    if status in _REFUSALS:
        word, meaning = _REFUSALS[status]
        after = printable(_header(headers, "retry-after"), 40)
        if after:
            meaning += f"; it asks for a pause of {after} s" if after.isdigit() else f"; it asks to wait until {after}"
        return Refused(word, f"{url} answered {status}: {meaning}{_excerpt(body)}")
    if 400 <= status < 500 and status != 408:
        return Refused("bad_request", f"{url} answered {status}{_excerpt(body)}")
    return Unanswered(f"{url} answered {status}, so it is not known what became of the request{_excerpt(body)}")


def printable(text: str, limit: int = SHOWN) -> str:
    """One line of at most ``limit`` harmless characters."""
    line = " ".join(text[: 4 * limit].split())
    return (line if line.isprintable() else "".join(sign if sign.isprintable() else " " for sign in line))[:limit]


def _excerpt(body: bytes) -> str:
    text = printable(body[: 4 * SHOWN].decode("utf-8", "replace"))
    return f": {text}" if text else ""


def _header(headers: Sequence[bytes], name: str) -> str:
    for line in headers:
        left, colon, right = line.decode("latin-1").partition(":")
        if colon and left.strip().lower() == name:
            return right.strip()
    return ""
