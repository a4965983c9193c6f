"""Status and receipts, channels and counts, pause, purge, kick, removing.

Owns these operations. Must not know how messages are sent or received.
"""

from collections.abc import Mapping
from typing import cast

from msgspec import UNSET

from dropr_core.contracts.gateway import Counts, Seen
from dropr_gateway_http import words
from dropr_gateway_http.exchange import JSON, Answer, Call, as_json
from dropr_gateway_http.operation import Gives, Operation
from dropr_gateway_http.problems import Trouble
from dropr_gateway_http.reading import decode
from dropr_gateway_http.service import Service, seconds

MAX_JSON = 64 << 10


class Managing:
    """The operations."""

    def __init__(self, service: Service) -> None:
        self._service = service

    # ── one message ──────────────────────────────────────────────────────────────────────────────

    async def status(self, call: Call) -> Answer:
        """What became of a message; waits for its end."""
        identity, query = call.path["id"], call.query
        desk = self._service.desk
        wait = min(query.wait, self._service.options.max_wait)
        waiting = desk.wait_receipt(identity, wait) if wait else desk.status(identity)
        fate = await (call.unless_gone(waiting) if wait else waiting)
        seen = await desk.find_id(identity)
        if seen is not None and not (call.caller.may_receive(seen.channel) or call.caller.may_send(seen.channel)):
            seen = None
        if fate is None and seen is None:
            raise _unknown(identity)
        state = fate.state if fate is not None else cast("Seen", seen).state
        made = words.Status(identity, state.value, fate is not None and fate.ended)
        if seen is not None:
            made.channel, made.attempts, made.reason = seen.channel, seen.attempts, seen.reason or UNSET
        if fate is not None:
            made.reason = fate.reason or made.reason
            if fate.result is not None:
                made.result_type = fate.result_type
                try:
                    made.result_text = fate.result.decode()
                except UnicodeDecodeError:
                    made.result_base64 = fate.result
        return as_json(made)

    async def remove(self, call: Call) -> Answer:
        """Remove one that nobody holds."""
        seen = await self._managed(call)
        if not await self._service.desk.delete(seen.number):
            raise Trouble(409, "leased", f"message {seen.id} is in somebody's hands (or has just ended); it stays")
        return Answer(204)

    async def kick_one(self, call: Call) -> Answer:
        """Make one ready."""
        seen = await self._managed(call)
        if not await self._service.desk.kick_number(seen.number):
            raise Trouble(409, "not_buried", f"message {seen.id} is {seen.state.value}: only what is buried or delayed "
                          "can be kicked")  # fmt: skip
        return Answer(204)

    async def _managed(self, call: Call) -> Seen:
        identity = call.path["id"]
        seen = await self._service.desk.find_id(identity)
        if seen is None or not call.caller.may_receive(seen.channel):
            raise _unknown(identity)
        call.caller.check("manage", seen.channel)
        return seen

    # ── channels ─────────────────────────────────────────────────────────────────────────────────

    async def channels(self, call: Call) -> Answer:
        """All that the caller may see."""
        counts: Mapping[str, Counts] = await self._service.desk.counts()
        seen = sorted(name for name in counts if call.caller.may_receive(name) or call.caller.may_send(name))
        return as_json(words.Channels([_count(name, counts[name]) for name in seen]))

    async def channel(self, call: Call) -> Answer:
        """One of them."""
        name = call.path["channel"]
        if not call.caller.may_send(name):
            call.caller.check("receive", name)
        return as_json(_count(name, await self._service.desk.count(name)))

    async def pause(self, call: Call) -> Answer:
        """Consumers get nothing."""
        channel = self._of(call)
        said = decode(await call.whole(MAX_JSON), words.Pause)
        await self._service.desk.pause(channel, None if said.seconds is UNSET else said.seconds)
        return Answer(204)

    async def resume(self, call: Call) -> Answer:
        """They get something again."""
        await self._service.desk.resume(self._of(call))
        return Answer(204)

    async def purge(self, call: Call) -> Answer:
        """Everything that waits goes."""
        return as_json(words.Number(await self._service.desk.purge(self._of(call))))

    async def kick(self, call: Call) -> Answer:
        """Dead letters come back."""
        channel = self._of(call)
        said = decode(await call.whole(MAX_JSON), words.Kick)
        return as_json(words.Number(await self._service.desk.kick(channel, said.bound)))

    def _of(self, call: Call) -> str:
        channel = call.path["channel"]
        call.caller.check("manage", channel)
        return channel

    async def node(self, call: Call) -> Answer:
        """Whom one talks to."""
        return as_json(words.Node(self._service.desk.node, call.caller.name))

    def operations(self) -> list[Operation]:
        """What is offered."""
        unknown = {404: "No such message is known (any more)."}
        return [
            Operation(
                name="node", method="GET", path="/", handle=self.node, says="Whom you are talking to",
                gives={200: Gives("The node.", {JSON: words.Node})},
            ),
            Operation(
                name="status", method="GET", path="/messages/{id}", handle=self.status,
                says="What became of a message, waiting for its end if you like", query=words.StatusQuery,
                more="Of one sent from here with a receipt: its result, too.",
                gives={200: Gives("What is known.", {JSON: words.Status})}, also=unknown,
            ),
            Operation(
                name="remove", method="DELETE", path="/messages/{id}", handle=self.remove, right="manage",
                says="Remove a message that nobody holds", gives={204: Gives("It is gone.")},
                also={**unknown, 409: "It is in somebody's hands, or has ended."},
            ),
            Operation(
                name="kickOne", method="POST", path="/messages/{id}/kick", handle=self.kick_one, right="manage",
                says="Make a buried or delayed message ready", gives={204: Gives("It is ready.")},
                also={**unknown, 409: "It is neither buried nor delayed."},
            ),
            Operation(
                name="channels", method="GET", path="/channels", handle=self.channels,
                says="All channels, with counts", gives={200: Gives("Those you may see.", {JSON: words.Channels})},
            ),
            Operation(
                name="channel", method="GET", path="/channels/{channel}", handle=self.channel,
                says="One channel, with counts", gives={200: Gives("Its counts.", {JSON: words.Count})},
            ),
            Operation(
                name="pause", method="POST", path="/channels/{channel}/pause", handle=self.pause, right="manage",
                says="Let consumers of a channel get nothing; sending goes on", takes={JSON: words.Pause},
                gives={204: Gives("It rests.")},
            ),
            Operation(
                name="resume", method="POST", path="/channels/{channel}/resume", handle=self.resume, right="manage",
                says="End a pause", gives={204: Gives("It goes on.")},
            ),
            Operation(
                name="kick", method="POST", path="/channels/{channel}/kick", handle=self.kick, right="manage",
                says="Make dead letters ready again", takes={JSON: words.Kick},
                more="If none is buried, delayed messages are made ready instead.",
                gives={200: Gives("How many.", {JSON: words.Number})},
            ),
            Operation(
                name="purge", method="DELETE", path="/channels/{channel}/messages", handle=self.purge, right="manage",
                says="Remove everything that nobody holds", gives={200: Gives("How many.", {JSON: words.Number})},
            ),
        ]  # fmt: skip


def _unknown(identity: str) -> Trouble:
    return Trouble(404, "no_such_message", f"no message {identity} is known here (any more)")


def _count(name: str, counts: Counts) -> words.Count:
    return words.Count(
        name, counts.ready, counts.delayed, counts.blocked, counts.leased, counts.buried, counts.outgoing,
        seconds(counts.oldest), counts.paused is not None,
    )  # fmt: skip
