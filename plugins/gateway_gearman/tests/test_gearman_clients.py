"""Real clients and workers, unchanged: gear, pygearman, and the C library by its command `gearman`."""

import subprocess
import threading

import pytest
from gearman_nodes import start
from support import clients
from support.nodes import PATIENCE, eventually

pytestmark = [pytest.mark.e2e, pytest.mark.filterwarnings("ignore")]  # of strangers


def test_the_c_library(shop):
    """`gearman` as a client and as a worker: foreground, background, priorities, a unique, a large job."""
    gearman = clients.program("gearman", "gearman-tools")
    where = ("-h", "127.0.0.1", "-p", str(shop.port))
    with subprocess.Popen(
        [gearman, *where, "-w", "-f", "upper", "--", "tr", "a-z", "A-Z"], stderr=subprocess.DEVNULL
    ) as worker:
        try:
            assert clients.run(gearman, *where, "-f", "upper", stdin=b"hello") == b"HELLO"
            assert clients.run(gearman, *where, "-I", "-f", "upper", stdin=b"high") == b"HIGH"
            assert clients.run(gearman, *where, "-L", "-u", "mine", "-f", "upper", stdin=b"low") == b"LOW"
            clients.run(gearman, *where, "-b", "-f", "upper", stdin=b"quiet")
        finally:
            worker.kill()
    with subprocess.Popen(
        [gearman, *where, "-w", "-f", "count", "--", "wc", "-c"], stderr=subprocess.DEVNULL
    ) as worker:
        try:  # it reads all of its input before it writes, as `gearman -w` wants it
            assert int(clients.run(gearman, *where, "-f", "count", stdin=b"x" * 1_000_000)) == 1_000_000
        finally:
            worker.kill()
    admin = clients.program("gearadmin", "gearman-tools")
    assert b"upper" in clients.run(admin, *where, "--status")
    assert clients.run(admin, *where, "--server-version").startswith(b"1.1")
    clients.run(admin, *where, "--create-function", "made")
    clients.run(admin, *where, "--drop-function", "made")
    assert clients.run(admin, *where, "--getpid").split()[-1].isdigit()


def test_gear(shop):
    """gear: foreground with data, status and warnings, background, failures, the admin's requests."""
    gear = clients.module("gear")
    client, worker = gear.Client("client"), gear.Worker("worker")
    client.addServer("127.0.0.1", shop.port)
    worker.addServer("127.0.0.1", shop.port)
    try:
        client.waitForServer(PATIENCE)
        worker.waitForServer(PATIENCE)
        worker.registerFunction("build:job")
        job = gear.TextJob("build:job", '{"a": 1}', unique="one")
        client.submitJob(job)
        got = worker.getJob()
        assert (got.name, got.arguments, got.unique) == ("build:job", b'{"a": 1}', b"one")
        got.sendWorkStatus(3, 4)
        got.sendWorkData(b"some ")
        got.sendWorkWarning(b"careful ")
        got.sendWorkComplete(b"done")
        eventually(lambda: job.complete)
        assert (job.failure, job.warning) == (False, True)
        assert "".join(job.data) == "some careful done"
        assert (int(job.numerator), int(job.denominator)) == (3, 4)
        failing = gear.TextJob("build:job", "2")
        client.submitJob(failing, precedence=gear.PRECEDENCE_HIGH)
        worker.getJob().sendWorkFail()
        eventually(lambda: failing.complete)
        assert failing.failure
        assert client.setOption("exceptions")
        raising = gear.TextJob("build:job", "3")
        client.submitJob(raising, precedence=gear.PRECEDENCE_LOW)
        worker.getJob().sendWorkException(b"oh no")
        eventually(lambda: raising.complete)
        assert raising.exception == "oh no"
        quiet = gear.TextJob("build:job", "4")
        client.submitJob(quiet, background=True)
        connection = client.active_connections[0]
        status = gear.StatusAdminRequest()
        connection.sendAdminRequest(status)
        assert b"build:job\t1\t0\t1" in status.response
        cancel = gear.CancelJobAdminRequest(quiet.handle)
        connection.sendAdminRequest(cancel)
        assert cancel.response == b"OK\r\n"
    finally:
        client.shutdown()
        worker.shutdown()


def test_pygearman(shop):
    """pygearman, which is gearman3 mended for today's Python: many jobs at once, a failure, background, the admin."""
    gearman = clients.module("gearman")
    where, stop, failed = [f"127.0.0.1:{shop.port}"], threading.Event(), []

    class Worker(gearman.GearmanWorker):
        def after_poll(self, any_activity):
            return not stop.is_set()

    def work():
        worker = Worker(where)
        worker.set_client_id("three")

        def reverse(worker, job):
            if job.data == b"fail":
                raise ValueError(job.data)
            worker.send_job_status(job, 1, 2)
            worker.send_job_data(job, b"data ")
            return job.data[::-1]

        worker.register_task(b"reverse", reverse)
        try:
            worker.work(poll_timeout=0.1)
        except Exception as error:
            failed.append(error)
        worker.shutdown()

    thread = threading.Thread(target=work)
    thread.start()
    try:
        client = gearman.GearmanClient(where)
        done = client.submit_job(b"reverse", b"abc", poll_timeout=PATIENCE)
        assert (done.state, done.result) == (gearman.JOB_COMPLETE, b"cba")
        assert client.submit_job(b"reverse", b"fail", poll_timeout=PATIENCE).state == gearman.JOB_FAILED
        jobs = [{"task": b"reverse", "data": b"%d" % number} for number in range(50)]
        results = client.submit_multiple_jobs(jobs, poll_timeout=PATIENCE)
        assert [one.result for one in results] == [(b"%d" % number)[::-1] for number in range(50)]
        quiet = client.submit_job(
            b"later", b"1", background=True, priority=gearman.PRIORITY_HIGH, poll_timeout=PATIENCE
        )
        assert client.get_job_status(quiet, poll_timeout=PATIENCE).status["known"]
        admin = gearman.GearmanAdminClient(where, poll_timeout=PATIENCE)
        assert {one["task"]: one["queued"] for one in admin.get_status()}["later"] == 1
        assert any(one["client_id"] == "three" for one in admin.get_workers())
        assert admin.get_version().startswith("OK 1.1") or admin.get_version()
        assert admin.ping_server()
        client.shutdown()
        admin.shutdown()
    finally:
        stop.set()
        thread.join(PATIENCE)
    assert not failed


def test_c_library_jobs_survive_a_kill(shop):
    """Background jobs of `gearman -b` are there after a kill of the gateway, each once."""
    gearman = clients.program("gearman", "gearman-tools")
    for number in range(10):
        clients.run(gearman, "-h", "127.0.0.1", "-p", str(shop.port), "-b", "-f", "keep", stdin=b"%d\n" % number)
    shop.processes[0].kill()
    start(shop)
    worker = (gearman, "-h", "127.0.0.1", "-p", str(shop.port), "-w", "-c", "10", "-f", "keep")
    done = clients.run(*worker, "--", "tee", "-a", str(shop.directory / "done"))
    assert done is not None
    assert sorted((shop.directory / "done").read_bytes().split(), key=int) == [b"%d" % number for number in range(10)]
