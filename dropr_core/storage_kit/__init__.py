"""What every storage on a local disk needs, once. For authors of storages; see docs/plugins/storage.md.

`guard` (closed, forked, opened only to look), `events` (the same one once a minute), `limits` (messages and bytes that
may wait), `consumers` (who consumes, and who of them still lives), `forking` (nothing in use when the process forks),
`group_commit` (many threads, one flush), `opening`
(one process at a time, and what the directory's file system cannot promise).

Of the room below, `system`: `files` (files and names made durable), `os_errors` (what an errno means), `space` (free
space and the reserve), `flusher` (a flush soon after a commit without one), `locks`.
Knows no lane, no queue and no format.
"""
