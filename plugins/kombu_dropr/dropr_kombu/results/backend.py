"""`result_backend = "dropr://"`.

Owns what Celery's backends are asked for: states, results, groups and chords, and waiting for them asleep. Where
something is kept is in table.py, how it gets there in post.py.
"""

import contextlib
import os
import time
import weakref
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

from celery import states
from celery.app.task import Context
from celery.backends.base import KeyValueStoreBackend
from celery.canvas import maybe_signature
from celery.exceptions import ChordError, ImproperlyConfigured, TimeoutError  # noqa: A004 - Celery's own
from celery.result import ResultSet, allow_join_result
from kombu.utils.encoding import bytes_to_str, ensure_bytes

from dropr_core.errors import DroprError, UsageError
from dropr_kombu.address import SCHEME, config_of
from dropr_kombu.homes import CHORD, homes_of
from dropr_kombu.nodes import acquire
from dropr_kombu.results.post import CHANNEL, Post, wait
from dropr_kombu.results.table import Entry


class DroprBackend(KeyValueStoreBackend):
    """Results at the node of whoever asked for them."""

    key_t = staticmethod(bytes_to_str)
    supports_native_join = True
    persistent = True

    def __init__(self, app: Any, url: str | None = None, **kwargs: Any) -> None:
        """Raises ImproperlyConfigured if no YAML file is named here nor by the broker's URL."""
        super().__init__(app, url=url, **kwargs)
        self.always_retry = True  # a store that is full or busy now: the result waits, and is not lost
        named = url if url and url.rstrip("/") not in {"dropr:", "dropr"} else self._of_broker()
        options = self.app.conf.get("result_backend_transport_options") or {}
        try:
            self._shared = acquire(config_of(named))
        except UsageError as error:
            raise ImproperlyConfigured(f"result_backend: {error}") from None
        self.post = Post(self._shared, str(options.get("channel") or CHANNEL))
        self._leave = weakref.finalize(self, _leave, self.post, self._shared, os.getpid())
        _BACKENDS.add(self.post)

    def close(self) -> None:
        """Leave the node to its other users; Celery calls nothing of the kind, and the end of the process does it."""
        self._leave()

    def _of_broker(self) -> str:
        broker = self.app.conf.broker_url or self.app.conf.broker_write_url or ""
        first: str = broker if isinstance(broker, str) else next(iter(broker), "")
        return first.partition(";")[0] if first.startswith(SCHEME) else ""

    # ── keys and values ──────────────────────────────────────────────────────────────────────────

    def get(self, key: str) -> bytes | None:
        """What is kept under a key, when what has arrived is taken in."""
        return self.mget([key])[0]

    def mget(self, keys: Iterable[str]) -> list[bytes | None]:
        """The same of many."""
        self.post.take_in()
        wanted = [bytes_to_str(key) for key in keys]
        found = self.post.table.get(wanted)
        return [found.get(key) for key in wanted]

    def set(self, key: str, value: Any) -> None:
        """Keep something at this node."""
        self.post.keep(self._entry(key, value))

    def _set_with_state(self, key: str, value: Any, state: str) -> None:
        self.post.keep(self._entry(key, value, final=state == states.SUCCESS))

    def delete(self, key: str) -> None:
        """Forget something."""
        self.post.table.delete(bytes_to_str(key))

    def _entry(self, key: str, value: Any, *, final: bool = False) -> Entry:
        return Entry(bytes_to_str(key), ensure_bytes(value), final, self._until())

    def _until(self) -> float | None:
        return time.time() + float(self.expires) if self.expires else None

    def cleanup(self) -> None:
        """Forget what is past `result_expires`."""
        self.post.take_in()
        self.post.table.clean()

    def _store_result(self, task_id: str, result: Any, state: str, traceback: Any = None, request: Any = None,
                      **_kwargs: Any) -> Any:  # fmt: skip
        meta = self._get_result_meta(result=result, state=state, traceback=traceback, request=request)
        meta["task_id"] = bytes_to_str(task_id)
        entry = self._entry(self.get_key_for_task(task_id), self.encode(meta), final=state == states.SUCCESS)
        self.post.deliver(entry, homes_of(request) or self._shared.homes.get(task_id, []))
        return result

    def exception_safe_to_retry(self, exc: Exception) -> bool:
        """Whether the store may take it later."""
        return isinstance(exc, DroprError) and exc.retryable

    # ── waiting ──────────────────────────────────────────────────────────────────────────────────

    def wait_for(
        self,
        task_id: str,
        timeout: float | None = None,
        interval: float | None = None,  # noqa: ARG002
        no_ack: bool = True,  # noqa: ARG002
        on_interval: Any = None,
    ) -> Any:
        """What became of a task; asleep until it is known. Raises Celery's TimeoutError."""
        self._ensure_not_eager()
        ends = None if timeout is None else time.monotonic() + timeout
        with self.post.watch() as watch:
            while True:
                watch.prepare()
                meta = self.get_task_meta(task_id)
                if meta["status"] in states.READY_STATES:
                    return meta
                if on_interval:
                    on_interval()
                self._go_on(ends)
                wait(watch, ends)

    def get_many(self, task_ids: Iterable[str], timeout: float | None = None, interval: float | None = None,  # noqa: ARG002
                 no_ack: bool = True, on_message: Any = None, on_interval: Any = None,
                 max_iterations: int | None = None, READY_STATES: Any = states.READY_STATES,  # noqa: N803 - Celery's
                 ) -> Iterator[tuple[str, Any]]:  # fmt: skip
        """What became of many, each as soon as it is known. Raises Celery's TimeoutError."""
        left = {bytes_to_str(one) for one in task_ids}
        ends = None if timeout is None else time.monotonic() + timeout
        rounds = 0
        with self.post.watch() as watch:
            while left:
                watch.prepare()
                for task_id, meta in super().get_many(
                    left, interval=0, no_ack=no_ack, on_message=on_message, max_iterations=1, READY_STATES=READY_STATES
                ):
                    left = left - {task_id}
                    yield task_id, meta
                rounds += 1
                if not left or (max_iterations and rounds >= max_iterations):
                    return
                if on_interval:
                    on_interval()
                self._go_on(ends)
                wait(watch, ends)

    def _go_on(self, ends: float | None) -> None:
        if ends is not None and time.monotonic() >= ends:
            raise TimeoutError("The operation timed out.")

    # ── chords ───────────────────────────────────────────────────────────────────────────────────

    def apply_chord(self, header_result_args: Sequence[Any], body: Any, **_kwargs: Any) -> None:  # noqa: ARG002
        """Remember the group; the tasks of its header do the rest."""
        self.ensure_chords_allowed()
        self.app.GroupResult(*header_result_args).save(backend=self)

    def set_chord_size(self, group_id: str, chord_size: int) -> None:
        """How many tasks a header has: kept here, and carried by the last of them to the node that runs it."""
        self.post.table.expect(group_id, chord_size, self._until())
        self._shared.chord_sizes[group_id] = chord_size

    def on_chord_part_return(self, request: Context, state: str, result: Any, **_kwargs: Any) -> None:
        """A task of a header has ended; with the last one the body is sent."""
        group, index = request.group, request.group_index
        if not group or not request.chord:
            return
        size, table = request.get(CHORD), self.post.table
        if size is not None:
            table.expect(group, int(size), self._until())
        # Tasks of a group within the header come with the place of that group: several have one.
        part = f"{index if isinstance(index, int) else 0:010d}-{request.id}"
        value = self.encode([request.id, state, self.encode_result(result, state)])
        parts = table.add_part(group, part, ensure_bytes(value), self._until())
        if parts is None:
            return
        body = maybe_signature(request.chord, app=self.app)
        try:
            body.delay(self._nested(group) or [self._value(*self.decode(part)) for part in parts])
        except ChordError as error:
            self.chord_error_from_stack(body, error)
        except Exception as error:  # the body could not be sent: say so in its place
            self.chord_error_from_stack(body, ChordError(f"Callback error: {error!r}"))

    def _nested(self, group: str) -> list[Any] | None:
        """Results of a header with groups in it, each in its place, where the application's node ran it itself."""
        header = self.app.GroupResult.restore(group, backend=self)
        if header is None or not any(isinstance(one, ResultSet) for one in header.results):
            return None
        with allow_join_result():
            try:
                return header.join_native(timeout=self.app.conf.result_chord_join_timeout)
            except Exception as error:
                raise ChordError(f"Dependency of {group} raised {error!r}") from error

    def _value(self, task_id: str, state: str, value: Any) -> Any:
        if state in states.EXCEPTION_STATES:
            value = self.exception_to_python(value)
        if state in states.PROPAGATE_STATES:
            raise ChordError(f"Dependency {task_id} raised {value!r}") from value
        return value


_BACKENDS: "weakref.WeakSet[Post]" = weakref.WeakSet()


def _leave(post: Post, shared: Any, pid: int) -> None:
    if pid == os.getpid():
        with contextlib.suppress(DroprError):  # it ends: what a store in trouble holds for it ends with it
            post.close()
            shared.release()


def _begin_anew_in_child() -> None:
    for post in list(_BACKENDS):
        post.begin_anew()


os.register_at_fork(after_in_child=_begin_anew_in_child)
