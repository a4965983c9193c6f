"""The demo's story: who sends what to whom, when the blows fall, and what must be true at the end.

Owns the order of events and the deadline. Puts the parts of this package together; what is good and
what is not is decided in ``tally``.
"""

import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import ClassVar

import attrs

from dropr_core.api.node import Node
from dropr_core.api.sent import Sent
from dropr_core.demo.chaos import Chaos
from dropr_core.demo.handlers import answer
from dropr_core.demo.mail import FileMail, Orders
from dropr_core.demo.nodes import Village, free_port, make_key, receiver_config, shop_config
from dropr_core.demo.readers import Readers, enter_file, enter_json
from dropr_core.demo.report import Outcome
from dropr_core.demo.road import Road
from dropr_core.demo.screen import Screen
from dropr_core.demo.tally import DemoResult, Recovery, Stream
from dropr_core.errors import ConfigError, DeliveryFailed, DroprError, PluginError, WaitTimeout

STEPS = 100
"""The small messages are sent in so many batches; each brings jobs and news along."""
JOBS_PER_STEP, NEWS_PER_STEP = 2, 5


@attrs.frozen(kw_only=True)
class Settings:
    """What may be chosen."""

    home: Path
    files: Path | None = None
    """A directory; None: the running Python's standard library."""
    messages: int = 100_000
    storage: str = "sqlite"
    url: str = "http://127.0.0.1:{port}"
    postgres: str | None = None
    """Of a site: the address of a database; None: a server of its own."""
    deadline: float = 120.0
    """Seconds for everything."""


class OutOfTime(DroprError):
    """The deadline passed while something was still missing."""


