"""What the operating system gives, made safe to use.

`os_errors` (what an errno means for what is kept on a disk), `files` (files that are there whole or not at all, and
durable with their names), `clock` (node time, which survives reboots and wall clocks that jump), `locks` (locks that
die with their holder), `notifier` (wake-ups between processes), `space` (room on the disk and the reserve), `flusher`
(a flush soon after a commit without one), `connections` (who may hold a connection of a listener), `tally` (what
strangers repeat is said rarely), `exit_codes`, `address` (listening sockets, by URL), `web` (ASGI applications at one).
Knows no message and no peer.
"""
