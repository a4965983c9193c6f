"""What an application uses.

`node` (open, send, receive), `aio` (the same names for asyncio), beneath both `runtime`: what one process has open of a
node, which daemon, server, worker and command line use as well. `composer` (from the options of `send` to what the
outbox stores), `sender` (storing it), `batch` (many in one commit), `sent` (the handle that `send` hands back),
`consumer` and `received` (leases, acknowledgements, the iterators), `serialization` (values to bytes and back),
`store_trouble` (what the store refuses rests by itself: for processes that go on).
Talks to no network: `send` ends at this machine's disk.
"""
