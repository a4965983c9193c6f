"""The inbox: a log for each queue (channel and priority), and a journal of leases and of what is not simply ready.

Primitives: `rows` (the shapes of what is known), `state` and `operations` (what is known, and what changes it),
`recovery` (snapshots, and what the logs tell), `queue_reader`, `moves` (one message from state to state); then what
the contract asks for, a file each: `accept`, `claim`, `settle`, `consumers`, `outcomes`, `sweep`, `care`, `view`;
`inbox` is their sum. Must not know the outbox.
"""
