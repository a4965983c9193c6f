"""A gateway for tests: one request a line, as small as a dialect can be.

    put CHANNEL DELAY TEXT → put NUMBER | full REASON | bad REASON
    take CHANNEL[,CHANNEL…] WAIT HOLD → job NUMBER ATTEMPT TEXT | none          (WAIT -1: for ever; HOLD 0: no deadline)
    ack NUMBER, back NUMBER, bury NUMBER, touch NUMBER → ok | gone
    count CHANNEL → count READY DELAYED LEASED BURIED
    delete NUMBER, kick CHANNEL, pause CHANNEL SECONDS, peek CHANNEL STATE, result TEXT …

`GET /put?channel=…&body=…` does the first of these for the web.
"""

import sys
from pathlib import Path
from urllib.parse import parse_qs

import attrs

from dropr_core import options
from dropr_core.contracts.gateway import STREAMS, WEB, Gateway, Parcel
from dropr_core.errors import QueueFull, UsageError
from dropr_core.hookspecs import hookimpl
from dropr_core.model.message import State

MAX_LINE = 1 << 20


@attrs.frozen(kw_only=True)
class Options:
    password: str | None = options.secret(None, doc="The first line must be this.")
    welcome: str = options.option("", doc="Said first.")


class Tiny(Gateway):
    default_listen = "tcp://127.0.0.1:0"
    schemes = (*STREAMS, *WEB)

    def __init__(self, options):
        self.options = options
        self.authenticates = options.password is not None

    async def serve(self, line, desk):
        if self.options.welcome:
            await line.write(self.options.welcome.encode() + b"\n")
        data, known = b"", self.options.password is None
        while piece := await line.read():
            data += piece
            while b"\n" in data:
                request, _, data = data.partition(b"\n")
                if not known:
                    if request.decode() != self.options.password:
                        return
                    known = True
                    continue
                await line.write(await self.answer(request, desk) + b"\n")
            if len(data) > MAX_LINE:
                await line.write(b"bad too long a line\n")
                return

    async def answer(self, request, desk):
        verb, _, rest = request.decode("utf-8", "replace").partition(" ")
        try:
            return (await getattr(self, f"do_{verb}", self.unknown)(desk, rest)).encode()
        except QueueFull as error:
            return f"full {error}".encode()
        except (UsageError, ValueError) as error:
            return f"bad {error}".replace("\n", " ").encode()

    async def unknown(self, desk, rest):
        return "bad verb"

    async def do_put(self, desk, rest):
        channel, delay, body = rest.split(" ", 2)
        (placed,) = await desk.put(Parcel(channel=channel, body=body.encode(), delay=float(delay) or None))
        return f"put {placed.number}"

    async def do_rank(self, desk, rest):
        channel, rank, body = rest.split(" ", 2)
        (placed,) = await desk.put(Parcel(channel=channel, body=body.encode(), rank=int(rank)))
        return f"put {placed.number}"

    async def do_once(self, desk, rest):
        channel, dedup, body = rest.split(" ", 2)
        (placed,) = await desk.put(Parcel(channel=channel, body=body.encode(), dedup=dedup))
        return f"put {placed.number} {placed.duplicate}"

    async def do_take(self, desk, rest):
        channels, wait, hold = rest.split()
        got = await desk.reserve(
            channels.split(","), wait=None if wait == "-1" else float(wait), hold=float(hold) or None
        )
        return f"job {got[0].number} {got[0].attempt} {got[0].body.decode()}" if got else "none"

    async def do_number(self, desk, rest):
        held = await desk.reserve_number(int(rest))
        return "none" if held is None else f"job {held.number} {held.attempt} {held.body.decode()}"

    async def settle(self, desk, rest, how):
        held = desk.held(int(rest))
        return "ok" if held is not None and await how(held) else "gone"

    async def do_ack(self, desk, rest):
        return await self.settle(desk, rest, lambda held: held.ack())

    async def do_back(self, desk, rest):
        return await self.settle(desk, rest, lambda held: held.release())

    async def do_bury(self, desk, rest):
        return await self.settle(desk, rest, lambda held: held.bury("a test"))

    async def do_touch(self, desk, rest):
        held = desk.held(int(rest))
        return "ok" if held is not None and held.touch() else "gone"

    async def do_delete(self, desk, rest):
        return "ok" if await desk.delete(int(rest)) else "gone"

    async def do_kick(self, desk, rest):
        return f"kicked {await desk.kick(rest, 100)}"

    async def do_pause(self, desk, rest):
        channel, seconds = rest.split()
        await desk.pause(channel, float(seconds))
        return "ok"

    async def do_peek(self, desk, rest):
        channel, state = rest.split()
        seen = await desk.peek(channel, State(state))
        return "none" if seen is None else f"job {seen.number} {seen.state} {seen.body.decode()}"

    async def do_purge(self, desk, rest):
        return f"purged {await desk.purge(rest)}"

    async def do_count(self, desk, rest):
        count = await desk.count(rest)
        return f"count {count.ready} {count.delayed} {count.leased} {count.buried}"

    async def do_ask(self, desk, rest):
        channel, body = rest.split(" ", 1)
        (placed,) = await desk.put(Parcel(channel=channel, body=body.encode(), receipt=True))
        fate = await desk.wait_receipt(placed.id, 60)
        return f"{fate.state} {(fate.result or b'').decode()}" if fate else "unknown"

    async def do_done(self, desk, rest):
        number, result = rest.split(" ", 1)
        return await self.settle(desk, number, lambda held: held.ack(result.encode(), "text/plain"))

    def application(self, desk):
        async def app(scope, receive, send):
            assert scope["type"] == "http"
            query = {name: value[0] for name, value in parse_qs(scope["query_string"].decode()).items()}
            (placed,) = await desk.put(Parcel(channel=query["channel"], body=query["body"].encode()))
            await send({"type": "http.response.start", "status": 200, "headers": []})
            await send({"type": "http.response.body", "body": f"put {placed.number}".encode()})

        return app


@hookimpl
def dropr_gateway(options):
    return Tiny(options)


def install(directory: Path) -> dict[str, str]:
    """Make it a plugin called `tiny`, in a directory; the environment for processes that shall find it."""
    info = directory / "dropr_tiny-1.0.dist-info"
    info.mkdir(parents=True)
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: dropr-tiny\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text("[dropr.gateway]\ntiny = support.tiny_gateway\n")
    tests = Path(__file__).resolve().parents[1]
    return {"PYTHONPATH": f"{directory}:{tests}"}


if __name__ == "__main__":
    sys.exit("this is a plugin")
