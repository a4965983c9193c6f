"""Large bodies between real processes: streamed, resumed, stored once, gone when their message is."""

import hashlib
import io
import json
import os
import subprocess
import sys
from functools import partial

import pytest
from support.nodes import Road, eventually, key_of, take_all

from dropr_core.errors import TooBig, UsageError

MIB = 1024 * 1024


@pytest.fixture
def road(tmp_path):
    road = Road(tmp_path)
    yield road
    road.close()


def files(place, kind):
    """The body files of a node."""
    return sorted(path for path in (place.directory / "data" / "bodies" / kind).rglob("*") if path.is_file())


def noise(size):
    """Bytes that do not compress and cannot be confused, and their digest."""
    data = os.urandom(size)
    return data, hashlib.sha256(data).hexdigest()


def receive_digest(node, channel="common"):
    """Receive one message and hash its body piece by piece; (digest, received)."""
    found = []
    for message in node.receive(channel, limit=1, timeout=30):
        digest = hashlib.sha256()
        with message.open() as file:
            while piece := file.read(MIB):
                digest.update(piece)
        found.append((digest.hexdigest(), message))
    assert found, "nothing came"
    return found[0]


def test_a_file_travels_streamed_and_its_body_goes_with_its_message(road, tmp_path):
    """A path, an open file and bytes over the limit arrive byte for byte; afterwards no body is left on either side."""
    shop, ware = road.build("shop", "ware")
    shop.run("daemon")
    ware.run("server")
    movie, digest = noise(20 * MIB)
    path = tmp_path / "movie.mkv"
    path.write_bytes(movie)
    seen = []
    with shop.opened() as here, ware.opened() as there:
        here.send(path, to="ware", progress=lambda done, size: seen.append((done, size)))
        found, message = receive_digest(there)
        assert (found, message.size, message.headers) == (digest, 20 * MIB, {"filename": "movie.mkv"})
        assert seen[-1] == (20 * MIB, 20 * MIB)
        here.send(io.BytesIO(movie[: 3 * MIB]), to="ware")
        assert receive_digest(there)[0] == hashlib.sha256(movie[: 3 * MIB]).hexdigest()
        here.send(movie[:70_000], to="ware")
        for message in there.receive("common", limit=1, timeout=30):
            assert message.body == message.value == movie[:70_000]
        assert not files(ware, "come")
        eventually(lambda: not files(shop, "sent"), what="the sender's bodies to go")


def test_a_small_stream_travels_in_its_envelope(road):
    """Up to the limit nothing is written beside the store."""
    shop, ware = road.build("shop", "ware")
    shop.run("daemon")
    ware.run("server")
    with shop.opened() as here, ware.opened() as there:
        here.send(io.BytesIO(b"small"), to="ware")
        for message in there.receive("common", limit=1, timeout=30):
            assert message.body == b"small"
        assert not files(shop, "sent")


def test_what_cannot_be_sent_leaves_nothing_behind(road, tmp_path):
    """A missing file, a text file, too large a body: a clear error, and no body is kept."""
    shop, _ware = road.build("shop", "ware", shop={"limits": {"min_free": 0, "max_body": "1MiB"}})
    with shop.opened() as here:
        with pytest.raises(UsageError, match="nowhere"):
            here.send(tmp_path / "nowhere", to="ware")
        with pytest.raises(UsageError, match="'rb'"):
            here.send(io.StringIO("text"), to="ware")
        with pytest.raises(TooBig, match="max_body"):
            here.send(io.BytesIO(bytes(2 * MIB)), to="ware")
        assert not files(shop, "sent")


def test_small_messages_pass_a_large_one(road):
    """While a large body is on its way, what is sent after it arrives before it."""
    shop, ware = road.build("shop", "ware")
    ware.run("server")
    with shop.opened() as here, ware.opened() as there:
        large, digest = noise(50 * MIB)
        here.send(large, to="ware")
        here.send(b"quick", to="ware")
        shop.run("daemon")
        assert [message.size for message in there.receive("common", limit=1, timeout=30)] == [5]
        assert receive_digest(there)[0] == digest


@pytest.mark.parametrize("role", ["daemon", "server"])
def test_a_body_is_resumed_after_kills(road, role):
    """Killed again and again in the middle of a body, either side goes on where it was; it arrives once and whole."""
    shop, ware = road.build("shop", "ware")
    daemon, server = shop.run("daemon"), ware.run("server")
    body, digest = noise(120 * MIB)

    def size():
        return sum(path.stat().st_size for path in files(ware, "come"))

    with shop.opened() as here, ware.opened() as there:
        here.send(body, to="ware")
        for part in (1, 3, 5):
            eventually(lambda part=part: size() >= part * 10 * MIB, what="some of the body")
            if role == "daemon":
                daemon.kill()
                daemon = shop.run("daemon")
            else:
                server.kill()
                server = ware.run("server")
            assert size() >= part * 10 * MIB
        found, message = receive_digest(there)
        assert found == digest
        assert not message.possible_duplicate
        assert list(there.receive("common", wait=0)) == []


