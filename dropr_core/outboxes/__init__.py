"""Messages that wait in tables of the user's databases, on their way into the lanes.

`reading` makes a message of a row, `placing` stores as many as fit, `waiting` knows what waits for a full queue,
`relay` takes rows out of one table, again and again, `care` forgets what the tables and promises of bodies need no
more, `relays` is all of a node's, each in a thread of its own, `rehearsal` what is wrong with them before anything
starts. Must not know lanes, peers' addresses, nor which process it is in.
"""
