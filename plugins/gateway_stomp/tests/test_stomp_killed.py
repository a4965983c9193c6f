"""The gateway is killed in the middle: what had a receipt is there, once."""

import pytest

pytestmark = pytest.mark.e2e

COUNT = 60


def restart(place, times):
    """kill -9, and up again; the port may be another one."""
    [gateway] = place.processes
    gateway.kill()
    gateway.start()
    place.await_ready(gateway, times=times)


def left(node):
    """Whether something waits in the queue or is in somebody's hands."""
    states = node.inbox.counts().get("q", {})
    return states.get("ready", 0) + states.get("leased", 0) + states.get("delayed", 0) > 0


def test_a_kill_loses_and_doubles_nothing(build, client):
    """Sent again under its duplicate id what had no receipt, each message is there once; what was acknowledged with a
    receipt never comes back, what was under way does.
    """
    place = build()
    one, life, number = client(place), 1, 0
    while number < COUNT:
        one.say("SEND", b"%d" % number, {"_AMQ_DUPL_ID": f"m{number}"}, destination="/queue/q", receipt=number)
        if number in {20 * life, 20 * life + 1} and life < 3:  # nobody waits for this one's receipt
            life += 1
            restart(place, life)
            one = client(place)
            continue
        assert one.hear().headers["receipt-id"] == str(number)
        number += 1
    one.subscribe("/queue/q", ack="client-individual", prefetch_count=5)
    seen, done, pending, kills = set(), set(), set(), 0
    with place.opened() as node:
        while pending or len(seen) < COUNT or left(node):
            frame = one.hear()
            if frame.command == "MESSAGE":
                body = frame.body.decode()
                assert body not in done
                seen.add(body)
                pending.add(body)
                one.say("ACK", id=frame.headers["ack"], receipt=body)
                continue
            done.add(frame.headers["receipt-id"])
            pending.discard(frame.headers["receipt-id"])
            if len(done) >= 20 * (kills + 1) and kills < 2:
                kills, life, pending = kills + 1, life + 1, set()
                restart(place, life)
                one = client(place)
                one.subscribe("/queue/q", ack="client-individual", prefetch_count=5)
    assert kills == 2
    assert seen == {str(number) for number in range(COUNT)}
