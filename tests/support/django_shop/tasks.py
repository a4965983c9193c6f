"""Tasks of each kind."""

from dropr_django.framework import tasks

import dropr_core as dropr

task = tasks.task
SEEN: list = []


class NoStock(Exception):
    """None left."""


@task
def add(one, two=0):
    """What comes back."""
    SEEN.append(("add", one, two))
    return one + two


@task(queue_name="mails", priority=50)
def mail(to):
    """Another queue."""
    SEEN.append(("mail", to))


@task
def fail(text="none\nleft"):
    """Raises."""
    raise NoStock(text)


@task(takes_context=True)
def tell(context, name):
    """What the context says."""
    return {"attempt": context.attempt, "id": context.task_result.id, "name": name}


@task
async def later(number):
    """A coroutine."""
    return number * 2


@task
def odd():
    """Returns what JSON cannot carry."""
    return object()


@task
def huge():
    """Returns what a receipt cannot carry."""
    return "x" * 100_000


@task
def again():
    """Asks to be tried again."""
    raise dropr.Retry("busy", after=3600)


@task(queue_name="here")
def here(value):
    """Stays on this node."""
    SEEN.append(("here", value))
    return value


def no_task():
    """A function that nobody marked."""
    SEEN.append("no task")
