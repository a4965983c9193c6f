"""Doors on this machine for programs that speak a foreign dialect.

`writer` (the threads that work at the store for all connections, in as few commits as can be), `placing` (parcels into
what the store takes), `held` (leases in a connection's hands, and their deadlines), `waiting` (who waits for messages),
`looking` (what only reads), `hub` (what all connections of a process share), `desk` (a connection's own verbs), `line`
and `door` (one connection; where they are listened for). Knows the contract of gateways and no dialect.
"""
