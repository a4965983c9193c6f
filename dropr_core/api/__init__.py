"""What an application uses.

`node` (open, send, receive), `aio` (the same names for asyncio), `composer` (from the arguments of `send` to what the
outbox stores), `sent` (the handle that `send` hands back), `consumer` and `received` (leases, acknowledgements, the
iterators), `serialization` (values to bytes and back).
Talks to no network: `send` ends at this machine's disk.
"""
