"""Keeping processes alive.

`policy` (what an exit code or a missed heart-beat means, purely), `child` (one child process), `angel` (the loop over
them), `heartbeat` (the child's side: progress, memory, time to recycle), `systemd` (readiness and watchdog),
`status_file` (what `dropr status` reads).
Knows no store and no network.
"""
