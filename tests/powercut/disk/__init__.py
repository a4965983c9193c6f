"""A file system whose power can be cut, to see what a program has really made durable.

Mounted over a copy of a directory, it keeps what was written apart from what an fsync has made durable. On
command it cuts the power: every later operation fails, and the directory holds what a real disk could hold then.
It can make operations fail or lie, too, and write out, from one run of a program, every disk that a cut at any
moment of that run would have left.

It speaks the kernel's FUSE protocol itself and imports nothing but the standard library: Linux, ``/dev/fuse`` and
root are all that it needs.

| file | what it owns |
|---|---|
| `inodes` | files and directories, each as programs see it and as the medium holds it, with the changes in between |
| `filesystem` | the operations on them, and what an fsync makes durable: the rules, without FUSE |
| `survivors` | which of the pending changes a power cut leaves |
| `trees` | such a choice as directories and files, to and from a real disk |
| `faults` | the failures that can be injected |
| `exploring` | every disk of one run |
| `controls` | what happens before each operation: count, explore, cut, fail |
| `fuse` | the kernel's protocol |
| `operations` | the answer to each request of the kernel |
| `server` | the process that serves a mount |
| `client` | `PowerCut`, which tests use |

What it does not do: all of it is in memory, so stores must be small and runs short. `sync` and `syncfs` never
reach a FUSE server and make nothing durable here; `fdatasync`, `msync` and `O_DSYNC` count as fsync. Modes, owners
and times are durable at once. No symbolic links, extended attributes or holes; FIFOs work
and survive nothing. Locks and shared memory maps are the
kernel's and work between processes. What the kernel has cached it reads without asking: inject a fault of `read`
before the first read of a file.
"""
