"""Many processes, as on many machines, send into one store at once: each a process with a data directory of its own."""

import multiprocessing
import random

import pytest

pytest.importorskip("psycopg")
from dropr_storage_postgres import Options, dropr_storage

from dropr_core.contracts.storage import Selection
from dropr_core.errors import Conflict
from dropr_core.model.message import State
from dropr_core.model.names import Lane, MessageId
from dropr_core.system.clock import SystemClock
from dropr_core.testing.builders import make_context, outgoing

PEERS = ("a", "b", "c", "d")
SENDERS, ROUNDS = 3, 25


def machine(url, schema, directory):
    directory.mkdir(exist_ok=True)
    return dropr_storage(Options(url=url, schema=schema), make_context(directory, SystemClock()))


def send(url, schema, directory, seed, results):
    """Singles, batches and multicasts into the same lanes in whatever order, and cancellations among them."""
    choose, sent = random.Random(seed), []
    storage = machine(url, schema, directory)
    for _ in range(ROUNDS):
        peers = choose.sample(PEERS, choose.randint(1, 4))
        messages = [outgoing(peers=(peer,)) for peer in peers for _ in range(choose.randint(1, 3))]
        messages.append(outgoing(peers=tuple(peers)))
        choose.shuffle(messages)
        if choose.random() < 0.5:
            messages = messages[:1]
        placed = storage.outbox.append(messages)
        sent += [(one.id, message.peers, one.sequences) for one, message in zip(placed, messages, strict=True)]
        if choose.random() < 0.2:
            storage.outbox.cancel(choose.choice(sent)[0])
    storage.close()
    results.put([(bytes(identity), peers, numbers) for identity, peers, numbers in sent])


def test_numbers_have_neither_gap_nor_double(postgres_schema, tmp_path):
    """Whoever sends, a lane's numbers follow each other, and each message stands where its sender was told."""
    url, schema = postgres_schema
    spawn = multiprocessing.get_context("spawn")
    results = spawn.Queue()
    senders = [
        spawn.Process(target=send, args=(url, schema, tmp_path / str(seed), seed, results)) for seed in range(SENDERS)
    ]
    for one in senders:
        one.start()
    told = [each for _ in senders for each in results.get(timeout=250)]
    for one in senders:
        one.join(60)
    assert [one.exitcode for one in senders] == [0] * SENDERS
    storage = machine(url, schema, tmp_path / "look")
    numbers = {peer: [] for peer in PEERS}
    for _, peers, sequences in told:
        for peer, sequence in zip(peers, sequences, strict=True):
            numbers[peer].append(sequence)
    for identity, peers, sequences in told[::7]:
        assert storage.outbox.locate(Lane(peers[0], "orders", 5), sequences[0]) == identity
    assert {peer: sorted(given) for peer, given in numbers.items()} == {
        peer: list(range(1, len(given) + 1)) for peer, given in numbers.items()
    }
    waiting = {stats.lane.peer: stats.depth for stats in storage.outbox.lanes()}
    cancelled = list(storage.outbox.all(Selection(states=frozenset({State.CANCELLED}))))
    assert sum(waiting.values()) + len(cancelled) == sum(map(len, numbers.values()))
    storage.close()


def send_own_ids(url, schema, directory, results):
    """The same ids as all the others, in another order, in two channels."""
    storage = machine(url, schema, directory)
    ids = [MessageId(bytes([number]) * 16) for number in range(40)]
    random.Random(str(directory)).shuffle(ids)
    new = []
    for identity in ids:
        channel = random.Random(str(directory) + str(identity)).choice(["orders", "others"])
        try:
            (placed,) = storage.outbox.append([outgoing(id=identity, channel=channel, fingerprint=channel.encode())])
        except Conflict:
            continue
        if not placed.existed:
            new.append(bytes(identity))
    storage.close()
    results.put(new)


def test_an_own_id_is_stored_once(postgres_schema, tmp_path):
    """The same id sent from several machines at the same moment is one message; other content is a conflict."""
    url, schema = postgres_schema
    spawn = multiprocessing.get_context("spawn")
    results = spawn.Queue()
    senders = [
        spawn.Process(target=send_own_ids, args=(url, schema, tmp_path / str(seed), results)) for seed in range(3)
    ]
    for one in senders:
        one.start()
    new = [each for _ in senders for each in results.get(timeout=250)]
    for one in senders:
        one.join(60)
    assert sorted(new) == [bytes([number]) * 16 for number in range(40)]


def test_staging_logs_belong_to_a_data_directory(postgres_schema, tmp_path):
    """Two machines may have logs of the same name, and neither forgets what the other has noted."""
    url, schema = postgres_schema
    one, other = (machine(url, schema, tmp_path / name).outbox for name in ("one", "other"))
    assert one.append_staged([outgoing()], "log", 0, 5)
    assert other.staged() == {}
    assert other.append_staged([outgoing()], "log", 0, 7)
    other.unstage(["log"])
    assert one.staged() == {"log": 5}
    again = machine(url, schema, tmp_path / "one").outbox
    assert again.staged() == {"log": 5}
    for each in (one, other, again):
        each.close()
