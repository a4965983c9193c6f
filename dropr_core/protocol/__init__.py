"""The conversation between two nodes, without I/O.

Primitives: `messages` (the requests and answers), `frames` (their signed form), `conversations` (the tokens by which a
peer goes on after hello), `log_matching` (what two heads mean for each other), `reconcile` (what that does to our log),
`batches` (what is pushed, and how a push is accepted), `body_requests` (the verbs that carry large bodies), `endpoint`
(the answering side), `link` (the asking side: it gives `orders`, and turns the answers that it is told into effects;
both stand in `orders`).
Opens no socket and reads no clock that it was not given: that makes simulations of many nodes possible.
"""
