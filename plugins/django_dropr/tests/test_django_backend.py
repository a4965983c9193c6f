"""Django's tasks over dropr: enqueued at once, run elsewhere, told back."""

import asyncio
import datetime as dt
import pathlib

import pytest
from django.core.exceptions import ImproperlyConfigured
from django.db import transaction
from django.utils import timezone
from dropr_django import node
from dropr_django.backend import DroprBackend
from dropr_django.framework import TaskResultDoesNotExist, TaskResultStatus, signals, tasks
from dropr_django.priorities import place_of
from support.django_shop import tasks as shop_tasks
from support.nodes import eventually

from dropr_core.errors import QueueFull
from dropr_core.model.names import priority_of_rank


def ended(result):
    """The same, as soon as it has ended."""

    def look():
        result.refresh()
        return result.is_finished

    eventually(look, what=f"{result.task.name} has ended")
    return result


def test_a_task_is_enqueued_while_the_line_is_down_and_its_value_comes_home(pair, handle):
    """`enqueue` returns though the other machine cannot be reached; when it can, the task is run there, once, and the
    result says its value, when, where and in which attempt.
    """
    pair.unplug("warehouse")
    result = shop_tasks.add.enqueue(2, two=3)
    assert result.status == TaskResultStatus.READY
    assert shop_tasks.add.get_result(result.id).status == TaskResultStatus.READY
    with pytest.raises(ValueError, match="not finished"):
        result.return_value  # noqa: B018
    pair.plug_in("warehouse")
    assert handle("warehouse") == 1
    ended(result)
    assert (result.status, result.return_value, result.attempts) == (TaskResultStatus.SUCCESSFUL, 5, 1)
    assert (result.args, result.kwargs, result.backend) == ([2], {"two": 3}, "default")
    assert result.enqueued_at <= result.started_at <= result.finished_at
    assert result.worker_ids[0].startswith("warehouse@")
    assert shop_tasks.SEEN == [("add", 2, 3)]


def test_the_asynchronous_surface_is_the_same(pair, handle):
    """`aenqueue`, `aget_result` and `arefresh` from an event loop."""

    async def enqueue():
        result = await shop_tasks.add.aenqueue(1)
        return result, await shop_tasks.add.aget_result(result.id)

    result, found = asyncio.run(enqueue())
    assert found.id == result.id
    handle("warehouse")
    assert ended(result).return_value == 1
    asyncio.run(result.arefresh())
    assert result.return_value == 1


def test_what_a_task_raises_comes_home_with_its_traceback(pair, handle):
    """Tried as often as the channel says, it has failed: with the exception's class, its text, and the line."""
    result = shop_tasks.fail.enqueue()
    assert handle("warehouse") == 2
    (error,) = ended(result).errors
    assert result.status == TaskResultStatus.FAILED
    assert error.exception_class is shop_tasks.NoStock
    assert error.traceback.startswith("Traceback (most recent call last):\n")
    assert 'File "support/django_shop/tasks.py", line ' in error.traceback
    assert "    raise NoStock(text)\n" in error.traceback
    assert error.traceback.endswith("support.django_shop.tasks.NoStock: none\nleft\n")
    assert str(pathlib.Path(__file__).anchor + "tmp") not in error.traceback
    buried = next(iter(pair["warehouse"].inbox.all(_everything())))
    assert "task raised support.django_shop.tasks.NoStock: none ↵ left" in buried.reason


def _everything():
    from dropr_core.contracts.storage import Selection

    return Selection()


def test_tracebacks_are_cut_to_what_a_receipt_carries(pair, handle):
    """A text of megabytes is cut; class and innermost line stay."""
    result = shop_tasks.fail.enqueue("ä" * 1_000_000)
    handle("warehouse")
    (error,) = ended(result).errors
    assert error.exception_class is shop_tasks.NoStock
    assert "raise NoStock(text)" in error.traceback
    assert len(error.traceback) < 4096


def test_tasks_of_each_kind(pair, handle):
    """A coroutine, one that takes its context, one on another queue: each is run as Django's own backends do."""
    later, tell, mail = shop_tasks.later.enqueue(4), shop_tasks.tell.enqueue("ada"), shop_tasks.mail.enqueue("ada@x")
    assert handle("warehouse") == 3
    assert ended(later).return_value == 8
    assert ended(tell).return_value == {"attempt": 1, "id": tell.id, "name": "ada"}
    assert ended(mail).return_value is None
    assert ("mail", "ada@x") in shop_tasks.SEEN


