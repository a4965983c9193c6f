"""Around the tasks: the node of each process, system checks, and which channels a worker takes."""

import os
import subprocess
import sys
import threading

import pytest
from django.core import checks
from django.core.exceptions import ImproperlyConfigured
from django.core.management import CommandError, call_command
from django.db import connections
from django.test import override_settings
from dropr_django import node
from dropr_django.checks import check_node
from dropr_django.configuration import node_config
from dropr_django.framework import ROOT, tasks
from dropr_django.handler import Options, set_up
from dropr_django.in_transaction import make_table
from dropr_django.opened import of_app
from dropr_django.worker import worker_config
from support.django_shop import HOME

import dropr_core as dropr
from dropr_core.errors import PluginError
from dropr_core.plugin.registry import find

GOOD = """
node: shop
data: ./data
limits: {min_free: 0}
peers: {warehouse: {url: "http://127.0.0.1:9", key: "0123456789-abcdef"}}
channels:
  default: {to: warehouse, serializer: json}
  post/mails: {serializer: json, retention: 1d}
  here: {serializer: json, retention: 1d}
  others: {serializer: json, handler: "python:os:getcwd"}
worker: {threads: 3}
outboxes: {django: {url: "sqlite:///DATABASE"}}
""".replace("DATABASE", str(HOME / "db.sqlite3"))


@pytest.fixture
def file(tmp_path):
    """The file of a node, and the setting that names it."""
    path = tmp_path / "shop.yaml"
    path.write_text(GOOD)
    with override_settings(DROPR={"NODE": str(path)}):
        yield path


def found(*more):
    """The ids of what `manage.py check` says of us."""
    return sorted(one.id for one in [*checks.run_checks(), *more] if one.id.startswith("dropr."))


def test_a_project_that_is_right_has_nothing_to_hear(file):
    """A good setting, file and queues: no message."""
    assert found() == []


@pytest.mark.parametrize(
    ("value", "words"),
    [(None, "names no node"), ({}, "names no node"), ("shop.yaml", "names no node"), ({"NODE": "a", "X": 1}, "no 'X'")],
    ids=["none", "empty", "text", "unknown"],
)
def test_the_setting_is_missing_or_wrong(value, words):
    """E001 says how it looks."""
    with override_settings(DROPR=value):
        (said,) = check_node()
        assert (said.id, words in said.msg, 'DROPR = {"NODE"' in said.hint) == ("dropr.E001", True, True)
        with pytest.raises(ImproperlyConfigured, match=words):
            node()


def test_the_file_is_missing_or_wrong(file):
    """E002 for each mistake in the file, with the place; and for a file that is not there."""
    file.write_text("node: shop\nchanels: {}\ndata: 7\n")
    said = check_node()
    assert {one.id for one in said} == {"dropr.E002"}
    assert any("chanels" in one.msg and "channels" in one.msg for one in said)
    assert f"dropr check -c {file}" in said[0].hint
    file.unlink()
    assert found() == ["dropr.E002"]


@pytest.mark.skipif(os.geteuid() == 0 and sys.platform != "linux", reason="root may write anywhere")
def test_the_data_directory_is_not_writable(file, monkeypatch):
    """E003 names it and says whose turn it is."""
    monkeypatch.setattr(os, "access", lambda *_args: False)
    (said,) = check_node()
    assert said.id == "dropr.E003"
    assert "chown" in said.hint


CHANGES = [
    ("dropr.E007", {"QUEUES": ["no such name!"]}, ""),
    ("dropr.E008", {"QUEUES": ["default", "elsewhere"]}, ""),
    ("dropr.E009", {}, "to: warehouse, serializer: text"),
    ("dropr.E010", {}, "serializer: json, retention: 1d, handler: 'command:true'"),
    ("dropr.W011", {}, "serializer: json"),
    ("dropr.E006", {"OPTIONS": {"CHANNELS": {"mail": "here"}}}, ""),
    ("dropr.E005", {"OPTIONS": {"DATABASE": "other"}}, ""),
]


def test_a_transaction_needs_a_table_that_the_daemon_finds(file, monkeypatch):
    """E013: TRANSACTIONAL without an outbox of the node in that database. E012: in a database that can have none."""
    file.write_text(GOOD.replace("db.sqlite3", "other.sqlite3"))
    backend = {"BACKEND": "dropr_django.backend.DroprBackend", "OPTIONS": {"TRANSACTIONAL": True}}
    with override_settings(TASKS={"default": backend}):
        (said,) = tasks.task_backends["default"].check()
        assert said.id == "dropr.E013"
        assert "outboxes: {django:" in said.hint
        monkeypatch.setattr("dropr_django.checks.connections", {"default": connections["default"].copy()})
        monkeypatch.setattr("django.db.backends.sqlite3.base.DatabaseWrapper.vendor", "oracle")
        (said,) = tasks.task_backends["default"].check()
        assert said.id == "dropr.E012"
        assert make_table(connections["default"]) is False


