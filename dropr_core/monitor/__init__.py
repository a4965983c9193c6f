"""Looking at a node: how it does now, how fast it goes, and the story of one message; and all of it over HTTP.

`process_reports` (what running processes say of themselves, and what the system says of them), `snapshot` (one
picture of the node in values that can be sent and kept), `gathering` (takes one; its cost does not depend on the
backlog), `rates` (the difference of two), `history` (many of them). `story` (what this node knows of one message),
`asking` (what peers know of it, over the signed protocol), `timeline` (both in order, and where it is now). Over
HTTP: `access` (the token, and which names a browser may use), `routes` (what a request, an answer and a route are),
`table` (every route there is), `web` (the ASGI application over them), `host` (where it listens: a thread of its
own). Idle costs nothing: what is shown is gathered when somebody asks. Knows stores and the run directory; must not
know terminals or command lines, which are views of this.
"""
