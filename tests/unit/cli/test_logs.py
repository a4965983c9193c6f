"""What the processes say: one event is one line, and no secret is in it."""

import ast
import io
import json
import logging
import os
import re
from datetime import datetime
from pathlib import Path

from dropr_core.cli.logs import ErrorStream, Line, in_journal, to_error_stream
from dropr_core.model.names import Lane
from dropr_core.system.log_fields import about

LEVELS = {"debug", "info", "warning", "error", "exception", "critical", "log"}
TELLING = re.compile(r"format_id\(|\b(received|claim)\.id\b|\b\w+\.channel\b|self\._?peer\b|\bone\.peer\b|\blane\b")


def test_a_line_has_time_role_and_message():
    """An event is one line: local time to the second, the role, the text."""
    out = io.StringIO()
    with to_error_stream("daemon", stream=out):
        logging.getLogger("dropr.daemon").info("daemon of %s: %d peers", "shop", 2)
    when, message = out.getvalue()[:19], out.getvalue()[19:]
    assert when[4] == when[7] == "-"
    assert when[13] == when[16] == ":"
    assert message == " daemon  daemon of shop: 2 peers\n"


def test_a_peer_cannot_forge_lines_or_steer_the_terminal():
    """Line ends and control characters of a logged text are shown, not obeyed."""
    out = io.StringIO()
    with to_error_stream("server", stream=out):
        logging.getLogger("dropr").warning("refused: %s", "x\n2026-01-01 00:00:00 server  all is well\x1b[2J\x9b\u2028")
    assert out.getvalue().count("\n") == 1
    assert "\x1b" not in out.getvalue()
    assert "\\n2026-01-01" in out.getvalue()
    assert "warning: refused" in out.getvalue()


def test_secrets_are_masked_even_in_tracebacks():
    """A secret that the log was told of never appears, wherever it stands, also where one contains another."""
    out = io.StringIO()
    with to_error_stream("daemon", 2, secrets=["hunter2"], stream=out) as handler:
        handler.line.hide(["hunter2-longer", "abc"])
        try:
            raise ValueError("key hunter2-longer")
        except ValueError:
            logging.getLogger("dropr").exception("cannot use hunter2, abc")
    assert "hunter2" not in out.getvalue()
    assert "-longer" not in out.getvalue()
    assert "abc" in out.getvalue()  # too short to be masked: it would be found everywhere
    assert "    | Traceback" in out.getvalue()


def test_without_vv_an_exception_is_half_a_line():
    """A logged exception is its type and text behind the message; no traceback."""
    out = io.StringIO()
    with to_error_stream("worker", stream=out):
        try:
            raise OSError("disk gone")
        except OSError:
            logging.getLogger("dropr.worker").exception("cannot go on")
    assert out.getvalue().endswith("error: cannot go on: OSError: disk gone\n")


def test_verbosity_decides_what_is_said():
    """-q says warnings only, the default what an operator wants, -v all of dropr, -vv also the libraries."""
    said = {}
    for verbosity in (-1, 0, 1, 2):
        out = io.StringIO()
        with to_error_stream("x", verbosity, stream=out):
            logging.getLogger("dropr.a").debug("fine")
            logging.getLogger("dropr.a").info("news")
            logging.getLogger("dropr.a").warning("bad")
            logging.getLogger("lib").info("library")
        said[verbosity] = [line.split()[-1] for line in out.getvalue().splitlines()]
    assert said == {-1: ["bad"], 0: ["news", "bad"], 1: ["fine", "news", "bad"], 2: ["fine", "news", "bad", "library"]}


def test_what_code_of_the_user_logs_passes_through_where_it_runs():
    """In a worker its INFO is said by default, under its own name; -q keeps to warnings; elsewhere it is a library."""
    said = {}
    for own, verbosity in ((True, -1), (True, 0), (False, 0)):
        out = io.StringIO()
        with to_error_stream("worker", verbosity, stream=out, own=own):
            logging.getLogger("shop.returns").info("restocked %d", 7)
            logging.getLogger("shop.returns").debug("fine")
            logging.getLogger("shop.returns").warning("odd")
        said[own, verbosity] = [line.partition("worker  ")[2] for line in out.getvalue().splitlines()]
    odd = "warning: shop.returns: odd"
    assert said == {(True, -1): [odd], (True, 0): ["shop.returns: restocked 7", odd], (False, 0): [odd]}


def test_a_traceback_of_the_users_code_is_shown_by_default():
    """The record that says so has its traceback below it, each line marked; in JSON it is in the object anyway."""
    out = io.StringIO()
    with to_error_stream("worker", stream=out):
        try:
            raise ValueError("no such article")
        except ValueError as error:
            exc_info = (type(error), error, error.__traceback__)
            logging.getLogger("dropr.worker").warning("it failed", exc_info=exc_info, extra={"traceback": True})
            logging.getLogger("dropr.worker").warning("another", exc_info=exc_info)
    first, *rest = out.getvalue().splitlines()
    assert first.endswith("warning: it failed")
    assert all(line.startswith("    | ") for line in rest[:-1])
    assert rest[-2] == "    | ValueError: no such article"
    assert rest[-1].endswith("warning: another: ValueError: no such article")