def test_a_multicast_body_is_stored_once(road):
    """One body for two peers stands once at the sender, and goes when both have it."""
    shop, ware, berlin = road.build("shop", "ware", "berlin")
    body, digest = noise(5 * MIB)
    with shop.opened() as here, ware.opened() as there, berlin.opened() as far:
        here.send(body, to=["ware", "berlin"])
        assert len(files(shop, "sent")) == 1
        shop.run("daemon")
        ware.run("server")
        assert receive_digest(there)[0] == digest
        assert len(files(shop, "sent")) == 1
        berlin.run("server")
        here.retry_now()
        assert receive_digest(far)[0] == digest
        eventually(lambda: not files(shop, "sent"), what="the body to go")


def test_a_body_for_a_node_that_fetches(road):
    """A node that fetches asks for a large body piece by piece and goes on after a kill; small mail passes it."""
    shop, laptop = road.build("shop", "laptop")
    shop.write(peers={"laptop": {"mode": "pull", "key": key_of("shop", "laptop")}})
    del laptop.config["listen"]
    laptop.write()
    shop.run("server")
    shop.run("daemon")
    daemon = laptop.run("daemon")
    body, digest = noise(60 * MIB)
    with shop.opened() as here, laptop.opened() as there:
        here.send(body, to="laptop", receipt=True)
        sent = here.send(b"quick", to="laptop", receipt=True)
        assert [message.body for message in there.receive("common", limit=1, timeout=30)] == [b"quick"]
        eventually(lambda: sum(path.stat().st_size for path in files(laptop, "come")) > 5 * MIB, what="some of it")
        daemon.kill()
        laptop.run("daemon")
        assert receive_digest(there)[0] == digest
        eventually(lambda: sent.status.ended, what="the receipt")
        eventually(lambda: not files(shop, "sent"), what="the body to go")


@pytest.mark.parametrize("mode", ["push", "pull"])
@pytest.mark.parametrize("how", ["flipped", "gone"])
def test_fault_51_a_body_damaged_before_it_was_sent_is_named_and_the_next_goes_on(road, mode, how):
    """It ends as dead with the reason, is not tried for ever, and what was sent after it arrives."""
    shop, ware = road.build("shop", "ware")
    if mode == "pull":
        shop.write(peers={"ware": {"mode": "pull", "key": key_of("shop", "ware")}})
        del ware.config["listen"]
        ware.write()
    with shop.opened() as here, ware.opened() as there:
        damaged = here.send(os.urandom(3 * MIB), to="ware")
        (path,) = files(shop, "sent")
        if how == "gone":
            path.unlink()
        else:
            with path.open("r+b") as file:
                file.seek(2 * MIB)
                file.write(b"damaged")
        body, digest = noise(MIB)
        here.send(body, to="ware")
        (shop if mode == "pull" else ware).run("server")
        (ware if mode == "pull" else shop).run("daemon")
        assert receive_digest(there)[0] == digest
        (delivery,) = damaged.status.deliveries
        assert delivery.state == "dead"
        assert "body" in delivery.reason


def test_a_body_that_cannot_be_read_shows_its_reason_and_keeps_nobody_else_waiting(road):
    """`status` and `show` say why it waits, small messages go on, and it arrives when its file can be read again."""
    shop, ware = road.build("shop", "ware")
    ware.run("server")
    with shop.opened() as here, ware.opened() as there:
        body, digest = noise(MIB)
        unread = here.send(body, to="ware")
        (path,) = files(shop, "sent")
        path.rename(shop.directory / "kept")
        path.symlink_to(path.name)  # root reads whatever is forbidden, but no circle of links
        shop.run("daemon")
        here.send(b"small", to="ware")
        assert [message.body for message in take_all(there, "common", at_least=1)] == [b"small"]
        look = partial(cli, shop)
        peer = eventually(lambda: next(iter(json.loads(look("status", "--json"))["peers"][0]["unreadable"]), None))
        assert peer["id"] == str(unread.id)
        assert "symbolic links" in peer["reason"]
        assert "symbolic links" in look("status")
        assert "its body cannot be read" in look("show", str(unread.id))
        path.unlink()
        (shop.directory / "kept").rename(path)
        assert receive_digest(there)[0] == digest


def cli(place, *words):
    """What a command of the node prints."""
    command = [sys.executable, "-m", "dropr_core", *words, "-c", str(place.file)]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout
