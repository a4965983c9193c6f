"""Looking at a node and changing nothing: how it does now, how fast it goes, and the story of one message.

`process_reports` (what running processes say of themselves, and what the system says of them), `snapshot` (one picture
of the node in values that can be sent and kept), `gathering` (takes one; its cost does not depend on the backlog),
`rates` (the difference of two). Knows stores and the run directory; must not know terminals, pages or command lines,
which are views of this.
"""
