"""greenstalk, the Python client, against the door: what its own test suite asks of a beanstalkd, without timings."""

import os

import pytest
from support import clients

pytestmark = pytest.mark.e2e


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
    client.put("delayed", delay=1)
    with pytest.raises(greenstalk.NotFoundError):
        client.peek_ready()
    assert client.peek_delayed().body == "delayed"
    job = client.reserve(timeout=30)
    client.release(job, delay=1)
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
    client.pause_tube("default", 1)
    with pytest.raises(greenstalk.TimedOutError):
        client.reserve(timeout=0)
    assert client.reserve(timeout=30).body == ""
    with pytest.raises(greenstalk.JobTooBigError):
        client.put("x" * 2**16)


def test_a_unix_socket(road, greenstalk, tmp_path):
    """The door listens there too, and the client speaks the same."""
    path = f"{tmp_path}/beans"
    (place,) = road.build("shop", shop={"gateways": {"beanstalk": {"listen": f"unix://{path}"}}})
    place.run("gateway")
    with greenstalk.Client(path) as client:
        client.put("job")
        assert client.reserve().body == "job"
