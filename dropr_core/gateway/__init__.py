"""Doors on this machine for programs that speak a foreign dialect.

`writer` (when the store is worked at for all connections, in the event loop or in a thread), `turns` (what one such
turn does, in as few commits as can be), `placing` (parcels into what the store takes), `held` (leases in a
connection's hands, and their deadlines), `waiting` (who waits for messages), `looking` (what only reads), `hub` (what
all connections of a process share), `desk` (a connection's own verbs), `line` and `door` (one connection; where they
are listened for). Knows the contract of gateways and no dialect.
"""
