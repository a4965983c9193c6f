"""What the machines that open one store have in common: documents, elections, wake-ups.

Primitives: `documents` (compare and set), `election` (session advisory locks), `wakeups` (LISTEN and NOTIFY), `shared`
(the three as the contract has them). Must not know messages.
"""
