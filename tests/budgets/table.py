"""What each operation may cost, for one message (or one turn of the idle daemon). Recorded, not written:

    PYTHONPATH=tests python -m budgets.record

Owns the numbers. How much more is forgiven stands in test_budgets.py.
"""

from budgets.measuring import Cost

TABLE = {
    "sqlite": {
        "send": Cost(
            functions=104.03, statements=3, steps=47, peak=None,
            system={
                "fcntl": 6, "fdatasync": 1, "flock": 2, "pwrite64": 4.46,
                "stat": 1.01,
            },
        ),
        "put": Cost(
            functions=134.03, statements=7, steps=163, peak=None,
            system={
                "fcntl": 6, "fdatasync": 1, "flock": 2, "pwrite64": 8.42,
                "stat": 1.01,
            },
        ),
        "send batch": Cost(
            functions=7.165, statements=0.02, steps=36.232, peak=487,
            system={
                "fcntl": 0.006, "fdatasync": 0.001, "flock": 0.002, "pwrite64": 0.228,
                "stat": 0.001,
            },
        ),
        "ship": Cost(
            functions=0.122, statements=0.012, steps=36.333, peak=582,
            system={
                "fcntl": 0.012, "flock": 0.004, "pread64": 0.122, "pwrite64": 0.234,
                "stat": 0.002,
            },
        ),
        "accept": Cost(
            functions=2.165, statements=0.025, steps=30.332, peak=197,
            system={
                "fcntl": 0.006, "fdatasync": 0.001, "flock": 0.002, "pwrite64": 0.236,
                "stat": 0.001,
            },
        ),
        "receive": Cost(
            functions=49.7, statements=1.69, steps=104.6, peak=None,
            system={
                "close": 0.07, "fallocate": 0.01, "fcntl": 1.11, "flock": 0.31,
                "ftruncate": 0.01, "getdents64": 0.02, "mkdir": 0.01, "openat": 0.06,
                "pread64": 0.55, "pwrite64": 1.87, "stat": 0.31, "unlink": 0.03,
            },
        ),
        "receive batch": Cost(
            functions=3.751, statements=0.041, steps=77.542, peak=870,
            system={
                "close": 0.005, "fcntl": 0.026, "flock": 0.007, "ftruncate": 0.001,
                "getdents64": 0.002, "mkdir": 0.001, "openat": 0.005, "pread64": 0.136,
                "pwrite64": 0.263, "stat": 0.011, "unlink": 0.003,
            },
        ),
        "idle": Cost(
            functions=208.1, statements=0, steps=0, peak=None,
            system={
                "openat": 1,
            },
        ),
    },
    "fs": {
        "send": Cost(
            functions=199.03, statements=0, steps=0, peak=None,
            system={
                "fdatasync": 1, "flock": 4, "pwrite64": 1, "stat": 1.01,
            },
        ),
        "put": Cost(
            functions=213.06, statements=0, steps=0, peak=None,
            system={
                "fdatasync": 1, "flock": 4, "pwrite64": 1, "stat": 1.01,
            },
        ),
        "send batch": Cost(
            functions=13.231, statements=0, steps=0, peak=1322,
            system={
                "fdatasync": 0.001, "flock": 0.004, "pwrite64": 0.001, "stat": 0.001,
            },
        ),
        "ship": Cost(
            functions=0.226, statements=0, steps=0, peak=1065,
            system={
                "flock": 0.004, "pread64": 0.001, "pwrite64": 0.002, "stat": 0.002,
            },
        ),
        "accept": Cost(
            functions=9.221, statements=0, steps=0, peak=982,
            system={
                "fdatasync": 0.001, "flock": 0.004, "pwrite64": 0.002, "stat": 0.001,
            },
        ),
        "receive": Cost(
            functions=46.65, statements=0, steps=0, peak=None,
            system={
                "close": 0.07, "fallocate": 0.01, "fcntl": 0.01, "flock": 0.39,
                "ftruncate": 0.01, "getdents64": 0.02, "mkdir": 0.01, "openat": 0.06,
                "pread64": 0.01, "pwrite64": 0.15, "stat": 0.33, "unlink": 0.03,
            },
        ),
        "receive batch": Cost(
            functions=0.832, statements=0, steps=0, peak=1033,
            system={
                "close": 0.005, "flock": 0.015, "ftruncate": 0.001, "getdents64": 0.002,
                "mkdir": 0.001, "openat": 0.005, "pread64": 0.002, "pwrite64": 0.003,
                "stat": 0.013, "unlink": 0.003,
            },
        ),
        "idle": Cost(
            functions=208.1, statements=0, steps=0, peak=None,
            system={
                "openat": 1,
            },
        ),
    },
}  # fmt: skip
