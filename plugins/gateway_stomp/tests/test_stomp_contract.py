"""STOMP's door keeps the contract of gateways: connections that die anywhere, garbage, slow readers, a full disk."""

import itertools

import pytest
from dropr_gateway_stomp import Options, StompGateway
from dropr_gateway_stomp.frames import Beat, FrameReader, Version, encode

from dropr_core.testing.gateway_contract import GatewayCase, GatewayContract


def frames(answer, command):
    """Those of one kind that are whole, in their order."""
    reader, found = FrameReader(), []
    reader.version = Version.V12
    reader.feed(answer)
    while (frame := reader.next()) is not None:
        if frame is not Beat.BEAT and frame.command == command:
            found.append(frame)
    return found


def put(channel, body):
    head = {"destination": f"/queue/{channel}", "receipt": "stored", "content-length": str(len(body))}
    return encode("SEND", head.items(), body)


def done(answer):
    """The last message is acknowledged, and its subscription ends before it gets another one."""
    said = frames(answer, "MESSAGE")[-1].headers
    return b"".join(
        encode(command, headers.items())
        for command, headers in (
            ("BEGIN", {"transaction": "t"}),
            ("ACK", {"id": said["ack"], "transaction": "t"}),
            ("UNSUBSCRIBE", {"id": said["subscription"]}),
            ("COMMIT", {"transaction": "t"}),
        )
    )


class TestStompKeepsTheContract(GatewayContract):
    @pytest.fixture
    def gateway_case(self):
        names = itertools.count(1000)  # as long as each other: a request has the same length each time

        def take(channel):
            head = {"id": str(next(names)), "destination": f"/queue/{channel}", "ack": "client-individual"}
            return encode("SUBSCRIBE", {**head, "prefetch-count": "1"}.items())

        return GatewayCase(
            make=lambda context: StompGateway(Options(), context.log),
            put=put,
            stored=lambda answer: len(frames(answer, "RECEIPT")),
            take=take,
            bodies=lambda answer: [frame.body for frame in frames(answer, "MESSAGE")],
            done=done,
            hello=encode("CONNECT", [("accept-version", "1.2"), ("host", "kit")]),
            greeted=lambda answer: bool(frames(answer, "CONNECTED")),
            garbage=[b"\0" * 64, b"\xff\xfe\n\n\0", b"GET / HTTP/1.0\r\n\r\n", b"SEND\nno colon\n\n\0", b"SEND\n\n\0"],
        )
