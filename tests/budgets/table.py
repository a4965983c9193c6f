"""What each operation may cost, for one message (or one turn of the idle daemon). Recorded, not written:

    PYTHONPATH=tests python -m budgets.record

Owns the numbers. How much more is forgiven stands in test_budgets.py.
"""

from budgets.measuring import Cost

TABLE = {
    "sqlite": {
        "send": Cost(
            functions=116.33, statements=3.03, steps=49.95, peak=None,
            system={
                "fcntl": 6, "fdatasync": 1, "flock": 2, "pwrite64": 2.48,
                "stat": 1,
            },
        ),
        "put": Cost(
            functions=146.33, statements=7.03, steps=215.67, peak=None,
            system={
                "fcntl": 6, "fdatasync": 1, "flock": 2, "pwrite64": 6.44,
                "stat": 1,
            },
        ),
        "send batch": Cost(
            functions=7.231, statements=0.022, steps=36.599, peak=533,
            system={
                "fcntl": 0.006, "fdatasync": 0.001, "flock": 0.002, "pwrite64": 0.208,
                "stat": 0.001,
            },
        ),
        "ship": Cost(
            functions=0.136, statements=0.014, steps=36.737, peak=582,
            system={
                "fcntl": 0.012, "flock": 0.004, "pread64": 0.112, "pwrite64": 0.22,
                "stat": 0.002,
            },
        ),
        "accept": Cost(
            functions=4.222, statements=0.031, steps=30.778, peak=199,
            system={
                "fcntl": 0.006, "fdatasync": 0.001, "flock": 0.002, "pwrite64": 0.216,
                "stat": 0.001,
            },
        ),
        "receive": Cost(
            functions=48.27, statements=1.33, steps=102.65, peak=None,
            system={
                "close": 0.08, "fallocate": 0.01, "fcntl": 1.12, "flock": 0.31,
                "ftruncate": 0.01, "getdents64": 0.02, "mkdir": 0.01, "openat": 0.06,
                "pread64": 0.51, "pwrite64": 1.65, "stat": 0.32, "unlink": 0.03,
            },
        ),
        "receive batch": Cost(
            functions=3.765, statements=0.037, steps=77.525, peak=870,
            system={
                "close": 0.006, "fcntl": 0.027, "flock": 0.007, "ftruncate": 0.001,
                "getdents64": 0.002, "mkdir": 0.001, "openat": 0.005, "pread64": 0.126,
                "pwrite64": 0.257, "stat": 0.012, "unlink": 0.003,
            },
        ),
        "wake": Cost(
            functions=50.26, statements=0, steps=0, peak=None,
            system={
                "close": 0.09, "fcntl": 0.01, "getdents64": 0.1, "openat": 0.08,
                "poll": 1, "pwrite64": 2, "read": 2, "stat": 2.12,
                "unlink": 0.04, "write": 2.01,
            },
        ),
        "look": Cost(
            functions=80.03, statements=6, steps=192, peak=None,
            system={
                "fcntl": 6,
            },
        ),
        "accept each": Cost(
            functions=157.18, statements=9.09, steps=266.92, peak=None,
            system={
                "fcntl": 6, "fdatasync": 1, "flock": 2, "pwrite64": 8.64,
                "stat": 1,
            },
        ),
        "claim each": Cost(
            functions=149.66, statements=12.15, steps=315.96, peak=None,
            system={
                "close": 0.02, "fcntl": 8.14, "flock": 2.05, "ftruncate": 0.01,
                "mkdir": 0.01, "openat": 0.02, "pread64": 3.13, "pwrite64": 6.43,
                "stat": 1.06, "unlink": 0.01,
            },
        ),
        "idle": Cost(
            functions=100.3, statements=0, steps=0, peak=None,
            system={
                "openat": 1,
            },
        ),
    },
    "fs": {
        "send": Cost(
            functions=209.03, statements=0, steps=0, peak=None,
            system={
                "fdatasync": 1, "flock": 4, "pwrite64": 1, "stat": 1.01,
            },
        ),
        "put": Cost(
            functions=221.06, statements=0, steps=0, peak=None,
            system={
                "fdatasync": 1, "flock": 4, "pwrite64": 1, "stat": 1.01,
            },
        ),
        "send batch": Cost(
            functions=13.241, statements=0, steps=0, peak=1322,
            system={
                "fdatasync": 0.001, "flock": 0.004, "pwrite64": 0.001, "stat": 0.001,
            },
        ),
        "ship": Cost(
            functions=0.225, statements=0, steps=0, peak=1065,
            system={
                "flock": 0.004, "pread64": 0.001, "pwrite64": 0.002, "stat": 0.002,
            },
        ),
        "accept": Cost(
            functions=9.229, statements=0, steps=0, peak=982,
            system={
                "fdatasync": 0.001, "flock": 0.004, "pwrite64": 0.002, "stat": 0.001,
            },
        ),
        "receive": Cost(
            functions=46.73, statements=0, steps=0, peak=None,
            system={
                "close": 0.08, "fallocate": 0.01, "fcntl": 0.02, "flock": 0.39,
                "ftruncate": 0.01, "getdents64": 0.02, "mkdir": 0.01, "openat": 0.06,
                "pread64": 0.01, "pwrite64": 0.15, "stat": 0.34, "unlink": 0.03,
            },
        ),
        "receive batch": Cost(
            functions=0.84, statements=0, steps=0, peak=1033,
            system={
                "close": 0.006, "fcntl": 0.001, "flock": 0.015, "ftruncate": 0.001,
                "getdents64": 0.002, "mkdir": 0.001, "openat": 0.005, "pread64": 0.002,
                "pwrite64": 0.003, "stat": 0.014, "unlink": 0.003,
            },
        ),
        "wake": Cost(
            functions=50.26, statements=0, steps=0, peak=None,
            system={
                "close": 0.09, "fcntl": 0.01, "getdents64": 0.1, "openat": 0.08,
                "poll": 1, "pwrite64": 2, "read": 2, "stat": 2.12,
                "unlink": 0.04, "write": 2.01,
            },
        ),
        "look": Cost(
            functions=99.03, statements=0, steps=0, peak=None,
            system={
                "flock": 6,
            },
        ),
        "accept each": Cost(
            functions=238.03, statements=0, steps=0, peak=None,
            system={
                "fdatasync": 1, "flock": 4, "pwrite64": 2, "stat": 1,
            },
        ),
        "claim each": Cost(
            functions=175.2, statements=0, steps=0, peak=None,
            system={
                "close": 0.02, "flock": 2.05, "ftruncate": 0.01, "mkdir": 0.01,
                "openat": 0.02, "pread64": 0.01, "pwrite64": 1.02, "stat": 1.06,
                "unlink": 0.01,
            },
        ),
        "idle": Cost(
            functions=100.3, statements=0, steps=0, peak=None,
            system={
                "openat": 1,
            },
        ),
    },
}  # fmt: skip
