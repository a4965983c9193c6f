"""Lines to syslog: real sockets, and nobody who waits for one that takes nothing."""

import contextlib
import io
import logging
import os
import re
import socket
import subprocess
import sys
import threading
from functools import partial

import pytest

from dropr_core.cli.logs import to_error_stream
from dropr_core.cli.syslog import SyslogHandler
from dropr_core.errors import UsageError
from dropr_core.system.log_fields import about
from dropr_core.system.syslog_address import parse_syslog_address


@contextlib.contextmanager
def listener(kind, place):
    """A socket that stands for syslog."""
    with socket.socket(kind, socket.SOCK_DGRAM) as found:
        found.settimeout(60)
        found.bind(place)
        yield found


def log_to(address, stream, role="daemon", **options):
    """As `dropr daemon` logs with `--log syslog`."""
    return to_error_stream(role, stream=stream, node="shop", instead=partial(SyslogHandler, address=address), **options)


def test_a_line_reaches_the_syslog_of_this_machine(tmp_path):
    """Through its socket, as the C library writes: priority of the facility and level, time, name and pid."""
    errors = io.StringIO()
    with listener(socket.AF_UNIX, str(tmp_path / "log")) as syslog, log_to(str(tmp_path / "log"), errors):
        logging.getLogger("dropr.test").warning("berlin: down")
        logging.getLogger("dropr.test").info("berlin: up")
        first, second = syslog.recv(65536).decode(), syslog.recv(65536).decode()
    when = r"[A-Z][a-z]{2} [ 0-9]\d \d\d:\d\d:\d\d"
    assert re.fullmatch(rf"<28>{when} dropr\[{os.getpid()}\]: daemon  warning: berlin: down", first)
    assert second.startswith("<30>")
    assert errors.getvalue() == ""


def test_a_line_over_the_network_is_rfc_5424_with_fields():
    """Version, time with zone, host, program, pid, process, then node, message and peer as structured data."""
    with listener(socket.AF_INET, ("127.0.0.1", 0)) as syslog:
        address = f"udp://127.0.0.1:{syslog.getsockname()[1]}"
        with log_to(address, io.StringIO(), "worker-2", secrets=["hush-hush"]):
            fields = about(message=b"m" * 16, channel='a"]\\b', peer="hush-hush")
            logging.getLogger("dropr.test").error("it failed", extra=fields)
            line = syslog.recv(65536).decode()
    head, data = line.split(" [", 1)
    version, when, host, program, pid, process = head.split(" ")
    assert version == "<27>1"
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z", when)
    assert (host, program, pid, process) == (socket.gethostname(), "dropr", str(os.getpid()), "worker-2")
    assert data.startswith('dropr@32473 node="shop" logger="dropr.test" message_id="6d6d6d6d-')
    assert 'channel="a\\"\\]\\\\b" peer="***"] ' in data
    assert data.endswith("error: it failed")


def test_lines_over_tcp_are_counted():
    """Octet counting, so that what is in a line cannot end it; a traceback is lines of its own."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        server.settimeout(60)
        address = f"tcp://127.0.0.1:{server.getsockname()[1]}"
        with log_to(address, io.StringIO(), verbosity=2):
            try:
                raise ValueError("no\nsuch")
            except ValueError:
                logging.getLogger("dropr.test").exception("it failed")
            connection, _ = server.accept()
        with connection:
            connection.settimeout(60)
            data = b"".join(iter(partial(connection.recv, 65536), b""))
    lines = []
    while data:
        size, _, rest = data.partition(b" ")
        lines.append(rest[: int(size)].decode())
        data = rest[int(size) :]
    assert lines[0].endswith("error: it failed")
    assert any("Traceback" in line for line in lines[1:])
    assert all(line.startswith("<27>1 ") for line in lines)


def test_what_syslog_does_not_take_stands_on_the_error_stream(tmp_path):
    """A syslog that is not there is said once, and its lines are not lost."""
    errors = io.StringIO()
    with log_to(str(tmp_path / "nobody"), errors):
        logging.getLogger("dropr.test").info("one")
        logging.getLogger("dropr.test").info("two")
    said = errors.getvalue()
    assert said.count("takes nothing") == 1
    assert str(tmp_path / "nobody") in said
    assert said.index("takes nothing") < said.index("  one") < said.index("  two")


def test_nobody_waits_for_a_syslog_that_hangs(tmp_path):
    """While the thread that sends hangs in the network, events beyond what may wait go to the error stream at once."""
    errors, done = io.StringIO(), threading.Event()
    with log_to(str(tmp_path / "log"), errors) as handler:
        handler._lines = lambda _record: [b""][not done.wait(60) :]  # hangs, as in a send that does not end
        for number in range(1500):
            logging.getLogger("dropr.test").info("event %d", number)
        assert "event 1400" in errors.getvalue()
        done.set()


def test_syslog_that_was_started_anew_is_found_again(tmp_path):
    """The socket of before is gone with the old one; the next line opens the new one."""
    place, errors = tmp_path / "log", io.StringIO()
    with log_to(str(place), errors):
        for text in ("before", "after"):
            with listener(socket.AF_UNIX, str(place)) as syslog:
                logging.getLogger("dropr.test").info(text)
                assert syslog.recv(65536).decode().endswith(text)
            place.unlink()
    assert errors.getvalue() == ""


@pytest.mark.parametrize("text", ["", "log", "udp://", "http://host:1", "udp://host:99999", "tcp://[::1"])
def test_what_is_no_address_is_refused(text):
    """With the forms that there are."""
    with pytest.raises(UsageError, match="udp://HOST:514"):
        parse_syslog_address(text)


def test_a_usual_port_needs_no_word():
    """514 for UDP, 601 for TCP."""
    assert parse_syslog_address("udp://loghost").port == 514
    assert parse_syslog_address("tcp://[::1]").port == 601


@pytest.mark.e2e
def test_a_process_logs_as_its_configuration_says(tmp_path):
    """`logs:` in the YAML decides where the lines of `dropr daemon` go and how; `--log` counts for more."""
    place, file = tmp_path / "log", tmp_path / "shop.yaml"
    file.write_text(
        "node: shop\nstorage: memory\nlimits: {min_free: 0}\npeers: {}\n"
        f"logs: {{form: syslog, syslog: {place}, facility: local3}}\n"
    )
    environ = {name: value for name, value in os.environ.items() if name != "DROPR_LOG"}
    command = [sys.executable, "-m", "dropr_core", "daemon", "-c", str(file)]
    with listener(socket.AF_UNIX, str(place)) as syslog:
        process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True, env=environ)
        try:
            while not (line := syslog.recv(65536).decode()).endswith("daemon of shop: 0 peers"):
                assert "daemon" in line
        finally:
            process.terminate()
            errors = process.communicate(timeout=60)[1]
    assert line.startswith("<158>")
    assert errors == ""
    process = subprocess.Popen([*command, "--log", "json"], stderr=subprocess.PIPE, text=True, env=environ)
    try:
        line = process.stderr.readline()
    finally:
        process.terminate()
        process.communicate(timeout=60)
    assert '"node": "shop"' in line
