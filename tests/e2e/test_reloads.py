"""Reload after reload of real processes, while messages flow."""

import signal
import threading

import pytest
from support.nodes import Road, eventually

RELOADS = 100


@pytest.fixture
def road(tmp_path):
    """Some nodes; whatever they started is gone after the test."""
    made = Road(tmp_path)
    yield made
    made.close()


def test_a_hundred_reloads_under_load_end_nobody_and_lose_nothing(road):
    """SIGHUP after SIGHUP while messages and receipts flow: the daemon lives, everything arrives once, and no broken
    conversation is told of that the reload itself has broken."""
    shop, ware = road.build("shop", "ware")
    for place in (shop, ware):
        place.file.chmod(0o600)  # a key stands in it, and each start would warn of it
    server, daemon = ware.run("server"), shop.run("daemon")
    stop, sent, got = threading.Event(), [], []
    with shop.opened() as here, ware.opened() as there:

        def send():
            while not stop.wait(0.001):
                sent.append(here.send(b"%d" % len(sent), to="ware", receipt=True))

        def take():
            for batch in there.receive_batches("common", wait=0.2):
                got.extend(message.id for message in batch)
            return len(got) >= len(sent)

        def take_on():
            while not stop.is_set():
                take()

        threads = [threading.Thread(target=call) for call in (send, take_on)]
        for thread in threads:
            thread.start()
        try:
            for number in range(RELOADS):
                daemon.signal(signal.SIGHUP)
                if number % 10 == 0:
                    server.signal(signal.SIGHUP)
                eventually(lambda number=number: not daemon.alive or daemon.text.count("reloaded:") > number)
                assert daemon.alive, daemon.text[-3000:]
        finally:
            stop.set()
            for thread in threads:
                thread.join()
        sent.append(here.send(b"last", to="ware", receipt=True))
        eventually(take)
        assert sorted(got) == sorted(message.id for message in sent)
        eventually(lambda: all(message.state == "processed" for message in sent))
    for word in ("Traceback", "down", "error", "warning"):
        assert word not in daemon.text, [line for line in daemon.text.splitlines() if word in line][:5]
    assert daemon.stop() == 0
    assert server.stop() == 0


@pytest.mark.parametrize(("role", "code"), [("worker", 75), ("daemon", 0), ("server", 0)])
def test_a_reload_does_not_kill_a_process_that_is_ending(road, role, code):
    """SIGHUP again and again until it is gone: it closes its store and ends with the code of what it was told first."""
    name = road.write_handlers("def on(message):\n    return 1\n")
    (shop,) = road.build("shop", shop={"channels": {"jobs": {"handler": f"python:{name}:on"}}})
    process = shop.run(role)
    if role != "worker":  # a worker ends by SIGHUP: it asks for a fresh start
        process.signal(signal.SIGTERM)

    def gone():
        process.signal(signal.SIGHUP)
        return not process.alive

    eventually(gone)
    assert process.wait() == code
