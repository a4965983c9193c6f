"""A guest book that can be signed while its database is down.

    python site.py                                  # http://127.0.0.1:8080

What is written goes to the memcache door of a node on this machine and is safe there when `set` returns; `writer.py`
puts it into the database as soon as there is one. What is read comes from the database, and the page says so when it
cannot be read. Nothing of this program knows dropr: it has a memcache client, and would run with MemcacheQ as well.
"""

import html
import json
import os
import sqlite3
import uuid
from collections.abc import Callable, Iterable
from typing import Any
from urllib.parse import parse_qs
from wsgiref.simple_server import make_server

from pymemcache.client.base import PooledClient
from pymemcache.exceptions import MemcacheError

QUEUE = "guestbook"
DATABASE = os.environ.get("SITE_DATABASE", "site.db")
MEMCACHE = os.environ.get("SITE_MEMCACHE", "127.0.0.1:11211")
ADDRESS = os.environ.get("SITE_ADDRESS", "127.0.0.1:8080")


def read() -> list[tuple[str, str]] | None:
    """Who signed, the latest first; None if the database cannot be asked."""
    try:
        with sqlite3.connect(f"file:{DATABASE}?mode=ro", uri=True, timeout=1) as database:
            return list(database.execute("SELECT name, text FROM guestbook ORDER BY at DESC LIMIT 50"))
    except sqlite3.Error:
        return None


def application(queue: PooledClient) -> Callable[..., Iterable[bytes]]:
    """The site, in WSGI."""

    def sign(form: dict[str, list[str]]) -> tuple[str, str]:
        entry = {"id": str(uuid.uuid4()), "name": form["name"][0], "text": form["text"][0]}
        for _ in range(2):  # a connection of the pool may be older than the door; the id makes a second entry harmless
            try:
                queue.set(QUEUE, json.dumps(entry), noreply=False)
            except (MemcacheError, OSError):
                continue
            return "202 Accepted", "<p>Thank you! Your words are kept. <a href='/'>Back</a></p>"
        return "503 Service Unavailable", "<p>Please try again in a second.</p>"  # the angel starts the door again

    def show() -> tuple[str, str]:
        entries = read()
        if entries is None:
            return "200 OK", "<p>The guest book cannot be shown at the moment. You can sign it all the same.</p>"
        return "200 OK", "".join(f"<p><b>{html.escape(name)}</b>: {html.escape(text)}</p>" for name, text in entries)

    def serve(environ: dict[str, Any], start: Callable[..., Any]) -> Iterable[bytes]:
        if environ["REQUEST_METHOD"] == "POST":
            form = parse_qs(environ["wsgi.input"].read(int(environ.get("CONTENT_LENGTH") or 0)).decode())
            status, page = sign(form) if {"name", "text"} <= form.keys() else ("400 Bad Request", "<p>Who are you?</p>")
        else:
            status, page = show()
        form_html = "<form method=post><input name=name><input name=text><button>Sign</button></form>"
        body = f"<!doctype html><title>Guest book</title>{page}{form_html}".encode()
        start(status, [("Content-Type", "text/html; charset=utf-8"), ("Content-Length", str(len(body)))])
        return [body]

    return serve


def main() -> None:
    """Serve until told to stop."""
    (door_host, door_port), (host, port) = (address.split(":") for address in (MEMCACHE, ADDRESS))
    with make_server(host, int(port), application(PooledClient((door_host, int(door_port)), timeout=10))) as server:
        server.serve_forever()


if __name__ == "__main__":
    main()