def test_a_value_that_cannot_travel(pair, handle):
    """What JSON cannot carry is a failure that is not tried again, as with Django's own backends; what is too large is
    a success whose error says that the value stayed behind.
    """
    odd, huge = shop_tasks.odd.enqueue(), shop_tasks.huge.enqueue()
    assert handle("warehouse") == 2
    assert ended(odd).status == TaskResultStatus.FAILED
    assert "JSON cannot carry" in odd.errors[0].traceback
    assert ended(huge).status == TaskResultStatus.SUCCESSFUL
    assert huge.return_value is None
    assert "store it, and return where it is" in huge.errors[0].traceback
    assert huge.task.func is shop_tasks.huge.func


def test_a_task_may_ask_to_be_tried_again(pair, handle):
    """`dropr_core.Retry` means in a task what it means in a handler."""
    result = shop_tasks.again.enqueue()
    assert handle("warehouse") == 1
    result.refresh()
    assert result.status == TaskResultStatus.READY
    assert pair["warehouse"].inbox.counts()["default"]["delayed"] == 1


def test_run_after_is_kept(pair, handle):
    """A task with `run_after` is not run before."""
    soon = timezone.now() + dt.timedelta(hours=1)
    shop_tasks.add.using(run_after=soon).enqueue(1)
    past = timezone.now() - dt.timedelta(hours=1)
    shop_tasks.add.using(run_after=past).enqueue(2)
    assert handle("warehouse") == 1
    assert shop_tasks.SEEN == [("add", 2, 0)]


def test_urgent_tasks_are_run_first(pair, handle):
    """All of Django's 201 priorities are kept apart, 100 first; 0 is dropr's own default."""
    places = [place_of(priority) for priority in range(100, -101, -1)]
    ranks = [place.get("rank", 1 << 16) for place in places]
    assert ranks == sorted(set(ranks))
    assert [priority_of_rank(place_of(one)["rank"]) for one in (100, 85, 84, 1, -1, -100)] == [0, 0, 1, 4, 6, 9]
    assert place_of(0) == {"priority": 5}
    pair.unplug("warehouse")
    for priority in (-100, 0, 7, 99, -3, 8, 100):
        shop_tasks.add.using(priority=priority).enqueue(priority)
    pair.plug_in("warehouse")
    handle("warehouse")
    assert [one for _, one, _ in shop_tasks.SEEN] == [100, 99, 8, 7, 0, -3, -100]


def test_a_task_of_this_node_itself(pair, handle):
    """A queue whose channel has no route is for this node's own worker: it is shown as running, and its value is kept
    for as long as the channel keeps what is done.
    """
    result = shop_tasks.here.enqueue({"a": [1, None]})
    assert result.status == TaskResultStatus.READY
    states = []
    watch = lambda **_more: states.append(shop_tasks.here.get_result(result.id).status)  # noqa: E731
    signals.task_started.connect(watch)
    try:
        assert handle("shop") == 1
    finally:
        signals.task_started.disconnect(watch)
    assert states == [TaskResultStatus.RUNNING]
    result.refresh()
    assert (result.status, result.return_value) == (TaskResultStatus.SUCCESSFUL, {"a": [1, None]})
    assert result.started_at <= result.finished_at


def test_a_task_of_this_node_that_fails(pair, handle):
    """Its error is read where it is buried."""
    result = shop_tasks.fail.using(queue_name="here").enqueue("gone")
    handle("shop")
    result.refresh()
    assert result.status == TaskResultStatus.FAILED
    assert result.errors[0].exception_class is shop_tasks.NoStock
    assert "raise NoStock(text)" in result.errors[0].traceback


