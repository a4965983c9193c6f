"""Two processes copy at once, because one stood still: whatever it was doing, each subscriber has each message once."""

import contextlib
import itertools
from collections.abc import Iterator
from pathlib import Path

import pytest
from support.copiers import Copier, Dies, Published
from support.site import Site


@contextlib.contextmanager
def machines(directory: Path) -> Iterator[list[Copier]]:
    """Three copiers on machines with one store."""
    site = Site(directory, peers={"berlin": {"url": "http://127.0.0.1:9", "key": "k" * 40}}, topics={"prices": {}})
    try:
        yield [Copier(site.machine()) for _ in range(3)]
    finally:
        site.close()


@pytest.mark.parametrize("lost", [True, False], ids=["taken for dead", "slow"])
@pytest.mark.parametrize("turns", [1, 3])
def test_one_stands_still_while_another_copies(tmp_path, lost, turns):
    """At each of its steps, and goes on when the other has made one turn, or several; a third one then finishes."""
    with machines(tmp_path) as (one, two, three):
        for at in itertools.count():
            topic = Published(one.node, f"t{at}")
            topic.publish(5, 5, 3)

            def others(topic=topic):
                if lost:
                    one.lose_leases()
                topic.publish(7)
                for _ in range(turns):
                    topic.publish(5)
                    two.turn(topic.topic)
                topic.receive()

            with one.stopped(at, others) as step:
                one.work(topic.topic)
            topic.publish(3)
            three.work(topic.topic)
            assert not topic.wrong(), step
            topic.end()
            if not step:
                assert at > 20
                return


def test_one_stands_still_while_another_dies(tmp_path):
    """Each of them at each change it makes: what the dead one had begun is neither lost nor doubled by the late one."""
    for at in itertools.count():
        with machines(tmp_path / str(at)) as copiers:
            if not _all_deaths(copiers, at):
                assert at > 8
                return


def _all_deaths(copiers: list[Copier], at: int) -> bool:
    """Stop the first one at one of its changes, and let the second die at each of its own. Whether it came so far."""
    one, two, three = copiers
    for then in itertools.count():
        topic = Published(one.node, f"t{then}")
        topic.publish(5, 3)
        death = []

        def others(topic=topic, then=then, death=death):
            one.lose_leases()
            topic.publish(7)

            def die():
                raise Dies

            with two.stopped(then, die, writes=True) as step, contextlib.suppress(Dies):
                two.work(topic.topic)
            death += step
            topic.receive()

        with one.stopped(at, others, writes=True) as step:
            one.work(topic.topic)
        topic.publish(5)
        three.work(topic.topic)
        assert not topic.wrong(), (step, death)
        topic.end()
        if not death:
            break
    return bool(step)
