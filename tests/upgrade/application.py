"""What the programs of a node do in these tests: one file for both versions, run by either.

    python application.py VERB NODE.yaml [WORD ...]         # prints JSON

Uses only what the last release has, too. Must not know which version it runs on.
"""

import hashlib
import json
import sys

import dropr_core as dropr

MANY, PATIENCE = 120, 120.0


def send(file, peer):
    """Something of each kind to the peer; the ids of what is asked about later."""
    with dropr.open(file) as node:
        with node.batch() as batch:
            for number in range(MANY):
                batch.send(b"%d" % number, to=peer, channel=f"c{number % 3}", priority=number % 2)
        large = bytes(range(256)) * 6000
        node.send(large, to=peer, channel="large")
        node.send(b"to both", to=[peer, "hut"], channel="news")
        asked = {word: str(node.send(word.encode(), to=peer, channel="sums", receipt=True).id) for word in ("6", "bad")}
        return {"asked": asked, "digest": hashlib.sha256(large).hexdigest()}


def take(file):
    """Everything that `send` sent: (channel, priority, body or digest) of each, and the sums are done."""
    out = []
    with dropr.open(file) as node:
        channels = ("c0", "c1", "c2", "large", "news")
        for message in node.receive(*channels, limit=MANY + 2, timeout=PATIENCE):
            body = hashlib.sha256(message.body).hexdigest() if message.large else message.body.decode()
            out.append((message.channel, message.priority, body, message.possible_duplicate))
        for message in node.receive("sums", limit=2, timeout=PATIENCE):
            if message.body == b"bad":
                message.bury("cannot be done")
            else:
                message.ack(b"42")
        extra = [message.body.decode("latin-1")[:20] for message in node.receive(*channels, "sums", wait=0)]
    return {"taken": out, "extra": extra}


def results(file, good, bad):
    """What became of the two that were asked about."""
    with dropr.open(file) as node:
        result = node.find(good).wait(PATIENCE)
        try:
            node.find(bad).wait(PATIENCE)
        except dropr.DeliveryFailed as error:
            return {"result": bytes(result).decode(), "failed": str(error)}
    return {}


def append(file, channel, first, count):
    """So many numbers on a route."""
    with dropr.open(file) as node, node.batch() as batch:
        for number in range(int(first), int(first) + int(count)):
            batch.send(b"%d" % number, channel=channel)
    return {}


def numbers(file, channel, count):
    """So many numbers of a channel, and what else is there."""
    with dropr.open(file) as node:
        got = [int(message.body) for message in node.receive(channel, limit=int(count), timeout=PATIENCE)]
        return {"got": got, "extra": [int(message.body) for message in node.receive(channel, wait=0)]}


def retry(file, peer):
    """End the rest of a peer."""
    with dropr.open(file) as node:
        node.retry_now(peer)
    return {}


VERBS = {"retry": retry, "send": send, "take": take, "results": results, "append": append, "numbers": numbers}


if __name__ == "__main__":
    print(json.dumps(VERBS[sys.argv[1]](*sys.argv[2:])))
