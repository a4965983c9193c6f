"""Commands whose standard streams are closed or full, and words that are no UTF-8: what people's scripts do to us."""

import json
import os
import re
import subprocess
import sys

import pytest

from dropr_core.system.exit_codes import Exit


@pytest.fixture
def dropr(tmp_path):
    """Run ``dropr`` in a shell, with redirections; ``$DROPR`` is the command."""
    (tmp_path / "dropr.yaml").write_text(
        "node: shop\nlimits: {min_free: 0}\n"
        "peers: {ware: {url: 'http://127.0.0.1:9', key: '0123456789abcdef0123456789abcdef'}}\n"
        "channels: {texts: {to: ware, serializer: text}, plain: {to: ware}, json: {to: ware, serializer: json}}\n"
    )
    command = f"{sys.executable} -m dropr_core"

    def run(line, **options):
        return subprocess.run(
            ["bash", "-c", line.replace("dropr ", f"{command} ")], cwd=tmp_path, capture_output=True, timeout=60,
            check=False, **options,
        )  # fmt: skip

    return run


def stored(dropr):
    """The messages that wait."""
    return json.loads(dropr("dropr list --json").stdout)["messages"]


@pytest.mark.parametrize("streams", [">&-", "<&-", "2>&-", "<&- >&- 2>&-"])
def test_send_with_closed_streams_stores_once_and_ends_well(dropr, streams):
    """A script that is told of a failure sends again: what is stored is told as stored, whatever can be printed."""
    assert dropr(f"dropr send hello --to ware {streams}").returncode == Exit.OK
    assert len(stored(dropr)) == 1


def test_send_whose_id_cannot_be_printed_says_so_and_ends_well(dropr):
    """A full disk behind standard output does not make a stored message look like a failed one."""
    done = dropr("dropr send hello --to ware >/dev/full")
    (message,) = stored(dropr)
    assert done.returncode == Exit.OK
    assert f"{message['id']} is stored, but could not be printed".encode() in done.stderr


def test_receive_takes_nothing_when_nobody_can_read_it(dropr):
    """Acknowledged is only what was written; with standard output closed that is nothing."""
    with_message = "dropr receive plain"
    code = "import dropr_core; node = dropr_core.open('dropr.yaml'); node.put(b'kept', channel='plain'); node.close()"
    assert dropr(f'{sys.executable} -c "{code}"').returncode == 0
    closed = dropr(f"{with_message} >&-")
    assert closed.returncode == Exit.IO_ERROR
    assert b"nothing was taken" in closed.stderr
    assert dropr(with_message).stdout == b"kept\n"


@pytest.mark.parametrize("verb", ["status", "list", "count", "check", "plugins"])
def test_looking_with_closed_streams_is_no_internal_error(dropr, verb):
    """A verb that only shows things ends as ever when nobody listens."""
    assert dropr("dropr send x --to ware").returncode == Exit.OK
    assert dropr(f"dropr {verb} <&- >&- 2>&-").returncode == Exit.OK


def test_no_file_of_a_store_gets_the_number_of_a_closed_stream(dropr):
    """Descriptors 0 to 2 are open before anything else is opened, so no library prints into a database."""
    line = "dropr send x --to ware <&- >&- 2>&-; dropr fsck"
    assert dropr(line).returncode == Exit.OK


def test_words_that_are_no_utf8_are_carried_or_refused_by_name(dropr):
    """Bytes of a command line are sent as they are where bytes may be, and refused in one sentence where not."""
    bad = os.fsdecode(b"\xff\xfe")
    assert dropr(f"dropr send '{bad}' --channel plain").returncode == Exit.OK
    assert dropr('dropr cat $(dropr list --json | grep -o \'"id": "[^"]*\' | cut -c8-)').stdout == b"\xff\xfe"
    refused = dropr(f"dropr send '{bad}' --channel texts")
    assert refused.returncode == Exit.USAGE
    for line in (f"dropr send x --to '{bad}'", f"dropr show '{bad}'", f"dropr receive '{bad}'", f"dropr '{bad}'",
                 f"dropr status -c '/nowhere/{bad}'", f"dropr hold '{bad}'"):  # fmt: skip
        done = dropr(line)
        assert done.returncode not in {0, Exit.SOFTWARE}, line
        assert b"internal error" not in done.stderr
        assert b"Traceback" not in done.stderr


def test_a_file_whose_name_is_no_utf8_is_sent(dropr, tmp_path):
    """The header ``filename`` shows such a name by its escapes."""
    name = os.fsdecode(b"film\xff.mkv")
    (tmp_path / name).write_bytes(b"frames")
    assert dropr(f"dropr send --file '{name}' --channel plain").returncode == Exit.OK
    shown = dropr('dropr show $(dropr list --json | grep -o \'"id": "[^"]*\' | cut -c8-)').stdout
    assert rb"header filename: film\xff.mkv" in shown


def test_json_nested_too_deeply_is_a_mistake_of_its_sender(dropr):
    """Five thousand brackets are refused in one sentence, by Python's reader or, where that takes them, by ours."""
    deep = "[" * 5000 + "]" * 5000
    done = dropr("dropr send - --channel json", input=deep.encode())
    assert done.returncode == Exit.USAGE
    assert re.search(rb"nested (too deeply|more than 100 deep)[^\n]*\n\Z", done.stderr)
    assert stored(dropr) == []


def test_a_daemon_without_streams_lives(dropr, tmp_path):
    """Cron wrappers close all three: the daemon starts, works and ends by SIGTERM as ever."""
    line = (
        "dropr daemon <&- >&- 2>&- & pid=$!; for i in $(seq 200); do test -e shop-data/run/daemon.json && break; "
        "sleep 0.05; done; test -e shop-data/run/daemon.json && kill -TERM $pid && wait $pid"
    )
    assert dropr(line).returncode == Exit.OK
