"""The admin protocol's commands: what is read and changed for each. The texts are those of `admin.py`.

Owns what each command means for a node. What gearmand can do and must not be done here (shutdown) is refused.
"""

import os
from importlib.metadata import PackageNotFoundError, version

from dropr_core.contracts.gateway import Desk
from dropr_core.errors import BadName, DroprError
from dropr_gateway_gearman import admin
from dropr_gateway_gearman.hall import Hall
from dropr_gateway_gearman.naming import channel_of, function_of


class Admin:
    """Answers one connection's commands."""

    def __init__(self, hall: Hall, desk: Desk) -> None:
        self._hall, self._desk = hall, desk

    async def answer(self, given: tuple[bytes, ...]) -> bytes:
        """The whole answer to one line."""
        command, *rest = words = admin.words_of(given)
        try:
            match [word.lower() for word in words[:3]]:
                case [b"workers"]:
                    return self._workers()
                case [b"status"]:
                    return await self._status()
                case [b"version"]:
                    return admin.value(_version())
                case [b"getpid"]:
                    return admin.value(os.getpid())
                case [b"verbose"]:
                    return admin.value("ERROR")
                case [b"maxqueue", *_]:
                    return self._maxqueue(rest) if rest else admin.incomplete(command)
                case [b"create", b"function", _] if len(words) == 3:
                    return self._create(words[2])
                case [b"drop", b"function", _] if len(words) == 3:
                    return await self._drop(words[2])
                case [b"create" | b"drop", *_]:
                    return admin.incomplete(command)
                case [b"cancel", b"job", _] if len(words) == 3:
                    return await self._cancel(words[2])
                case [b"cancel", _, *_]:
                    return admin.UNKNOWN_ERROR if len(words) > 2 else admin.unknown_command(command)
                case [b"show", b"jobs"]:
                    return self._jobs()
                case [b"show", b"unique", b"jobs"] if len(words) == 3:
                    return admin.table([job.unique] for job in self._hall.jobs if job.unique)
                case [b"show", _, *_]:
                    return admin.UNKNOWN_SHOW
                case _:
                    return admin.unknown_command(command)
        except BadName as error:
            return admin.failed("INVALID_ARGUMENTS", str(error))
        except DroprError as error:
            return admin.failed("UNKNOWN_ERROR", str(error))

    def _workers(self) -> bytes:
        lines = (admin.worker_line(one.number, one.address, one.name, one.functions()) for one in self._hall.connected)
        return b"".join(lines) + admin.END

    async def _status(self) -> bytes:
        counts = dict(await self._desk.counts())
        named = {channel for one in self._hall.connected for channel in one.channels()} | self._hall.created
        rows = []
        for channel in sorted(named | set(counts)):
            found = counts.get(channel)
            total = 0
            if found is not None:
                total = found.ready + found.delayed + found.blocked + found.leased + found.outgoing
            running = found.leased if found is not None else 0
            rows.append((function_of(channel), total, running, self._hall.workers(channel)))
        return admin.table(rows)

    def _jobs(self) -> bytes:
        return admin.table((job.handle, 0, 0, 1) for job in self._hall.jobs)

    def _maxqueue(self, words: list[bytes]) -> bytes:
        channel = channel_of(words[0])
        given = [_number(word) for word in words[1:4]]
        limits = (given * 3)[:3] if len(given) == 1 else [*given, 0, 0, 0][:3]
        if not any(limits):
            self._hall.limits.pop(channel, None)
        elif self._hall.has_room(channel):
            self._hall.limits[channel] = (limits[0], limits[1], limits[2])
        else:
            return admin.failed("QUEUE_ERROR", "too many functions are named")
        return admin.OK

    def _create(self, function: bytes) -> bytes:
        channel = channel_of(function)
        if not self._hall.has_room(channel):
            return admin.failed("QUEUE_ERROR", "too many functions are named")
        self._hall.created.add(channel)
        return admin.OK

    async def _drop(self, function: bytes) -> bytes:
        """Its name is forgotten; with jobs in it it stays: they are taken or cancelled first, never dropped with it."""
        channel = channel_of(function)
        found = await self._desk.count(channel)
        if self._hall.workers(channel) or found.leased:
            return admin.BUSY_FUNCTION
        if found.ready + found.delayed + found.blocked + found.outgoing:
            return admin.failed("QUEUE_ERROR", "it holds jobs: cancel them or let them be done first")
        if channel not in self._hall.created and channel not in await self._desk.channels():
            return admin.NO_FUNCTION
        self._hall.created.discard(channel)
        return admin.OK

    async def _cancel(self, handle: bytes) -> bytes:
        message_id = self._hall.handles.id_of(handle)
        seen = await self._desk.find_id(message_id) if message_id is not None else None
        if seen is None:
            return admin.UNKNOWN_JOB
        if not await self._desk.delete(seen.number):
            return admin.failed("UNKNOWN_ERROR", "a worker has it")
        job = self._hall.jobs.find(seen.id)
        if job is not None:
            self._hall.jobs.fail(job)
        return admin.OK


def _number(word: bytes) -> int:
    return max(0, int(word)) if word.lstrip(b"-").isdigit() and len(word) < 12 else 0


def _version() -> str:
    try:
        return f"1.1.20+dropr.{version('dropr-gateway-gearman')}"  # clients read what comes first as gearmand's
    except PackageNotFoundError:
        return "1.1.20+dropr"


__all__ = ["Admin"]
