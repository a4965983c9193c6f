"""Whatever happens between rows that wait: their order, and that all of them arrive."""

import random

import pytest
from support.full_queues import deliver, put, queued, shop_of

from dropr_core.outboxes import relay as relay_module
from dropr_core.transactions.statements import Statement


@pytest.mark.parametrize("seed", range(25))
def test_whatever_happens_order_is_kept_and_everything_arrives(tmp_path, clock, small, monkeypatch, seed):
    """Rows to one or several peers, queues that fill and empty, rows that are taken away or cannot be deleted in time:
    no row overtakes another of its peer and channel, and when there is room all are gone.
    """
    chance = random.Random(seed)
    limits = {name: {"max_messages": chance.choice([0, 1, 2, 5])} for name in "ab" if chance.random() < 0.8}
    limits = {name: limit for name, limit in limits.items() if limit["max_messages"]}
    channels = {"news": {"max_messages": chance.choice([3, 4, 9])}} if chance.random() < 0.5 else {}
    monkeypatch.setattr(relay_module, "BYTES", chance.choice([3, 1 << 20]))
    shop = shop_of(tmp_path, None, limits, channels)
    shop.execute("PRAGMA synchronous = OFF")
    expected, got, number = {}, {}, 0

    def taken(peer, most):
        for channel, body in deliver(shop, peer, most):
            got.setdefault((peer, channel), []).append(body)

    def step():
        if chance.random() < 0.1:
            with monkeypatch.context() as broken:
                broken.setattr(shop.outbox.table, "delete", lambda numbers: Statement("DELETE FROM nothing"))
                try:
                    shop.relay.step(shop.link)
                except Exception:
                    if chance.random() < 0.5:
                        shop.relay.begin_anew()
                return
        shop.relay.step(shop.link)

    for _ in range(150):
        what = chance.random()
        if what < 0.4:
            for _ in range(chance.randrange(1, 7)):
                to = chance.choice(["a", "b", "c", "a,b", "b,c", "all"])
                channel = chance.choice(["jobs", "news"])
                number += 1
                put(shop, to, number, channel=channel)
                for peer in "abc" if to == "all" else to.split(","):
                    expected.setdefault((peer, channel), []).append(number)
        elif what < 0.45:
            rows = shop.execute("SELECT seq, body FROM dropr_outbox")
            if rows and shop.relay._undone is None:
                seq, body = chance.choice(rows)
                if chance.random() < 0.5:
                    shop.execute(f"DELETE FROM dropr_outbox WHERE seq = {seq}")
                    in_store = {one for peer in "abc" for one in queued(shop, peer)}
                    if int(body) not in in_store and all(int(body) not in there for there in got.values()):
                        for there in expected.values():
                            if int(body) in there:
                                there.remove(int(body))
        elif what < 0.7:
            taken(chance.choice("abc"), chance.choice([1, 2, 100]))
        elif what < 0.8:
            clock.now += chance.choice([0.5, 1, 10, 100])
        else:
            step()
    for _ in range(400):
        clock.now += 10
        shop.relay.step(shop.link)
        for peer in "abc":
            taken(peer, 100)
        if not shop.rows():
            break
    assert shop.rows() == []
    assert got == {pair: numbers for pair, numbers in expected.items() if numbers}
    assert shop.relay.full == {} or not shop.relay.step(shop.link)
    shop.close()
