"""Large bodies on one machine: files beside the store, written and read in pieces, never whole in memory.

The implementation of contracts/bodies.py for every storage that machines do not share: `files` (one body's file: name,
format, reading), `write_behind` (writing it while more is made), `partial_body` (a body that arrives piece by piece),
`checking` (for `dropr fsck`), `store` (the directory: who needs which file, and the sweep). Knows no peer and no lane;
what travels when is decided in delivery/.
"""
