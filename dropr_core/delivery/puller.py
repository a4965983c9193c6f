"""Fetches this node's mail from one peer, because the peer cannot reach us.

Owns the fetching side of `mode: pull`: the same log-matching rule in the other direction, with our
heads as the acknowledgement. Used by the daemon's one thread. What the store refuses rests by itself
(store_trouble.py), and says nothing about the peer.
"""

import contextlib
import logging
import random
from collections import Counter
from collections.abc import Callable, Mapping

from dropr_core.api.store_trouble import READ, WRITE, StoreTrouble
from dropr_core.contracts.bodies import Bodies
from dropr_core.contracts.storage import Inbox
from dropr_core.delivery.body_download import BodyDownloads
from dropr_core.delivery.peer_client import PeerClient
from dropr_core.errors import BadEnvelope, Refused
from dropr_core.model import topics
from dropr_core.model.backoff import Backoff
from dropr_core.model.envelope import decode
from dropr_core.model.facts import FactsOf
from dropr_core.model.limits import MAX_LANES, MAX_RECEIPTS, MAX_WAIT
from dropr_core.model.names import START, Head, MessageId, StoreId
from dropr_core.protocol import greeting
from dropr_core.protocol import messages as wire
from dropr_core.protocol.batches import TOO_NEW, accept_push, refuse_lane, taken_of
from dropr_core.protocol.outcomes import from_outcome
from dropr_core.protocol.rests import GENTLY, GREETINGS, NEW_SESSION, OLD_SESSION, longest_rest
from dropr_core.system.clock import Clock
from dropr_core.system.line_rate import LineRate, besides
from dropr_core.system.log_fields import about

Event = Callable[[str, Mapping[str, object]], None]
_Name = tuple[bytes, str, int]
"""(store id, channel, priority) of a lane of the peer."""

EARLY = 3
"""Answers in a row without anything that came before their time; then the next question waits a little."""


