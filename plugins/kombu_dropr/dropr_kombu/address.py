"""What a URL and the name of a queue mean to dropr.

Owns the way from ``dropr:///etc/shop.yaml`` to a file, and from any name of a queue to one that a channel may have.
Must not know nodes.
"""

import hashlib
import os
import re
from pathlib import Path
from urllib.parse import unquote

from dropr_core.errors import UsageError
from dropr_core.model.limits import MAX_CHANNEL
from dropr_core.model.names import is_channel

SCHEME = "dropr://"
_FOREIGN = re.compile(r"[^A-Za-z0-9._-]+")


def config_of(url: str) -> Path:
    """The YAML file that a URL names: ``dropr:///etc/shop.yaml``; ``dropr://shop.yaml`` is one below the working
    directory; ``dropr://`` alone is the file that $DROPR_CONFIG names. Raises UsageError if there is none.
    """
    rest = url.removeprefix(SCHEME) if url.startswith(SCHEME) else ""
    path = unquote(rest) or os.environ.get("DROPR_CONFIG", "")
    if not path:
        raise UsageError(
            f"{url or 'dropr://'} names no node: write dropr:///etc/shop.yaml, the YAML file of the node on this "
            "machine, or set $DROPR_CONFIG"
        )
    return Path(path).absolute()


def channel_of(queue: str) -> str:
    """The channel for a queue: its own name, if a channel may have that; else one made of it and its digest, the same
    on every machine.
    """
    if is_channel(queue):
        return queue
    digest = hashlib.blake2b(queue.encode("utf-8", "surrogatepass"), digest_size=5).hexdigest()
    plain = _FOREIGN.sub("-", queue).strip(".-")[: MAX_CHANNEL - len(digest) - 1]
    return f"{plain or 'queue'}-{digest}"
