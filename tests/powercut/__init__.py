"""Power cuts: storages and bodies on every disk that a cut at any moment of each operation can leave.

| file | what it holds |
|---|---|
| `disk/` | the file system whose power can be cut |
| `stores` | little stores, right and wrong on purpose, which show that it tells them apart |
| `test_rules`, `test_survivors`, `test_faults`, `test_tool` | that it does what it says |
| `acting` | acts a scene out and hands over the disks |
| `judging` | what is asked of every scene on those disks |
| `sqlite_scenes`, `files_scenes`, `body_scenes` | what a storage does while the power fails, and what must be left |
| `early_scenes` | the same for what others see before it is on stable storage |
| `test_sqlite`, `test_files`, `test_bodies`, `test_early` | the scenes, on every disk |

They need Linux, the FUSE device and the right to mount (root), and nothing else. Without these they are skipped and
say why; with ``CI`` in the environment that is a failure. ``DROPR_DEEP=1 python -m pytest tests/powercut`` is the
long campaign: more policies, more seeds, and each disk is opened twice.
"""