class Puller:
    """One peer that we fetch from: greet, then one long poll after the other, and receipts beside it."""

    def __init__(
        self,
        peer: str,
        talk: PeerClient,
        inbox: Inbox,
        clock: Clock,
        *,
        node_id: bytes,
        allows: Callable[[str], bool],
        max_body: int | None,
        backoff: Backoff,
        rng: random.Random,
        notify: Callable[[str], None],
        event: Event,
        log: logging.Logger,
        bodies: Bodies | None = None,
        trouble: StoreTrouble | None = None,
    ) -> None:
        self.peer = peer
        self.down_reason: str | None = None
        self.failures = 0
        self.rest_until = self._failing_since = 0.0
        self._talk, self._inbox, self._clock = talk, inbox, clock
        self._node_id, self._allows, self._max_body = node_id, allows, max_body
        self._backoff, self._rng = backoff, rng
        self._notify, self._event, self._log = notify, event, log
        self._rate = LineRate(clock)
        self._bodies = bodies
        self._trouble = trouble or StoreTrouble(clock, event, log)
        self._downloads = None if bodies is None else BodyDownloads(peer, talk, bodies, clock, log, self._brought)
        self._answered = False
        """Whether this peer has ever answered, today or in an earlier life of this process."""
        self._asking = False
        self._telling = False
        self._news = False
        """A body was brought, or a lane may be asked for again: the request that waits knows nothing of it."""
        self._cursor: tuple[StoreId | None, int] = (None, 0)
        self._refused: dict[_Name, Head] = {}
        """How far lanes came of which nothing may come in: kept here and not in the store, and not all of them."""
        self._rejections: dict[bytes, tuple[str, str]] = {}
        """Message id → code and reason, of what was taken out for good and its sender does not know yet."""
        self._wanted: list[_Name] = []
        """Lanes whose heads the next request must say."""
        self._greetings = 0
        """Greetings in a row after which nothing else was answered."""
        self._fetched_at = 0.0
        """When we last asked for messages."""
        self._early = 0
        """Answers in a row that brought nothing and did not wait."""
        self._full_until = 0.0
        """No room for what comes: it is not asked for before, whatever else is answered."""

    def reset_backoff(self) -> None:
        """End the rest of the peer."""
        self.rest_until = 0.0

    def turn(self) -> float | None:
        """Ask and tell if it is time; the node time at which to be called again at the latest."""
        now = self._clock.now()
        if now < self.rest_until:
            return self.rest_until
        if not self._talk.session:
            if not self._asking:
                self._talk.ask(wire.HELLO, greeting.hello(self._node_id), wire.Welcome, self._greeted)
                self._asking = True
            return None
        if self._downloads is not None and self._downloads.end_rests(now):
            self._news = True  # beside the poll that is under way: that one was asked without these lanes
        takes = now >= self._full_until and not self._trouble.rests(self._accept_of)
        if takes and not self._asking:
            self._fetch(now)
        if self._news and takes and not self._telling:
            self._tell_heads()
        if not self._telling:
            self._tell_outcomes()
        downloads = None if self._downloads is None else self._downloads.wakes_at
        wakes = [self._full_until, self._trouble.wakes_at, downloads]
        return min((wake for wake in wakes if wake is not None and wake > now), default=None)

    @property
    def _accept_of(self) -> tuple[str, str, str]:
        return (WRITE, "accept", self.peer)

    def _fetch(self, now: float) -> None:
        """Say how far we are, and wait for what follows."""
        # Of a peer that was down an answer is wanted at once: only that shows that it works again.
        if self._ask(MAX_WAIT if self.down_reason is None else 0.0, self._fetched):
            self._asking, self._news, self._fetched_at = True, False, now

    def _ask(self, wait: float, done: Callable[[wire.Fetched | Exception], None]) -> bool:
        """Say how far we are and what we refused; False if the store cannot say it now."""
        heads = self._heads()
        if heads is None:
            return False
        without = [] if self._downloads is None else self._downloads.without()[:MAX_LANES]
        said = [(identity, *why) for identity, why in self._rejections.items()]

        def answered(answer: wire.Fetched | Exception) -> None:
            if not isinstance(answer, Exception):
                for identity, *_ in said:
                    self._rejections.pop(identity, None)
            done(answer)

        ask = wire.Fetch(heads[0], None, wait, without, heads[1], said)
        self._talk.ask(wire.FETCH, ask, wire.Fetched, answered, wait=wait)
        return True

    def _heads(self) -> tuple[list[tuple[bytes, str, int, int, bytes]], bool] | None:
        """How far we are in each lane, and whether these are not all: one request says no more than `MAX_LANES`.

        None while the store cannot say it.
        """
        thing = (READ, "heads", self.peer)
        if self._trouble.rests(thing):
            return None
        with self._trouble.guard(thing):
            heads: dict[_Name, Head] = {
                (lane.store, lane.channel, lane.priority): head for lane, head in self._inbox.heads(self.peer).items()
            }
            heads.update(self._refused)
            names = list(heads)
            partial = len(names) > MAX_LANES
            if partial:
                first = dict.fromkeys(self._wanted)
                names = [*first, *(name for name in names if name not in first)][:MAX_LANES]
            return [(*name, *heads.get(name, START)) for name in names], partial
        return None

    def _tell_heads(self) -> None:
        """Ask for what follows a body that was brought, beside the long poll."""
        if self._ask(0.0, self._told_heads):
            self._news, self._telling = False, True

    def _tell_outcomes(self) -> None:
        """Bring outcomes home, beside the long poll: a receipt must not wait until there is mail."""
        thing = (READ, "outcomes", self.peer)
        if self._trouble.rests(thing):
            return
        with self._trouble.guard(thing):
            log, rows = self._inbox.outcomes(self.peer, self._cursor[0], self._cursor[1], MAX_RECEIPTS)
            if rows:
                outcomes = wire.Outcomes(log, rows[-1].number, [from_outcome(row) for row in rows])
                self._talk.ask(wire.FETCH, wire.Fetch([], outcomes, 0.0), wire.Fetched, self._told)
                self._telling = True

    def _greeted(self, answer: wire.Welcome | Exception) -> None:
        self._asking = False
        if isinstance(answer, Exception):
            self._failed(answer)
            return
        self._talk.session = answer.session
        self._greetings += 1
        # Not up yet, if it was down: a peer whose store fails greets all the same.
        self._answered, self.rest_until = True, 0.0

    def _fetched(self, answer: wire.Fetched | Exception) -> None:
        self._asking = False
        if isinstance(answer, Exception):
            self._failed(answer)
            return
        self._alive()
        self._took(answer)
        now = self._clock.now()
        moved = answer.lanes or answer.unknown
        self._early = self._early + 1 if not moved and now < self._fetched_at + GENTLY else 0
        if self._early >= EARLY:  # asked again at once, such a peer would be asked without end
            self._full_until = now + GENTLY

    def _took(self, answer: wire.Fetched) -> None:
        """Mail, or a question for heads that were not said."""
        lanes = [*((part.channel, part.priority) for part in answer.lanes), *answer.unknown]
        self._wanted = [(answer.store, *lane) for lane in lanes[:MAX_LANES]]
        if answer.lanes:
            self._take_in(answer.store, answer.lanes)

    def _told_heads(self, answer: wire.Fetched | Exception) -> None:
        self._telling = False
        if isinstance(answer, Exception):
            self._failed(answer)
        else:
            self._took(answer)

    def _brought(self, store: bytes, part: wire.LanePart) -> None:
        """The body of a message that was fetched is here."""
        self._take_in(store, [part])
        self._news = True

    def _take_in(self, store: bytes, parts: list[wire.LanePart]) -> None:
        self._trouble.attempt(self._accept_of, lambda: self._accept(store, parts))

    def _accept(self, store: bytes, parts: list[wire.LanePart]) -> None:
        verdicts, channels = accept_push(
            self._inbox, self.peer, StoreId(store), parts, self._allows, self._max_body, self._bodies
        )
        for channel in channels:
            self._notify(topics.inbox(channel))
        for part, verdict in zip(parts, verdicts, strict=True):
            if verdict.missing and self._downloads is not None:
                self._downloads.begin(store, part)
            if verdict.taken and refuse_lane(part, self._allows) is not None:
                self._refused[store, part.channel, part.priority] = Head(part.upto[0], MessageId(part.upto[1]))
                if len(self._refused) > MAX_LANES:
                    del self._refused[next(iter(self._refused))]
            if verdict.reason.startswith(TOO_NEW) and (more := self._rate.note((part.channel, TOO_NEW))) is not None:
                self._log.warning("%s: %s waits there: %s%s", self.peer, part.channel, verdict.reason, besides(more),
                                  extra=about(peer=self.peer, channel=part.channel))  # fmt: skip
            self._note_rejections(part, verdict)
            self._tell_refused(part, verdict)
        if taken := taken_of([part.envelopes for part in parts], verdicts):
            told = {"side": "inbox", "peer": self.peer, "count": len(taken), "messages": FactsOf(taken)}
            self._event("batch_accepted", told)
        later = [verdict.later for verdict in verdicts if verdict.later is not None and not verdict.missing]
        if later:
            self._full_until = self._clock.now() + max(later)

    def _tell_refused(self, part: wire.LanePart, verdict: wire.PushResult) -> None:
        """One line for each reason, and not for each message: its sender learns of each."""
        counts = Counter(code for _, code, _ in verdict.rejected)
        for index, code, reason in verdict.rejected:
            count = counts.pop(code, 0)
            if count and (more := self._rate.note((part.channel, code), count)) is not None:
                self._log.warning("%s: message %d on %s refused: %s: %s%s", self.peer, index, part.channel, code,
                                  reason, besides(more), extra=about(peer=self.peer, channel=part.channel))  # fmt: skip

    def _note_rejections(self, part: wire.LanePart, verdict: wire.PushResult) -> None:
        """Keep what the sender must be told; not of an envelope so damaged that nobody can say which message it was."""
        for index, code, reason in verdict.rejected:
            with contextlib.suppress(BadEnvelope):
                identity = decode(part.envelopes[index]).message.id
                if len(identity) == 16:
                    self._rejections[identity] = (code, reason)
        while len(self._rejections) > MAX_RECEIPTS:
            del self._rejections[next(iter(self._rejections))]

    def _told(self, answer: wire.Fetched | Exception) -> None:
        self._telling = False
        if isinstance(answer, Exception):
            self._failed(answer)
            return
        # What the peer has on stable storage by now; the rows up to there are forgotten here.
        self._cursor = (StoreId(answer.cursor.log) if answer.cursor.log else None, answer.cursor.after)
        self._alive()

    def _alive(self) -> None:
        self._answered, self._greetings = True, 0
        self.failures, self.rest_until = 0, 0.0
        if self.down_reason is not None:
            self.down_reason = None
            self._log.info("%s: can be fetched from again", self.peer, extra=about(peer=self.peer))
            self._event("peer_up", {"peer": self.peer})

    def _failed(self, error: Exception) -> None:
        if isinstance(error, Refused) and error.signed and error.code == OLD_SESSION:
            return
        if isinstance(error, Refused) and error.signed and error.code == NEW_SESSION:
            self._talk.session = b""
            if self._greetings < GREETINGS:
                return
            # It forgets each session at once: two processes answer in turn, or it dies of what is asked.
        self._talk.session = b""
        now = self._clock.now()
        if self.failures == 0:
            self._failing_since = now
        self.failures += 1
        backoff = self._backoff if self._has_answered() else self._backoff.before_contact()
        rest = backoff.delay(self.failures, self._rng, now - self._failing_since)
        self.rest_until = now + min(rest, longest_rest(error))
        if self.down_reason is None:
            self._event("peer_down", {"peer": self.peer, "reason": str(error)})
            self._log.warning("%s: cannot fetch: %s", self.peer, error, extra=about(peer=self.peer))
        self.down_reason = str(error)

    def _has_answered(self) -> bool:
        if not self._answered:
            with self._trouble.guard((READ, "heads", self.peer)):
                self._answered = bool(self._inbox.heads(self.peer))
        return self._answered

    def close(self) -> None:
        """Give up what is under way; safe twice."""
        if self._downloads is not None:
            self._downloads.close()
        self._talk.close()
