"""The door: HTTP in, an action, HTTP out.

Owns which request is which action, who may ask at all, and how much is read of whom. It is an ASGI application; must
not know which server runs it.
"""

import asyncio
import hashlib
import itertools
import uuid
from collections.abc import Awaitable, Callable, Mapping, MutableMapping
from typing import Any

from dropr_core.errors import DroprError, QueueFull, StoreError, UsageError
from dropr_gateway_sqs import answers, requests
from dropr_gateway_sqs.counter import Caller, Counter, Gone, Result
from dropr_gateway_sqs.dedup import Window
from dropr_gateway_sqs.failures import SqsError
from dropr_gateway_sqs.managing import Managing
from dropr_gateway_sqs.moving import Moving
from dropr_gateway_sqs.receiving import Receiving
from dropr_gateway_sqs.requests import Request
from dropr_gateway_sqs.sending import Sending
from dropr_gateway_sqs.settings import LARGEST
from dropr_gateway_sqs.sigv4 import Verifier

Scope = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]
Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]
Action = Callable[[Mapping[str, Any], Caller], Awaitable[Result]]

LARGEST_REQUEST = 6 * LARGEST + (256 << 10)
"""Bytes of a body: a batch of 1 MiB in which each character is escaped, and what stands around it."""
MOST_AT_ONCE = 64 << 20
"""Bytes of all requests together that are here and not answered: a body comes before its signature can be checked."""


