"""The files of the page: they stand beside this one, and hold nothing of any node.

Owns their names and types. What the page shows it asks for itself, with the token (`looking.py`).
"""

import functools
import logging
from importlib import resources

from dropr_core.api.runtime import Runtime
from dropr_core.monitor.routes import Answer, Refused, Request, Route

_TYPES = {
    ".html": "text/html; charset=utf-8",
    ".css": "text/css; charset=utf-8",
    ".js": "text/javascript; charset=utf-8",
    ".svg": "image/svg+xml",
}


def page_routes(_runtime: Runtime, _log: logging.Logger) -> list[Route]:
    """The page and its files, open to everybody."""
    return [
        Route("GET", "/", lambda _request: _file("index.html"), open=True),
        Route("GET", "/page/*", _named, open=True),
    ]


def _named(request: Request) -> Answer:
    return _file(request.rest)


@functools.lru_cache(maxsize=32)
def _file(name: str) -> Answer:
    folder = resources.files("dropr_core.monitor") / "page"
    known = {one.name: one for one in folder.iterdir() if one.is_file()}
    media_type = _TYPES.get(name[name.rfind(".") :])
    if name not in known or media_type is None:
        raise Refused(404, "there is no such file of the page")
    return Answer(known[name].read_bytes(), media_type)
