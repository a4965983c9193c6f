"""The handler `python`: a function of the user's; and targets that no built-in handler takes."""

import asyncio
import sys
import threading
import time

import pytest
from unit.builtin.works import LONG, work

from dropr_core.builtin.handlers import command, webhook
from dropr_core.builtin.handlers import python as python_handler
from dropr_core.errors import ConfigError, PluginError


@pytest.fixture
def code(tmp_path, monkeypatch):
    """A directory with a module of the user's."""
    (tmp_path / "code").mkdir()
    (tmp_path / "code" / "dropr_user_code.py").write_text(
        "import asyncio, threading\n"
        "class Shop:\n    @staticmethod\n    def on(work): return work.attempt\n"
        "def on_order(work): return {'got': work.value, 'id': work.id}\n"
        "async def on_return(work): await asyncio.sleep(0); return threading.current_thread().name\n"
        "async def forever(work): await asyncio.sleep(1e6)\n"
        "async def fails(work): raise KeyError('sku')\n"
        "def generator(work): yield 1\n"
        "def two(work, more): ...\n"
        "five = 5\n"
    )
    (tmp_path / "code" / "dropr_broken_code.py").write_text("import dropr_no_such_library\n")
    monkeypatch.setattr(sys, "path", list(sys.path))
    yield tmp_path / "code"
    sys.modules.pop("dropr_user_code", None)


def test_a_function_gets_the_work_and_its_return_is_the_result(make, code):
    """`python:module:function` calls the function with the Work object."""
    handler = make("python", "dropr_user_code:on_order", path=str(code))
    assert handler.handle(work(b"x")) == {"got": "x", "id": "00010203-0405-0607-0809-0a0b0c0d0e0f"}
    assert make("python", "dropr_user_code:Shop.on", path=str(code)).handle(work(attempt=3)) == 3


def test_code_is_found_in_the_current_directory(make, code, monkeypatch):
    """A worker started beside the user's code finds it without any option."""
    monkeypatch.chdir(code)
    assert make("python", "dropr_user_code:Shop.on").handle(work()) == 1


def test_async_functions_run_on_one_loop_of_the_handler(make, code):
    """Many threads may call an async function; all run on the one event loop thread; errors come back."""
    handler = make("python", "dropr_user_code:on_return", path=str(code))
    names = []
    threads = [threading.Thread(target=lambda: names.append(handler.handle(work()))) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(LONG)
    assert names == ["dropr-handler-loop"] * 8
    with pytest.raises(KeyError, match="sku"):
        make("python", "dropr_user_code:fails", path=str(code)).handle(work())


def test_close_cancels_what_still_awaits(make, code):
    """A handler that waits for ever does not keep the worker from ending."""
    handler = make("python", "dropr_user_code:forever", path=str(code))
    ends = []

    def call():
        try:
            handler.handle(work())
        except BaseException as error:
            ends.append(type(error).__name__)

    thread = threading.Thread(target=call)
    thread.start()
    deadline = time.monotonic() + LONG
    while handler._loop is None or not asyncio.all_tasks(handler._loop):
        assert time.monotonic() < deadline
        time.sleep(0.001)
    handler.close()
    thread.join(LONG)
    assert ends == ["CancelledError"]
    with pytest.raises(PluginError, match="closed"):
        handler.handle(work())


@pytest.mark.parametrize(
    ("target", "says"),
    [
        ("dropr_user_code:on_oder", "no function on_oder; did you mean 'on_order'"),
        ("dropr_no_such_module:f", "there is no module dropr_no_such_module"),
        ("dropr_broken_code:f", "ModuleNotFoundError: No module named 'dropr_no_such_library'"),
        ("dropr_user_code:five", "five is a int and cannot be called"),
        ("dropr_user_code:generator", "is a generator"),
        ("dropr_user_code:two", "cannot call two(work, more) with one argument"),
    ],
)
def test_a_function_that_cannot_serve_is_refused_at_start(make, code, target, says):
    """Mistakes show when the worker starts, not when the first message comes."""
    with pytest.raises(PluginError, match=r"^handler python:") as caught:
        make("python", target, path=str(code))
    assert says in str(caught.value)


@pytest.mark.parametrize(
    ("kind", "target"),
    [("python", "shop.on_order"), ("python", "shop:"), ("python", "a b:c"), ("webhook", "ftp://x/"),
     ("webhook", "http://"), ("webhook", "http://x:99999/"), ("command", ""), ("command", "a 'b")],
)  # fmt: skip
def test_a_target_of_the_wrong_form_is_a_mistake_of_the_configuration(make, kind, target):
    """The mistake is said at its place in the YAML."""
    with pytest.raises(ConfigError, match=r"channels\.orders\.handler\.target"):
        make(kind, target)


def test_the_modules_are_reached_through_their_entry_points_only():
    """The three built-in handlers use the same door as everybody's."""
    assert all(callable(module.dropr_handler) for module in (command, python_handler, webhook))
