"""Many requests at once without polling: curl's multi interface under a selector.

Owns the multi handle, the pool of slots and the timers. Must be used by one thread at a time, but for `sleep`, while
which another one may `begin` a request; must not know where requests come from.
"""

import heapq
import math
import selectors
from collections.abc import Callable
from time import monotonic

import pycurl  # type: ignore[import-untyped]

from dropr_core.contracts.transport import FileTail
from dropr_core.errors import DroprError, Unanswered, Unreachable
from dropr_transport_curl.file_slot import FileSlot
from dropr_transport_curl.options import Options
from dropr_transport_curl.slot import LongSlot, Request, Slot
from dropr_transport_curl.verdict import failed

Ready = list[tuple[selectors.SelectorKey, int]]

_SPARE = 64
"""Handles kept for later; more are made and thrown away as needed."""

_EVENTS = {
    pycurl.POLL_IN: selectors.EVENT_READ,
    pycurl.POLL_OUT: selectors.EVENT_WRITE,
    pycurl.POLL_INOUT: selectors.EVENT_READ | selectors.EVENT_WRITE,
}


class Engine:
    """Drives transfers: `sleep` for the `pause`, then `turn` does what is due."""

    def __init__(self, options: Options, wake: int, on_wake: Callable[[], None]) -> None:
        self._options, self._wake, self._on_wake = options, wake, on_wake
        self._selector = selectors.DefaultSelector()
        self._selector.register(wake, selectors.EVENT_READ)
        self._multi = pycurl.CurlMulti()
        self._multi.setopt(pycurl.M_SOCKETFUNCTION, self._on_socket)
        self._multi.setopt(pycurl.M_TIMERFUNCTION, self._on_timer)
        self._multi.setopt(pycurl.M_MAXCONNECTS, options.keep)
        self._timer: float | None = None
        self._sleeps_until = 0.0
        """When `sleep` ends by itself."""
        self._linger = 0.0
        """Half of the time after which something would be due for the latest request. The sleep ends then, though there
        is nothing to do by now: else each message would have to end a sleep without an end.
        """
        self._busy: dict[pycurl.Curl, Slot] = {}
        self._spare: dict[type[Slot], list[Slot]] = {Slot: [], LongSlot: [], FileSlot: []}
        self._wants: dict[int, int] = {}
        """The events of each socket that curl waits for."""
        self._files: dict[FileSlot, int] = {}
        """Requests of which the kernel sends the end, and the sockets that it goes into; -1: not yet, or no more."""
        self._blind = False
        """Whether this curl does not tell which socket a request has, as some do not before the request has ended."""
        self._looks: list[tuple[float, int, int, Slot]] = []
        self._count = 0

    # ── what curl wants ──────────────────────────────────────────────────────────────────────────

    def _on_socket(self, what: int, fd: int, _multi: object, _data: object) -> None:
        if what == pycurl.POLL_REMOVE:
            self._wants.pop(fd, None)
            for slot, line in self._files.items():
                if line == fd:  # it may be closed, and be another one's soon
                    self._files[slot] = -1
        elif what in _EVENTS:
            self._wants[fd] = _EVENTS[what]
        self._watch(fd)

    def _watch(self, fd: int) -> None:
        """Listen to a socket for all who want that."""
        events = self._wants.get(fd, 0)
        if events and fd in self._files.values():
            events |= selectors.EVENT_WRITE
        known = self._selector.get_map().get(fd)
        if known is None:
            if events:
                self._selector.register(fd, events)
        elif not events:
            self._selector.unregister(fd)
        elif events != known.events:
            self._selector.modify(fd, events)

    def _on_timer(self, milliseconds: int) -> None:
        self._timer = None if milliseconds < 0 else monotonic() + milliseconds / 1000

    # ── turning ──────────────────────────────────────────────────────────────────────────────────

    def add(self, request: Request) -> None:
        """Start a request; its future is settled in some later `turn`."""
        kind: type[Slot] = Slot
        if request.tail is not None:
            may = not self._blind and isinstance(request.tail, FileTail) and FileSlot.may(request.url)
            kind = FileSlot if may else LongSlot
        spare = self._spare[kind]
        slot = spare.pop() if spare else None
        try:
            slot = slot or kind(self._options)
            slot.load(request)
        except (pycurl.error, ValueError) as error:  # such as an unreadable option of TLS
            if slot:
                slot.close()
            request.future.set_exception(Unreachable(f"{request.url}: curl does not take this: {error}"))
            return
        self._busy[slot.curl] = slot
        if isinstance(slot, FileSlot):
            self._files[slot] = -1
        self._note(slot)
        self._multi.add_handle(slot.curl)

    def begin(self, request: Request) -> bool:
        """Start a request and send what goes at once, while another thread is in `sleep`; whether that may sleep on."""
        self.add(request)
        self._timer = None
        _, running = self._multi.socket_action(pycurl.SOCKET_TIMEOUT, 0)
        due, now = self._due(), monotonic()
        self._linger = now if due is None else (now + due) / 2
        # What has ended already, what is due before the sleep ends, and a file that may go now are for that thread.
        waits = any(line < 0 and slot.unsent for slot, line in self._files.items())
        return running == len(self._busy) and (due is None or due >= self._sleeps_until) and not waits

    def holds(self, request: Request) -> bool:
        """Whether the request is under way."""
        return any(slot.request is request for slot in self._busy.values())

    def sleep(self, pause: float | None) -> Ready:
        """Wait for the next thing to do, at most `pause`."""
        return self._selector.select(pause)

    def turn(self, ready: Ready) -> None:
        """Do what there is to do."""
        for key, mask in ready:
            if key.fd == self._wake:
                self._on_wake()
            elif mask := mask & self._wants.get(key.fd, 0):
                bits = (mask & selectors.EVENT_READ and pycurl.CSELECT_IN) | (
                    mask & selectors.EVENT_WRITE and pycurl.CSELECT_OUT
                )
                self._multi.socket_action(key.fd, bits)
        if self._timer is not None and self._timer <= monotonic():
            self._timer = None
            self._multi.socket_action(pycurl.SOCKET_TIMEOUT, 0)
        self._harvest()
        if self._files:
            self._pour({key.fd for key, mask in ready if mask & selectors.EVENT_WRITE})
        self._look()

    def pause(self) -> float | None:
        """Seconds until there is something to do by time alone; None: never."""
        now, looks = monotonic(), self._looks
        while looks and looks[0][3].turn != looks[0][2]:
            heapq.heappop(looks)  # its request has ended
        due = self._due()
        if due is None and self._linger > now:
            due = self._linger
        self._sleeps_until = math.inf if due is None else due
        return None if due is None else max(0.0, due - now)

    def _due(self) -> float | None:
        if not self._busy:
            return None  # curl's last timer may be that of a request that has ended
        due = self._looks[0][0] if self._looks else None
        return due if self._timer is None or (due is not None and due < self._timer) else self._timer

    def _pour(self, writable: set[int]) -> None:
        """Have the kernel send what follows on requests whose beginning curl has sent."""
        for slot, fd in list(self._files.items()):
            if fd < 0:
                found = slot.line() if slot.unsent else None
                if found == -1:
                    self._blind = True
                    request = self._free(slot)
                    request.future.set_exception(Unanswered(f"{request.url}: curl does not tell a request's socket"))
                    continue
                # curl waits for the answer once it has sent all
                if found is None or self._wants.get(found) != selectors.EVENT_READ:
                    continue
                self._files[slot] = found
            elif fd not in writable:
                continue
            line = self._files[slot]
            error = slot.pour(line)
            if error is not None:
                self._free(slot).future.set_exception(error)
            elif not slot.unsent:
                self._files[slot] = -1
            self._watch(line)

    def _harvest(self) -> None:
        left = 1
        while left:
            left, good, bad = self._multi.info_read()
            for curl in good:
                self._end(self._busy[curl], 0, "")
            for curl, number, text in bad:
                self._end(self._busy[curl], number, text)

    def _end(self, slot: Slot, number: int, text: str) -> None:
        result = slot.result(number, text)
        future = self._free(slot).future
        if isinstance(result, bytes):
            future.set_result(result)
        else:
            future.set_exception(result)

    def _free(self, slot: Slot) -> Request:
        self._multi.remove_handle(slot.curl)
        del self._busy[slot.curl]
        if isinstance(slot, FileSlot) and (line := self._files.pop(slot)) >= 0:
            self._watch(line)
        request = slot.unload()
        slot.turn += 1  # what was noted about it is void
        spare = self._spare[type(slot)]
        if len(spare) < _SPARE:
            spare.append(slot)
        else:
            slot.close()
        return request

    # ── stuck requests and the end ───────────────────────────────────────────────────────────────

    def _note(self, slot: Slot) -> None:
        self._count += 1
        heapq.heappush(self._looks, (monotonic() + slot.pause_between_looks(), self._count, slot.turn, slot))

    def _look(self) -> None:
        now = monotonic()
        while self._looks and self._looks[0][0] <= now:
            _, _, turn, slot = heapq.heappop(self._looks)
            if slot.turn != turn:
                continue
            error = slot.look()
            if error:
                self._free(slot).future.set_exception(error)
            else:
                self._note(slot)

    def give_up(self, owner: object | None, why: str) -> None:
        """End the requests of one owner (None: all) now."""
        for slot in list(self._busy.values()):
            if owner is None or (slot.request is not None and slot.request.owner is owner):
                started = slot.started
                request = self._free(slot)
                error: DroprError = failed(request.url, -1, why, started=started)
                request.future.set_exception(error)

    def close(self) -> None:
        """Release sockets and handles; nothing may be under way any more."""
        for spare in self._spare.values():
            for slot in spare:
                slot.close()
            spare.clear()
        self._looks.clear()
        self._multi.close()
        self._selector.close()
