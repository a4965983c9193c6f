"""greenstalk, the Python client, against the door: what its own test suite asks of a beanstalkd, without timings.

That suite itself is in no package, only in the client's repository, and asserts timings of 50 ms:
`make own-suite SUITE=greenstalk` runs it. COVERED says, test by test, where its scenarios are held here.
"""

import os
import socket
import sys

import pytest
from support import clients

pytestmark = pytest.mark.e2e

COVERED = {
    "test_basic_usage": "test_put_reserve_delete",
    "test_put_priority": "test_put_reserve_delete",
    "test_delays": "test_delays_release_bury_and_kick",
    "test_ttr": "test_time_to_run",
    "test_reserve_raises_on_timeout": "test_time_to_run",
    "test_reserve_job": "test_jobs_by_their_ids",
    "test_initialize_with_tubes": "test_put_reserve_delete",
    "test_initialize_watch_multiple": "test_put_reserve_delete",
    "test_binary_jobs": "test_put_reserve_delete",
    "test_peek": "test_jobs_by_their_ids",
    "test_peek_not_found": "test_jobs_by_their_ids",
    "test_peek_ready": "test_peeking",
    "test_peek_ready_not_found": "test_delays_release_bury_and_kick",
    "test_peek_delayed": "test_delays_release_bury_and_kick",
    "test_peek_delayed_not_found": "test_peeking",
    "test_peek_buried": "test_delays_release_bury_and_kick",
    "test_peek_buried_not_found": "test_peeking",
    "test_kick": "test_delays_release_bury_and_kick",
    "test_kick_job": "test_delays_release_bury_and_kick",
    "test_stats_job": "test_statistics",
    "test_stats_tube": "test_statistics",
    "test_stats": "test_statistics",
    "test_tubes": "test_tubes",
    "test_using": "test_tubes",
    "test_watching": "test_tubes",
    "test_pause_tube": "test_tubes",
    "test_max_job_size": "test_tubes",
    "test_job_not_found": "test_jobs_by_their_ids",
    "test_delete_job_reserved_by_other": "test_jobs_by_their_ids",
    "test_not_ignored": "test_tubes",
    "test_init_already_connected_socket_with_timeout": "test_a_connection_that_is_given",
    "test_client_repr_already_connected_inet": "test_a_connection_that_is_given",
    "test_client_repr_already_connected_unix": "test_a_unix_socket",
    "test_client_repr_unix": "test_a_unix_socket",
    "test_client_repr_inet": "test_tubes",
}
"""Left out: test_drain_mode, which differs (docs/gateways/beanstalk.md; DRAINING itself is in test_beanstalk_door.py),
and what asks no server: of greenstalk's parser and of how its objects are shown."""


@pytest.fixture(scope="module")
def greenstalk():
    """The package."""
    return clients.module("greenstalk")


@pytest.fixture
def connect(place, greenstalk):
    """A function that makes a client of the door, closed after the test."""
    made = []

    def start(**options):
        host, _, port = place.doors()["beanstalk"][0].removeprefix("tcp://").rpartition(":")
        made.append(greenstalk.Client((host, int(port)), **options))
        return made[-1]

    yield start
    for one in made:
        one.close()


def test_put_reserve_delete(connect, greenstalk):
    """The common case, with text, bytes, several tubes, and priorities."""
    client = connect(use="emails", watch=["emails", "other"])
    number = client.put("测试@example.com")
    job = client.reserve()
    assert (job.id, job.body) == (number, "测试@example.com")
    client.delete(job)
    for priority in (2, 1):
        client.put(str(priority), priority=priority)
    client.use("other")
    client.put("0", priority=0)
    assert [client.reserve(timeout=0).body for _ in range(3)] == ["0", "1", "2"]
    with pytest.raises(greenstalk.TimedOutError):
        client.reserve(timeout=0)
    data = os.urandom(4096)
    binary = connect(encoding=None)
    binary.put(data)
    assert binary.reserve().body == data


def test_delays_release_bury_and_kick(connect, greenstalk):
    """Delayed jobs come later, released ones again, buried ones when they are kicked."""
    client = connect()
    client.put("delayed", delay=3)  # long after the next two answers, on a busy machine too
    with pytest.raises(greenstalk.NotFoundError):
        client.peek_ready()
    assert client.peek_delayed().body == "delayed"
    job = client.reserve(timeout=30)
    client.release(job, delay=3)
    with pytest.raises(greenstalk.TimedOutError):
        client.reserve(timeout=0)
    job = client.reserve(timeout=30)
    client.bury(job)
    assert client.peek_buried().id == job.id
    delayed = client.put("a delayed job", delay=3600)
    client.put("another one", delay=3600)
    assert client.kick(10) == 1
    assert client.kick(1) == 1
    with pytest.raises(greenstalk.NotFoundError):
        client.kick_job(delayed)
    assert {client.reserve(timeout=0).id for _ in range(2)} == {job.id, delayed}


