"""An application of Celery as anybody's: nothing in it knows of dropr but its two URLs."""

import os
import signal
import time
from pathlib import Path

from celery import Celery
from celery.concurrency.asynpool import AsynPool


def note(directory, word):
    """One line for each effect, whole whoever else writes."""
    fd = os.open(Path(directory) / "effects", os.O_WRONLY | os.O_APPEND | os.O_CREAT)
    try:
        os.write(fd, f"{word}\n".encode())
    finally:
        os.close(fd)


def make(broker, marks=None, **more):
    """The application with its tasks; ``marks``: where they leave word of what they did."""
    app = Celery("parcels", broker=broker, backend="dropr://", set_as_current=False)
    app.conf.update(
        broker_connection_retry_on_startup=True, task_acks_late=True, task_reject_on_worker_lost=True,
        worker_prefetch_multiplier=1, worker_lost_wait=0.1, worker_hijack_root_logger=False,
        **more,
    )  # fmt: skip

    @app.task(name="add", shared=False)
    def add(a, b):
        return a + b

    @app.task(name="same", shared=False)
    def same(value):
        return value

    @app.task(name="total", shared=False)
    def total(values):
        return sum(values)

    @app.task(name="work", shared=False)
    def work(number):
        note(marks, f"work {number}")
        return number * 2

    @app.task(name="fail", shared=False)
    def fail(number):
        raise KeyError(number)

    @app.task(name="stubborn", shared=False, bind=True, max_retries=5)
    def stubborn(self):
        if self.request.retries < 2:
            raise self.retry(countdown=0.01)
        return self.request.retries

    @app.task(name="poison", shared=False)
    def poison():
        note(marks, "poison")
        os.kill(os.getpid(), signal.SIGKILL)

    @app.task(name="linger", shared=False)
    def linger(number):
        note(marks, f"begun {number} by {os.getpid()}")
        gate = Path(marks) / "gate"
        while not gate.exists():
            time.sleep(0.02)
        note(marks, f"done {number}")
        return number

    @app.task(name="outer", shared=False)
    def outer(number):
        return add.delay(number, 1).id

    return app


if "CELERY_TEST_BROKER" in os.environ:
    # Celery looks for children that died every five seconds; the tests do not wait for that.
    AsynPool.timers = property(lambda self: {self.maintain_pool: 0.1})
    app = make(
        os.environ["CELERY_TEST_BROKER"],
        os.environ["CELERY_TEST_MARKS"],
        worker_state_db=None,
        task_track_started=True,
    )
