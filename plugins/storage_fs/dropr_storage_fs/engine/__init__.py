"""One half of a store at work, for one process among others. What its operations mean is told by a `HalfModel`.

Primitives: `state` and `operations` (the base of what both halves know and write down), `model` (what the engine asks
of a half), `journal`, `replica` (this process's picture of a half), `commit` (what one job writes), `generations` and
`recovery` (a new journal; order after a death), `locking` and `opening`, `promise` (what durable calls wait for),
`engine` (write, write_durable, read), `compaction` (segments go). Must not know lanes,
queues, messages or peers.
"""