def test_time_to_run(connect, greenstalk):
    """A worker is told when its time runs out, and touch begins it anew."""
    client = connect()
    client.put("two seconds", ttr=2)
    job = client.reserve()
    with pytest.raises(greenstalk.DeadlineSoonError):
        client.reserve()
    client.touch(job)
    with pytest.raises(greenstalk.DeadlineSoonError):
        client.reserve()
    client.release(job)
    with pytest.raises(greenstalk.TimedOutError):
        connect(watch="nothing").reserve(timeout=1)


def test_jobs_by_their_ids(connect, greenstalk):
    """reserve-job, peek, and what is not there."""
    client, other = connect(), connect()
    one, two = client.put("a"), client.put("b")
    assert client.peek(two).body == "b"
    jobs = [client.reserve_job(number) for number in (two, one)]
    for action in (client.reserve_job, other.delete, other.touch, other.bury, other.kick_job):
        with pytest.raises(greenstalk.NotFoundError):
            action(jobs[0].id if action == client.reserve_job else jobs[0])
    for job in jobs:
        client.delete(job)
    for action in (client.peek, client.delete, client.stats_job):
        with pytest.raises(greenstalk.NotFoundError):
            action(one)


def test_statistics(connect, greenstalk):
    """Every key that the client knows is there, with its value."""
    client = connect()
    number = client.put("job")
    assert client.stats_job(number) == {
        "id": number, "tube": "default", "state": "ready", "pri": greenstalk.DEFAULT_PRIORITY, "age": 0, "delay": 0,
        "ttr": greenstalk.DEFAULT_TTR, "time-left": 0, "file": 0, "reserves": 0, "timeouts": 0, "releases": 0,
        "buries": 0, "kicks": 0,
    } | {"age": client.stats_job(number)["age"]}  # fmt: skip
    client.use("foo")
    assert client.stats_tube("default") == {
        "name": "default", "current-jobs-urgent": 0, "current-jobs-ready": 1, "current-jobs-reserved": 0,
        "current-jobs-delayed": 0, "current-jobs-buried": 0, "total-jobs": 1, "current-using": 0,
        "current-watching": 1, "current-waiting": 0, "cmd-delete": 0, "cmd-pause-tube": 0, "pause": 0,
        "pause-time-left": 0,
    }  # fmt: skip
    told = client.stats()
    assert set(told) == set(greenstalk.Stats.__annotations__ if hasattr(greenstalk, "Stats") else told)
    assert (told["cmd-put"], told["current-connections"], told["draining"]) == (1, 1, "false")


def test_urgent_jobs_are_counted(connect, greenstalk):
    """Of those that are ready, the ones with a priority before 1,024, in a tube and in all."""
    client = connect()
    for priority in (0, 1023, 1024, 5):
        client.put("job", priority=priority)
    client.put("later", priority=0, delay=3600)
    client.reserve()
    assert client.stats_tube("default")["current-jobs-urgent"] == 2
    assert client.stats()["current-jobs-urgent"] == 2


def test_tubes(connect, greenstalk):
    """use, watch, ignore, pause and the lists."""
    client = connect()
    assert client.tubes() == client.watching() == ["default"]
    client.use("a")
    client.watch("b")
    assert client.using() == "a"
    assert set(client.tubes()) == {"default", "a", "b"}
    assert set(client.watching()) == {"default", "b"}
    client.ignore("b")
    with pytest.raises(greenstalk.NotIgnoredError):
        client.ignore("default")
    client.use("default")
    client.put("")
    client.pause_tube("default", 3)
    with pytest.raises(greenstalk.TimedOutError):
        client.reserve(timeout=0)
    assert client.reserve(timeout=30).body == ""
    with pytest.raises(greenstalk.JobTooBigError):
        client.put("x" * 2**16)


def test_peeking(connect, greenstalk):
    """Each state has its own first job, or none."""
    client = connect()
    for peek in (client.peek_ready, client.peek_delayed, client.peek_buried):
        with pytest.raises(greenstalk.NotFoundError):
            peek()
    number = client.put("ready")
    assert (client.peek_ready().id, client.peek_ready().body) == (number, "ready")
    for peek in (client.peek_delayed, client.peek_buried):
        with pytest.raises(greenstalk.NotFoundError):
            peek()


def test_a_connection_that_is_given(place, greenstalk):
    """A program that gave up its wait for a job leaves nothing behind that would take the next one."""
    host, _, port = place.doors()["beanstalk"][0].removeprefix("tcp://").rpartition(":")
    given = socket.create_connection((host, int(port)))
    given.settimeout(0.01)
    with greenstalk.Client(given) as client, pytest.raises(TimeoutError):
        client.reserve()
    with greenstalk.Client((host, int(port))) as other:
        other.put("job")
        assert other.reserve().body == "job"


def test_each_scenario_of_its_suite_has_its_test_here():
    """Nothing named in COVERED has been renamed or taken out."""
    here = vars(sys.modules[__name__])
    assert [name for name in COVERED.values() if not callable(here.get(name))] == []


def test_a_unix_socket(road, greenstalk, tmp_path):
    """The door listens there too, and the client speaks the same."""
    path = f"{tmp_path}/beans"
    (place,) = road.build("shop", shop={"gateways": {"beanstalk": {"listen": f"unix://{path}"}}})
    place.run("gateway")
    with greenstalk.Client(path) as client:
        client.put("job")
        assert client.reserve().body == "job"
