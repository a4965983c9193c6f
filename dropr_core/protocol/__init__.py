"""The conversation between two nodes, without I/O.

Primitives: `messages` (the requests and answers), `frames` (their signed form), `replay_guard` (a request counts
once), `log_matching` (what two heads mean for each other), `batches` (what is pushed, and how a push is accepted),
`body_requests` (the verbs that carry large bodies), `endpoint` (the answering side), `link` (the asking side:
`orders` say what to do next, answers come back through its methods).
Opens no socket and reads no clock that it was not given: that makes simulations of many nodes possible.
"""
