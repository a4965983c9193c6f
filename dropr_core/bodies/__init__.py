"""Large bodies on this machine: files beside the store, written and read in pieces, never whole in memory.

`chunk_digest` (the digest of a body over leaves of 256 KiB), `files` (one body's file: format, reading, writing),
`store` (the directory: who needs which file, and the sweep), `partial_body` (a body that arrives piece by piece).
Knows no peer and no lane; what travels when is decided in delivery/.
"""
