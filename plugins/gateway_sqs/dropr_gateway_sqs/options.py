"""What the user may say about this gateway in the YAML.

Must not know what the options do.
"""

import re
from collections.abc import Mapping

import attrs

from dropr_core import options
from dropr_core.errors import UsageError

_ACCOUNT = re.compile(r"[0-9]{12}")
_REGION = re.compile(r"[a-z0-9-]{1,64}")


def _check_account(text: str) -> None:
    if not _ACCOUNT.fullmatch(text):
        raise UsageError(f"account '{text[:40]}': use twelve digits, in quotes")


def _check_region(text: str) -> None:
    if not _REGION.fullmatch(text):
        raise UsageError(f"region '{text[:80]}': use a name such as eu-central-1")


@attrs.frozen(kw_only=True)
class Options:
    """Options of the gateway ``sqs``."""

    credentials: Mapping[str, str] = options.secret(
        dict,
        doc="Access key id → secret access key, of those who may call. Without any nobody has to sign, and the door "
        "stays on loopback.",
    )
    region: str = options.option("us-east-1", doc="The region in ARNs.", check=_check_region)
    account: str = options.option(
        "000000000000", doc="The account number in ARNs and queue URLs.", check=_check_account
    )
    url: str | None = options.option(
        None, doc="What queue URLs begin with, behind a proxy.", unset="as the client reached the gateway"
    )
    clock_skew: float = options.duration(
        "15m", least=1.0, most=86400.0, doc="How far a client's clock may be away; so long can a request be replayed."
    )