@pytest.mark.parametrize(("identity", "params", "channel"), CHANGES, ids=[one[0] for one in CHANGES])
def test_a_queue_is_wrong(file, identity, params, channel):
    """Each mistake in TASKS, or in the channel of a queue, has an id and a hint; at the first task it would be late."""
    if channel:
        file.write_text(GOOD.replace("to: warehouse, serializer: json", channel))
    backend = {"BACKEND": "dropr_django.backend.DroprBackend", "QUEUES": ["default"], **params}
    with override_settings(TASKS={"default": backend}):
        said = list(tasks.task_backends["default"].check())
    assert [one.id for one in said] == [identity]
    assert said[0].hint


def test_the_app_is_not_installed(file):
    """E004: without the app there is no node."""
    with override_settings(INSTALLED_APPS=["django.contrib.auth", "django.contrib.contenttypes"]):
        (said,) = tasks.task_backends["default"].check()
        assert said.id == "dropr.E004"
        with pytest.raises(ImproperlyConfigured, match="INSTALLED_APPS"):
            node()


def test_a_node_is_opened_once_and_closed_with_its_setting(file):
    """All threads of a process have one node; a setting that changes (as in tests) closes it."""
    got = []
    threads = [threading.Thread(target=lambda: got.append(node())) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert {id(one) for one in got} == {id(node())}
    with override_settings(DROPR={"NODE": str(file)}):
        assert node() is not got[0]
        with pytest.raises(dropr.DroprError):
            got[0].put({"a": 1}, channel="here")


@pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning")  # it goes well here; that is the point
def test_no_node_is_carried_across_a_fork(file):
    """A child that was forked (gunicorn --preload) has a node of its own, and the parent's goes on."""
    before = node()
    before.put({"n": 1}, channel="here")
    reader, writer = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            mine = node()
            mine.put({"n": 2}, channel="here")
            os.write(writer, b"good" if mine is not before else b"same")
            of_app().close()
        finally:
            os._exit(0)
    os.close(writer)
    with os.fdopen(reader, "rb") as pipe:
        assert pipe.read() == b"good"
    assert os.waitpid(child, 0)[1] == 0
    assert node() is before
    before.put({"n": 3}, channel="here")
    assert sorted(message.value["n"] for message in before.receive("here", wait=0)) == [1, 2, 3]


def test_nothing_is_opened_before_it_is_asked_for(file):
    """Setting up Django, checking and migrating open no store: `manage.py migrate` runs before there is one."""
    call_command("check", verbosity=0)
    call_command("migrate", verbosity=0)
    assert not (file.parent / "data").exists()


def test_a_worker_takes_the_queues_that_end_here(file):
    """Channels that lead to a peer are the peer's work, those of other handlers are `dropr worker`'s."""
    config = worker_config(node_config())
    assert {name for name, one in config.channels.items() if one.handler is not None} == {"post/mails", "here"}
    assert (config.worker.threads, config.worker.processes) == (3, 1)
    config = worker_config(node_config(), ["mails"], threads=5, processes=2)
    assert {name for name, one in config.channels.items() if one.handler is not None} == {"post/mails"}
    assert (config.worker.threads, config.worker.processes) == (5, 2)


def test_a_worker_that_has_nothing_to_do_says_why(file):
    """Wrong words of the command are answered with what there is."""
    with pytest.raises(CommandError, match=r"no backend has a queue 'x' \(known: default, here, mails\)"):
        call_command("dropr_worker", queue=["x"])
    with pytest.raises(CommandError, match="they are sent to peers"):
        call_command("dropr_worker", queue=["default"])
    with pytest.raises(CommandError, match="--threads: at least 1"):
        call_command("dropr_worker", threads=0)
    with (
        override_settings(TASKS={"default": {"BACKEND": f"{ROOT}.backends.dummy.DummyBackend"}}),
        pytest.raises(CommandError, match="TASKS names no backend"),
    ):
        call_command("dropr_worker")


def test_the_handler_is_found_by_its_name():
    """`handler: django:shop.settings` in the YAML is this distribution, and its options are checked."""
    found = find("handler", "django")
    assert found.distribution == "dropr-django"
    assert found.module.Options is Options


def test_a_handler_without_settings_says_what_to_do():
    """A worker that cannot set Django up ends with a sentence, not with a traceback."""
    code = "from dropr_django.handler import set_up\ntry:\n set_up('no.such')\nexcept Exception as e: print(repr(e))"
    env = {key: value for key, value in os.environ.items() if key != "DJANGO_SETTINGS_MODULE"}
    said = subprocess.run([sys.executable, "-c", code], env=env, capture_output=True, text=True, check=True).stdout
    assert said.startswith("PluginError(")
    assert "handler: django:shop.settings" in said
    set_up("ignored.where.django.is.ready")
    assert issubclass(PluginError, dropr.DroprError)
