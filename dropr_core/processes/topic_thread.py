"""The thread that copies what is published, in whichever process of a node has it.

Owns that one process does it at a time, on one of the machines that share a store, and that another goes on when that
one has died. Must not know how copies are made.
"""

import contextlib
import logging
import threading

from dropr_core.api.consumer import Consumer
from dropr_core.api.runtime import Runtime
from dropr_core.api.subscriptions import REQUESTS
from dropr_core.delivery.fan_out import FanOut
from dropr_core.errors import Closed, DroprError, Held
from dropr_core.model import topics
from dropr_core.processes.election import Office, Unshared
from dropr_core.system.locks import FileLock
from dropr_core.system.notifier import LOOK_AGAIN


class TopicThread:
    """Of one process; does nothing where a node has no topics."""

    def __init__(self, runtime: Runtime, log: logging.Logger) -> None:
        self._runtime, self._log = runtime, log
        self._fan_out = FanOut(runtime, log)
        self._stopping = threading.Event()
        self._thread: threading.Thread | None = None

    def start(self) -> None:
        """Begin, if there are topics now and it has not begun; called again when there may be. Raises StoreError."""
        begun = self._thread is not None or self._stopping.is_set()
        if not begun and self._fan_out.subscriptions.topics():
            self._thread = threading.Thread(target=self._run, name="topics", daemon=True)
            self._thread.start()

    def stop(self) -> None:
        """End after the batch at hand; safe twice."""
        self._stopping.set()
        if self._thread is not None:
            with contextlib.suppress(DroprError):
                self._wake()
            self._thread.join(2 * LOOK_AGAIN)

    def _run(self) -> None:
        lock = FileLock(self._runtime.config.data / "copying.lock")
        said = ""
        while not self._stopping.is_set():
            try:
                lock.acquire("copies what is published")
            except Held:
                self._stopping.wait(LOOK_AGAIN)
                continue
            except OSError as error:
                said = self._say(said, str(error))
                self._stopping.wait(LOOK_AGAIN)
                continue
            office: Office | None = None
            try:
                office = self._elected()
                if office is not None:
                    self._fan_out.look()
                while office is not None and office.holds() and not self._stopping.is_set():
                    self._serve(office)
                    said = ""
            except Closed:
                return
            except (DroprError, OSError) as error:
                said = self._say(said, str(error))
                self._stopping.wait(LOOK_AGAIN)
            finally:
                if office is not None:
                    office.release()
                lock.release()
            if office is None:
                self._stopping.wait(LOOK_AGAIN)

    def _elected(self) -> Office | None:
        """The right to copy, of this machine among those that share the store; None: another one has it."""
        shared = self._runtime.storage.shared
        return Unshared() if shared is None else shared.elect("topics", self._wake)

    def _wake(self) -> None:
        self._runtime.notifier.notify(topics.inbox(REQUESTS))

    def _serve(self, office: Office) -> None:
        """Until the topics change, or who is behind, or another machine copies."""
        names = self._fan_out.channels()
        consumer = Consumer(self._runtime, names, label="topics")
        try:
            looks = 0
            while not self._stopping.is_set() and office.holds() and self._fan_out.channels() == names:
                consumer.prepare()
                if self._fan_out.turn(consumer):
                    looks = 0
                elif looks:
                    consumer.wait(None)
                    looks = 0
                else:
                    looks += 1
        finally:
            consumer.close()

    def _say(self, said: str, text: str) -> str:
        if text != said:
            self._log.warning("what is published is not copied now, it waits: %s", text)
        return text


__all__ = ["TopicThread"]