def test_a_closed_or_broken_stream_costs_nothing_but_the_log():
    """Logging to a stream that is gone raises nothing, and neither does a call with the wrong arguments."""
    gone = io.StringIO()
    gone.close()
    with to_error_stream("x", stream=gone):
        logging.getLogger("dropr").warning("nobody hears this")
    wrong = logging.LogRecord("dropr", logging.WARNING, __file__, 1, "%d peers", ("no number",), None)
    assert "%d peers [badly logged: TypeError]" in Line("x").format(wrong)


def test_everything_is_put_back_after_the_block():
    """After the block the logging module is as it was."""
    root, ours = logging.getLogger(), logging.getLogger("dropr")
    before = root.level, ours.level, list(root.handlers)
    with to_error_stream("x", 2, stream=io.StringIO()):
        pass
    assert (root.level, ours.level, list(root.handlers)) == before


def test_the_journal_writes_the_time_itself(tmp_path):
    """In the system's journal, known by device and inode, the line has no time of its own."""
    with (tmp_path / "stream").open("w+") as stream:
        here = (tmp_path / "stream").stat()
        assert in_journal({"JOURNAL_STREAM": f"{here.st_dev}:{here.st_ino}"}, stream)
        assert not in_journal({"JOURNAL_STREAM": "1:2"}, stream)
        assert not in_journal({}, stream)


def test_a_log_of_json_lines_has_an_object_for_each_event():
    """Time, level, role, logger and message; a traceback within the object; secrets masked there as well."""
    stream = io.StringIO()
    with to_error_stream("daemon", secrets=["hush-hush"], stream=stream, form="json"):
        log = logging.getLogger("dropr.test")
        log.info("two\nlines of %s", "hush-hush")
        try:
            raise ValueError("hush-hush broke")
        except ValueError:
            log.exception("failed")
    first, second = (json.loads(line) for line in stream.getvalue().splitlines())
    assert (first["level"], first["role"], first["logger"]) == ("info", "daemon", "dropr.test")
    assert first["message"] == "two\nlines of ***"
    assert datetime.fromisoformat(first["time"]).tzinfo is not None
    assert "ValueError: *** broke" in second["traceback"]


def test_a_json_line_says_what_it_is_about_in_fields():
    """Node, process and pid on every line; message, channel, peer and lane on a line about them; secrets masked."""
    stream = io.StringIO()
    with to_error_stream("worker-2", secrets=["hush-hush"], stream=stream, form="json", node="shop"):
        log = logging.getLogger("dropr.test")
        log.info("about nothing")
        log.info("a message", extra=about(message=bytes(range(16)), channel="orders"))
        log.info("a lane", extra=about(lane=Lane("berlin", "orders", 5)))
        log.info("a caller", extra=about(caller="hush-hush:4711"))
        log.info("what code of the user's adds", extra={"about": "body", "payload": "body"})
    plain, message, lane, caller, own = (json.loads(line) for line in stream.getvalue().splitlines())
    assert (plain["node"], plain["role"], plain["pid"]) == ("shop", "worker-2", os.getpid())
    assert {"message_id", "channel", "peer", "lane"}.isdisjoint(plain)
    assert message["message_id"] == "00010203-0405-0607-0809-0a0b0c0d0e0f"
    assert message["channel"] == "orders"
    assert (lane["peer"], lane["channel"]) == ("berlin", "orders")
    assert lane["lane"] == str(Lane("berlin", "orders", 5))
    assert caller["caller"] == "***:4711"
    assert "body" not in own.values()


def test_lines_about_a_message_or_a_peer_carry_it_as_a_field():
    """No call in core writes an id, a channel or a peer into the text of a line without the field for it."""
    bare = []
    core = Path(__file__).resolve().parents[3] / "dropr_core"
    for path in sorted(core.rglob("*.py")):
        if path.relative_to(core).parts[0] in {"demo", "bench", "testing"}:
            continue
        for call in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if not (isinstance(call, ast.Call) and isinstance(call.func, ast.Attribute)):
                continue
            if call.func.attr not in LEVELS or not ast.unparse(call.func.value).endswith("log"):
                continue
            names = TELLING.search(" ".join(ast.unparse(one) for one in call.args[1:]))
            if names and not any(keyword.arg == "extra" for keyword in call.keywords):
                bare.append(f"{path.name}:{call.lineno}: {names[0]}")
    assert bare == []


def test_lines_in_the_journal_begin_with_their_priority():
    """Each line of an event, its traceback too, carries the priority that the journal sorts by."""
    stream = io.StringIO()
    handler = ErrorStream(Line("daemon", tracebacks=True, timed=False), stream, journal=True)
    for level in (logging.DEBUG, logging.INFO, logging.WARNING, logging.ERROR, logging.CRITICAL):
        handler.emit(logging.LogRecord("dropr", level, __file__, 1, "said", (), None))
    try:
        raise ValueError("it broke")
    except ValueError as error:
        info = (type(error), error, error.__traceback__)
        handler.emit(logging.LogRecord("dropr", logging.ERROR, __file__, 1, "failed", (), info))
    lines = stream.getvalue().splitlines()
    assert [line[:3] for line in lines[:5]] == ["<7>", "<6>", "<4>", "<3>", "<2>"]
    assert all(line.startswith("<3>") for line in lines[5:])
    assert len(lines) > 8
