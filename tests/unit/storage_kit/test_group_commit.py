"""Group commit: who leads, who gets which result, and what happens when something fails."""

import threading

import pytest

from dropr_core.errors import WriteFailed
from dropr_core.storage_kit.group_commit import BatchedJob, GroupCommit, are_told, in_one_transaction, tell_seen


class Planted(Exception):
    """A job that fails on purpose."""


def fail(_commit):
    """A job that fails."""
    raise Planted


class Meeting:
    """Holds the first commit until so many others wait for the next one."""

    def __init__(self, others):
        self.others, self.lists, self.group = others, [], GroupCommit(self.run_all)

    def run_all(self, jobs):
        """As a storage without transactions would."""
        self.lists.append(len(jobs))
        while len(self.lists) == 1 and len(self.group._waiting) < self.others:
            pass
        out = []
        for job in jobs:
            try:
                out.append(job(None))
            except Exception as error:
                out.append(error)
        return out


def together(group, *jobs):
    """What each job gave or raised, each from a thread of its own."""
    results = {}

    def run(index, job):
        try:
            results[index] = group.run(job)
        except BaseException as error:
            results[index] = type(error)

    threads = [threading.Thread(target=run, args=each) for each in enumerate(jobs)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(20)
    return [results[index] for index in range(len(jobs))]


def test_those_who_wait_share_the_next_commit_and_get_their_own_results():
    """Of four threads one leads alone, the three others share one commit; a failure is its own caller's alone."""
    meeting = Meeting(others=3)
    assert sorted(map(str, together(meeting.group, lambda _: 1, lambda _: 2, fail, lambda _: 3))) == sorted(
        map(str, [1, 2, 3, Planted])
    )
    assert meeting.lists == [1, 3]


def test_alone_a_failure_is_raised_and_the_next_goes_on():
    """A single caller sees what its job raised, and nobody stays in the way of the next."""
    group = GroupCommit(in_one_transaction(lambda job: job("commit")))
    with pytest.raises(Planted):
        group.run(fail)
    assert group.run(lambda commit: commit) == "commit"


def test_a_leader_that_is_interrupted_lets_nobody_believe_in_success():
    """Ctrl-C in the leader's commit: it propagates there, and those whom it led get WriteFailed."""
    meeting = Meeting(others=2)
    plain = meeting.run_all

    def run_all(jobs):
        if len(meeting.lists) == 1:
            meeting.lists.append(len(jobs))
            raise KeyboardInterrupt
        return plain(jobs)

    meeting.group._run_all = run_all
    got = together(meeting.group, *[lambda _: "done"] * 3)
    assert sorted(map(str, got)) == sorted(map(str, ["done", KeyboardInterrupt, WriteFailed]))
    assert meeting.group.run(lambda _: "next") == "next"


def test_jobs_of_one_kind_are_done_together_and_get_their_own_results():
    """Mixed jobs in one transaction: those of one kind in one go, each with the result of its own."""
    calls = []

    def double(_commit, items):
        calls.append(list(items))
        return [item * 2 for item in items]

    run_all = in_one_transaction(lambda job: job(None))
    assert run_all([BatchedJob(double, 1), lambda _: "alone", BatchedJob(double, 3)]) == [2, "alone", 6]
    assert calls == [[1, 3]]


def test_one_bad_job_takes_no_other_with_it():
    """The shared transaction fails, then each job gets one of its own: only the bad one has an error."""
    tried = []

    def transact(job):
        tried.append(job)
        return job(None)

    first, bad, third = in_one_transaction(transact)([lambda _: 1, fail, lambda _: 3])
    assert (first, third) == (1, 3)
    assert isinstance(bad, Planted)
    assert len(tried) == 4


def test_a_commit_that_may_have_gone_through_is_not_tried_again():
    """The flush after it failed: what was written may stay, and a second time it would be there twice."""
    tried = []

    def transact(job):
        tried.append(job)
        raise WriteFailed("the disk reported an error")

    results = in_one_transaction(transact)([lambda _: 1, lambda _: 2])
    assert [type(result) for result in results] == [WriteFailed, WriteFailed]
    assert len(tried) == 1


def test_each_is_told_when_its_work_is_seen():
    """Alone or with others, with the result of its own; others want to know nothing."""
    told = []

    def double(_commit, items):
        return [item * 2 for item in items]

    def transact(job):
        result = job(None)
        assert are_told(job)
        tell_seen(job, result)
        return result

    run_all = in_one_transaction(transact)
    first, second = (BatchedJob(double, number, told.append) for number in (1, 2))
    assert run_all([first, lambda _: "alone", BatchedJob(double, 3), second]) == [2, "alone", 6, 4]
    assert told == [2, 4]
    assert run_all([first]) == [2]
    assert told == [2, 4, 2]
    assert not are_told(BatchedJob(double, 1))