def test_nothing_leaves_a_transaction_that_is_rolled_back(pair, handle):
    """Inside of `atomic` a task is sent when that has committed, under the id that `enqueue` gave; not otherwise."""
    with transaction.atomic():
        result = shop_tasks.here.enqueue(1)
        with pytest.raises(TaskResultDoesNotExist):
            shop_tasks.here.get_result(result.id)
    assert shop_tasks.here.get_result(result.id).status == TaskResultStatus.READY
    with pytest.raises(RuntimeError), transaction.atomic():
        shop_tasks.here.enqueue(2)
        raise RuntimeError
    with transaction.atomic():
        shop_tasks.here.using(backend="loose").enqueue(3)  # ENQUEUE_ON_COMMIT: False
        assert pair["shop"].inbox.counts()["here"]["ready"] == 2
    handle("shop")
    assert [value for _, value in shop_tasks.SEEN] == [1, 3]


def test_only_tasks_of_installed_apps_are_run(pair, handle, seen):
    """What a message names is called if it is a task of an installed app. A function, another module, what is no call:
    none is imported or called; an unknown task is tried again, for this worker may be older than who sent it.
    """
    shop = pair["shop"]
    for path in ("os.system", "support.django_shop.tasks.no_task", "support.nodes.free_port", "this"):
        shop.put({"task": path, "args": ["true"]}, channel="here")
    for body in (7, {"task": 7}, {"task": "a.b", "args": "ab"}, {"task": "a.b", "priority": "high"}):
        shop.put(body, channel="here")
    assert handle("shop") == 8
    assert seen == []
    reasons = " ".join(one.reason for one in shop.inbox.all(_everything()))
    assert "is in no installed app" in reasons
    assert "mark it with @task" in reasons
    assert "this is no task of Django" in reasons
    import sys

    assert "this" not in sys.modules


def test_results_that_do_not_exist(pair):
    """An id that is none, one that nobody knows, a message that is no task: Django's error."""
    for wrong in ("nonsense", "01990000-0000-7000-8000-000000000000", pair["shop"].put({"a": 1}, channel="here")):
        with pytest.raises(TaskResultDoesNotExist):
            tasks.default_task_backend.get_result(wrong)


def test_a_full_queue_is_said(pair, monkeypatch):
    """What `send` raises, `enqueue` raises: nothing is dropped in silence."""

    def full(*_args):
        raise QueueFull("no room")

    monkeypatch.setattr(type(pair["shop"].outbox), "append", full)
    with pytest.raises(QueueFull):
        shop_tasks.add.enqueue(1)
    with pytest.raises(TypeError):
        shop_tasks.add.enqueue(object())


def test_signals_are_sent_and_may_fail(pair, handle, caplog):
    """Django's three signals are sent where they happen; a receiver that raises costs no task."""
    heard = []
    listeners = {name: lambda name=name, **_more: heard.append(name) for name in ("enqueued", "started", "finished")}

    def broken(**_more):
        raise RuntimeError("a receiver's own")

    for name, listener in listeners.items():
        getattr(signals, f"task_{name}").connect(listener)
    signals.task_finished.connect(broken)
    try:
        result = shop_tasks.add.enqueue(1)
        handle("warehouse")
    finally:
        for name, listener in listeners.items():
            getattr(signals, f"task_{name}").disconnect(listener)
        signals.task_finished.disconnect(broken)
    assert heard == ["enqueued", "started", "finished"]
    assert ended(result).return_value == 1
    assert "a receiver's own" in caplog.text


def test_the_flags_say_what_is_there():
    """What Django asks a backend before it takes a task."""
    backend = tasks.task_backends["default"]
    assert isinstance(backend, DroprBackend)
    assert backend.supports_defer
    assert backend.supports_async_task
    assert backend.supports_get_result
    assert backend.supports_priority


def test_wrong_options_are_refused():
    """A mistake in OPTIONS is said with what there is."""
    with pytest.raises(ImproperlyConfigured, match=r"TASKS\['x'\]: OPTIONS has no 'CHANELS' \(known: CHANNELS"):
        DroprBackend("x", {"OPTIONS": {"CHANELS": {}}})


def test_a_large_argument_travels_as_a_file(pair, handle):
    """Arguments above what fits into an envelope arrive whole."""
    text = "y" * 200_000
    result = shop_tasks.add.enqueue(text, two="z")
    assert result.id in {one.id for one in [shop_tasks.add.get_result(result.id)]}
    eventually(lambda: handle("warehouse") == 1)
    assert [("add", text, "z")] == shop_tasks.SEEN


def test_the_node_of_a_process(pair):
    """`dropr_django.node()` is the one that tasks are sent with."""
    assert node() is pair["shop"]
