"""How queues are called: names, URLs and ARNs.

Owns their forms. A queue's name is the name of a channel. Must not know which queues there are.
"""

import re
from urllib.parse import unquote, urlsplit

from dropr_gateway_sqs.failures import SqsError, invalid_parameter

_NAME = re.compile(r"[A-Za-z0-9_-]{1,80}|[A-Za-z0-9_-]{1,75}\.fifo")
_CHANNEL = re.compile(r"[A-Za-z0-9._-]{1,80}")
_URL = re.compile(rf"https?://[A-Za-z0-9.:-]+/\d+/({_NAME.pattern})")
"""A queue URL as this door gives them."""
FIFO = ".fifo"


def check_new_name(name: str) -> str:
    """Return ``name`` if a queue may be created with it, else raise SqsError."""
    if not _NAME.fullmatch(name):
        raise invalid_parameter(
            "Can only include alphanumeric characters, hyphens, or underscores. 1 to 80 in length"
            " (the name of a FIFO queue ends with .fifo)"
        )
    return name


def check_known_name(name: str) -> str:
    """Return ``name`` if a queue may have it: those made by other dialects may have periods, too. Else SqsError."""
    if not _CHANNEL.fullmatch(name) or name in (".", ".."):
        raise SqsError("QueueDoesNotExist", "The specified queue does not exist.")
    return name


def name_of_url(url: str) -> str:
    """The queue's name in a queue URL, or in the path of one. The host in it does not matter: a client may reach this
    door under several names.
    """
    usual = _URL.fullmatch(url)
    if usual is not None:
        return usual[1]
    path = urlsplit(url).path if "://" in url else url
    return check_known_name(unquote(path.rstrip("/").rpartition("/")[2]))


def url_of_name(base: str, account: str, name: str) -> str:
    """The URL of a queue; ``base`` is the address at which the client reached us."""
    return f"{base}/{account}/{name}"


def arn_of_name(region: str, account: str, name: str) -> str:
    """The ARN of a queue."""
    return f"arn:aws:sqs:{region}:{account}:{name}"


def name_of_arn(arn: str, parameter: str) -> str:
    """The queue's name in an ARN. The region and the account do not matter: there is one of each. Raises SqsError."""
    parts = arn.split(":")
    if len(parts) != 6 or parts[0] != "arn" or parts[2] != "sqs":
        raise invalid_parameter(f"Value {arn[:200]} for parameter {parameter} is invalid: it is no ARN of a queue.")
    return check_known_name(parts[5])
