"""Answering the requests that a transport's listener brings.

`dispatcher` hands a request to the endpoint in one of a few threads, `long_polls` keeps those that wait until there is
something to say.
`refusals` says in the log who was turned away, `contacts` keeps when a peer was last heard of.
Knows no transport by name and no socket.
"""