class Scenario:
    """One run. `run` once, then it is used up."""

    NEWS: ClassVar[tuple[str, ...]] = ("multicast → warehouse", "multicast → berlin")
    NODES = "shop, warehouse and berlin, each under its angel"

    def __init__(self, settings: Settings, screen: Screen) -> None:
        self._settings, self._screen = settings, screen
        self._started = time.monotonic()
        self._ends = self._started + settings.deadline
        self._village = Village(settings.home)
        self._readers = Readers()
        self._files = Stream("files → warehouse")
        self._orders = Stream("messages → warehouse")
        self._news = tuple(Stream(name) for name in self.NEWS)
        self._originals: dict[int, str] = {}
        self._file_bytes = self._skipped = self._file_total = 0
        self._jobs: list[tuple[Sent, bytes, int]] = []
        self._good_receipts = self._bad_receipts = 0
        self._first_send = 0.0
        self._look_at = 0.0
        self._chaos = Chaos(self._village, [], self._orders)
        self._shop: Node

    def run(self) -> Outcome:
        """Everything; the processes are gone when it returns. Raises ConfigError, PluginError."""
        with ExitStack() as stack:
            self._screen.say(f"starting {self.NODES}")
            missing = ""
            stack.callback(self._village.close)
            try:
                self._start(stack)
                self._act()
                self._finish()
                # Until the last drain has ended without an error, nobody knows that nothing came twice.
                self._readers.stop()
                self._watch()
            except (ConfigError, PluginError):
                raise  # the user's word, not a promise of ours
            except DroprError as error:
                missing = str(error)
                self._screen.say(missing, "red")
            self._readers.stop()
            if self._first_send:
                self._show()
                self._screen.breathe(last=True)
            return self._outcome(missing)

    # ── the three acts ───────────────────────────────────────────────────────────────────────────

    def _start(self, stack: ExitStack) -> None:
        road = Road(port := free_port())
        stack.callback(road.close)
        self._chaos = Chaos(self._village, [road], self._orders)
        make_url, storage, key = self._settings.url.format, self._settings.storage, make_key()
        here, there = make_url(port=port), make_url(port=(berlin_port := free_port()))
        assert berlin_port != port
        self._village.add("warehouse", receiver_config(here, key, storage, worker=True))
        self._village.add("berlin", receiver_config(there, key, storage, worker=False))
        peers = {"warehouse": make_url(port=road.start()), "berlin": there}
        self._village.add("shop", shop_config(peers, key, storage))
        nodes = self._open(("warehouse", "berlin", "shop"), stack)
        for name in nodes:
            self._village.start(name)
        warehouse, berlin = nodes["warehouse"], nodes["berlin"]
        self._read_warehouse(warehouse)
        self._readers.start(berlin, {"news": enter_json(self._news[1])}, 100)
        self._until_ready()

    def _open(self, names: Sequence[str], stack: ExitStack) -> dict[str, Node]:
        """The nodes as this process has them, the shop among them. Raises PluginError."""
        nodes = {name: stack.enter_context(Node.open(self._village.file(name))) for name in names}
        # The stack closes nodes first: their readers must be gone by then.
        stack.callback(self._readers.stop)
        self._shop = nodes["shop"]
        for node in nodes.values():
            if "processes" not in node.runtime.storage.abilities:
                name = node.config.storage.use
                raise PluginError(
                    f"storage '{name}' serves one process alone, and the demo is about many; name another"
                )
        return nodes

    def _read_warehouse(self, node: Node) -> None:
        self._readers.start(node, {"files": enter_file(self._files, self._originals)}, 25)
        self._readers.start(node, {"orders": enter_json(self._orders), "news": enter_json(self._news[0])}, 1000)

    def _until_ready(self) -> None:
        self._until(lambda: self._village.ready(self._village.names), "the nodes' processes did not come up")
        self._screen.say("all processes are up")

    def _act(self) -> None:
        self._send_files()
        orders, sent, blows = Orders(), 0, self._blows()
        due = {STEPS * (index + 1) // (len(blows) + 1): blow for index, blow in enumerate(blows)}
        for step in range(STEPS):
            target = self._settings.messages * (step + 1) // STEPS
            self._send_step(orders, step, target - sent)
            sent = target
            if step + 1 in due:
                self._strike(due[step + 1])
            self._watch()

    def _blows(self) -> list[Callable[[], str]]:
        """The trouble, in its order; each says what it did, or nothing where it cannot be made yet."""
        return [
            lambda: self._chaos.kill("shop", "daemon"),
            lambda: self._chaos.kill("warehouse", "server"),
            self._chaos.close_road,
        ]

    def _finish(self) -> None:
        self._until(lambda: self._chaos.calm, "no mail flowed after the last trouble")
        self._until(lambda: all(stream.complete for stream in self._streams), "not everything came")
        for sent, body, number in self._jobs:
            self._receive_receipt(sent, body, number)
        # Nothing under way any more: what could still come twice would have come by now.
        self._until(lambda: not self._shop.outbox.lanes(), "the shop's outbox did not get empty")

    # ── sending ──────────────────────────────────────────────────────────────────────────────────

    def _send_files(self) -> None:
        mail = FileMail.of(self._settings.files, self._shop.config.limits.max_body)
        paths = mail.paths()
        self._file_total = len(paths)
        self._screen.say(f"sending {len(paths):,} files of {mail.root}")
        self._first_send, number = time.monotonic(), 0
        for group in mail.groups(paths):
            with self._shop.batch() as batch:
                for offset, piece in enumerate(group):
                    self._originals[number + offset] = piece.sha256
                    batch.send(
                        piece.body, channel="files", content_type="application/octet-stream",
                        headers={"n": str(number + offset), "path": piece.name, "sha256": piece.sha256},
                    )  # fmt: skip
            number += len(group)
            self._file_bytes += sum(piece.size for piece in group)
            self._files.sent(len(group))
            self._watch()
        self._skipped, self._file_total = mail.skipped, number

    def _send_step(self, orders: Orders, step: int, count: int) -> None:
        with self._shop.batch() as batch:
            for value, priority in orders.take(count):
                batch.send(value, channel="orders", priority=priority)
            for number in range(step * NEWS_PER_STEP, (step + 1) * NEWS_PER_STEP):
                batch.send({"n": number, "count": number, "text": "closed on Sunday"}, channel="news")
        self._orders.sent(count)
        for stream in self._news:
            stream.sent(NEWS_PER_STEP)
        for number in range(step * JOBS_PER_STEP, (step + 1) * JOBS_PER_STEP):
            body = f"job {number}: ".encode() + bytes(range(256))
            self._jobs.append((self._shop.send(body, channel="jobs", headers={"n": str(number)}), body, number))

    def _strike(self, blow: Callable[[], str]) -> None:
        self._until(lambda: self._chaos.calm, "no mail flowed after the trouble before")
        done: list[str] = []

        def struck() -> bool:
            done.append(blow())
            return bool(done[-1])

        self._until(struck, "there was no process to kill")
        self._screen.say(done[-1], "yellow")

    # ── looking ──────────────────────────────────────────────────────────────────────────────────

    def _receive_receipt(self, sent: Sent, body: bytes, number: int) -> None:
        while True:
            try:
                good = sent.wait(min(1.0, self._left("not every receipt came home"))) == answer(body, number)
            except WaitTimeout:
                self._watch()
                continue
            except DeliveryFailed as error:
                self._screen.say(str(error), "red")
                good = False
            break
        self._good_receipts += good
        self._bad_receipts += not good
        self._watch()

    def _until(self, condition: Callable[[], bool], what: str) -> None:
        while not condition():
            self._left(what)
            self._watch()
            time.sleep(0.02)

    def _left(self, what: str) -> float:
        left = self._ends - time.monotonic()
        if left <= 0:
            raise OutOfTime(f"{what} within {self._settings.deadline:g} s")
        return left

    def _watch(self) -> None:
        """What must be looked at all the time: the road, the readers, the angels, the bars."""
        recovery = self._chaos.tick(self._screen.say)
        if recovery is not None and recovery.seconds is not None:
            self._screen.say(f"mail flows again after {recovery.seconds:.2f} s", "green")
            self._recovered()
        if self._readers.error is not None:
            error, self._readers.error = self._readers.error, None
            raise DroprError(f"a reader ended by {type(error).__name__}: {error}")
        now = time.monotonic()
        if now < self._look_at:
            return
        self._look_at = now + 0.1
        for name in self._village.names:
            self._village.report(name)  # raises if its angel is gone
        if self._first_send:
            self._show()

    def _recovered(self) -> None:
        """The last trouble is got over."""

    def _show(self) -> None:
        totals = (self._file_total, self._settings.messages, *(STEPS * NEWS_PER_STEP for _ in self._news))
        for stream, total in zip(self._streams, totals, strict=True):
            self._screen.show(stream.name, stream.progress[0], total)
        self._screen.show("receipts compared", self._good_receipts, STEPS * JOBS_PER_STEP)
        self._screen.breathe()

    @property
    def _streams(self) -> tuple[Stream, ...]:
        return (self._files, self._orders, *self._news)

    def _outcome(self, missing: str) -> Outcome:
        rows = tuple(stream.row() for stream in self._streams)
        recoveries = self._chaos.recoveries
        if not missing and len(recoveries) < len(self._blows()):
            recoveries = (*recoveries, Recovery("trouble that was never made", None))
        verdict = DemoResult(rows, len(self._jobs), self._good_receipts, self._bad_receipts, recoveries, missing)
        last = max((stream.last_at for stream in self._streams), default=0.0)
        names = () if verdict.good else self._village.names
        return Outcome(
            verdict=verdict,
            seconds=max(0.0, last - self._first_send) if self._first_send else 0.0,
            total_seconds=time.monotonic() - self._started,
            messages=sum(row.received for row in rows) + self._good_receipts,
            file_bytes=self._file_bytes,
            files_skipped=self._skipped,
            restarts=self._village.restarts(),
            tails={name: self._village.tail(name) for name in names},
        )