class Application:
    """See the module."""

    def __init__(self, counter: Counter, verifier: Verifier | None, *, url: str | None) -> None:
        """``verifier``: None if nobody has to sign. ``url``: the base of queue URLs; None: as the client says."""
        self._counter, self._verifier, self._url = counter, verifier, url
        self._here = 0
        self._run, self._requests = str(uuid.uuid4())[:24], itertools.count(1)
        window = Window(counter.clock.now)
        sending, receiving, self._moving = Sending(counter, window), Receiving(counter, window), Moving(counter)
        managing, moving = Managing(counter, receiving), self._moving
        self._actions: dict[str, Action] = {
            "SendMessage": sending.send,
            "SendMessageBatch": sending.send_batch,
            "ReceiveMessage": receiving.receive,
            "DeleteMessage": receiving.delete,
            "DeleteMessageBatch": receiving.delete_batch,
            "ChangeMessageVisibility": receiving.change,
            "ChangeMessageVisibilityBatch": receiving.change_batch,
            "CreateQueue": managing.create,
            "GetQueueUrl": managing.url,
            "ListQueues": managing.list_queues,
            "DeleteQueue": managing.delete,
            "PurgeQueue": managing.purge,
            "GetQueueAttributes": managing.attributes,
            "SetQueueAttributes": managing.set_attributes,
            "TagQueue": managing.tag,
            "UntagQueue": managing.untag,
            "ListQueueTags": managing.tags,
            "ListDeadLetterSourceQueues": managing.sources,
            "StartMessageMoveTask": moving.start,
            "CancelMessageMoveTask": moving.cancel,
            "ListMessageMoveTasks": moving.list_tasks,
        }

    async def close(self) -> None:
        """End what runs beside the requests."""
        await self._moving.close()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request."""
        if scope["type"] == "http":
            share = _Share(self)
            try:
                answer = await self._answer(scope, receive, share)
            except Gone:
                return
            finally:
                share.give_back()
            await send({"type": "http.response.start", "status": answer.status, "headers": answer.headers})
            await send({"type": "http.response.body", "body": answer.body})
        elif scope["type"] == "websocket":
            await send({"type": "websocket.close", "code": 1003})
        elif scope["type"] == "lifespan":
            while True:
                kind = (await receive())["type"]
                await send({"type": f"{kind}.complete"})
                if kind == "lifespan.shutdown":
                    return

    def grow(self, size: int) -> None:
        """So much more is here. Raises SqsError if that is too much."""
        self._here += size
        if size > 0 and self._here > MOST_AT_ONCE:
            raise SqsError("ServiceUnavailable", "Too much is being sent at once; try again later.", status=503)

    async def _answer(self, scope: Scope, receive: Receive, share: "_Share") -> answers.Answer:
        request_id = f"{self._run}{next(self._requests):012x}"  # of the form that Amazon's have, and unique
        headers = dict(scope["headers"])
        target = headers.get(b"x-amz-target")
        protocol: requests.Protocol = "query" if target is None else "json"
        close = False
        try:
            close = True  # until all of the request is read, the rest of it may come any time
            caller, body = await self._admit(scope, headers, receive, share)
            close = False
            if target is not None:
                request = requests.read_json(target.decode("latin-1"), body)
            else:
                request = requests.read_form(scope["query_string"], body, scope["path"])
            result = await self._do(request, caller)
            return answers.success(protocol, request.action, result, request_id)
        except SqsError as error:
            answer = answers.failure(protocol, error, request_id)
        except QueueFull as error:
            full = SqsError("ServiceUnavailable", f"{error}; nothing was stored, try again later", status=503)
            answer = answers.failure(protocol, full, request_id)
        except UsageError as error:
            answer = answers.failure(protocol, SqsError("InvalidParameterValue", str(error)), request_id)
        except StoreError as error:
            self._counter.log.error("a request failed at the store: %s", error)
            answer = answers.failure(protocol, SqsError("ServiceUnavailable", str(error), status=503), request_id)
        except DroprError as error:
            answer = answers.failure(protocol, SqsError("ServiceUnavailable", str(error), status=503), request_id)
        except (asyncio.CancelledError, Gone):
            raise
        except Exception:
            self._counter.log.exception("a request met an internal error (request id %s)", request_id)
            internal = SqsError("InternalFailure", "An internal error; the gateway's log has it.", status=500)
            answer = answers.failure(protocol, internal, request_id)
        if close:
            answer.headers.append((b"connection", b"close"))
        return answer

    async def _do(self, request: Request, caller: Caller) -> Result:
        action = self._actions.get(request.action)
        if action is None:
            if request.action in ("AddPermission", "RemovePermission"):
                raise SqsError("UnsupportedOperation", "This gateway has no access policies; see 'credentials'.")
            raise SqsError(
                "UnknownOperationException", f"The action {request.action[:100]} is not valid for this endpoint."
            )
        return await action(request.parameters, caller)

    # ── reading ──────────────────────────────────────────────────────────────────────────────────

    async def _admit(
        self, scope: Scope, headers: Mapping[bytes, bytes], receive: Receive, share: "_Share"
    ) -> tuple[Caller, bytes]:
        """Who asks, and the body. A stranger is refused before it is read."""
        host = headers.get(b"host", b"localhost").decode("latin-1")
        base = self._url or f"{scope.get('scheme', 'http')}://{host}"

        async def hung_up() -> None:
            while (await receive())["type"] != "http.disconnect":
                pass

        if self._verifier is None:
            return Caller(base, "", hung_up), await _read_body(headers, receive, share)
        raw_path = scope.get("raw_path") or scope["path"].encode()
        claimed = self._verifier.claim(
            scope["method"], raw_path, scope["query_string"], scope["headers"], self._counter.wall()
        )
        body = await _read_body(headers, receive, share)
        self._verifier.check(claimed, hashlib.sha256(body).hexdigest())
        return Caller(base, claimed.key_id, hung_up), body


class _Share:
    """What one request has of the bytes that may be here at once."""

    def __init__(self, application: Application) -> None:
        self._application, self._size = application, 0

    def grow(self, size: int) -> None:
        """Take so much more. Raises SqsError if there is no more."""
        self._size += size
        self._application.grow(size)

    def give_back(self) -> None:
        """The request is over."""
        self._application.grow(-self._size)
        self._size = 0


async def _read_body(headers: Mapping[bytes, bytes], receive: Receive, share: _Share) -> bytes:
    announced = headers.get(b"content-length", b"0")
    if announced.isdigit() and int(announced[:20]) > LARGEST_REQUEST:
        raise _too_large()
    chunks: list[bytes] = []
    have, more = 0, True
    while more:
        message = await receive()  # the server cuts off who sends too slowly
        if message["type"] == "http.disconnect":
            raise Gone
        chunk = message.get("body", b"")
        have += len(chunk)
        share.grow(len(chunk))
        if have > LARGEST_REQUEST:
            raise _too_large()
        chunks.append(chunk)
        more = message.get("more_body", False)
    return chunks[0] if len(chunks) == 1 else b"".join(chunks)


def _too_large() -> SqsError:
    return SqsError("RequestEntityTooLarge", f"A request has at most {LARGEST_REQUEST} bytes.", status=413)
