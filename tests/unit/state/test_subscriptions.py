"""Subscribers are notified of changed jobs, once per read."""

from __future__ import annotations

import asyncio
import types
from collections.abc import Coroutine, Generator
from typing import Any, cast

from runway.state.job_store import JobKey
from runway.state.subscriptions import JobQueue, Subscriptions

A, B = JobKey("runway-vision", "a"), JobKey("runway-vision", "b")


async def test_several_changes_are_one_notification() -> None:
    subscriptions = Subscriptions()
    with subscriptions.subscribe(A) as subscription:
        subscriptions.notify(A)
        subscriptions.notify(A)
        subscriptions.notify(B)
        assert [await subscription.wait(0.01), await subscription.wait(0.01)] == [True, False]
    assert len(subscriptions) == 0


async def test_changed_job_waits_for_one_job_of_another_tenant_not_for_all() -> None:
    subscriptions = Subscriptions()
    changed = subscriptions.subscribe_all()
    other = JobKey("runway-speech", "a")
    for number in range(1000):
        subscriptions.notify(JobKey("runway-vision", str(number)))
    subscriptions.notify(other)
    assert other in [await changed.take(), await changed.take()]


async def test_slow_jobs_of_one_tenant_leave_places_for_another() -> None:
    queue = JobQueue(4)
    for name in "abc":
        queue.add(JobKey("runway-vision", name))
    assert [(await queue.take()).name, (await queue.take()).name] == ["a", "b"]
    waiting = asyncio.create_task(queue.take())
    for _ in range(3):
        await asyncio.sleep(0)
    assert not waiting.done(), "one tenant has at most half"
    queue.add(JobKey("runway-speech", "a"))
    assert await waiting == JobKey("runway-speech", "a")
    queue.done(A)
    assert (await queue.take()).name == "c"


async def test_other_tasks_have_a_turn_before_each_of_many_changed_jobs() -> None:
    queue, taken = JobQueue(), list[JobKey]()
    queue.add(A)
    queue.add(B)

    async def take_both() -> None:
        taken.append(await queue.take())
        taken.append(await queue.take())

    taking = asyncio.create_task(take_both())
    seen = set[int]()
    while not taking.done():
        await asyncio.sleep(0)
        seen.add(len(taken))
    assert seen == {0, 1, 2}


async def test_changed_jobs_are_taken_once_in_order_of_change() -> None:
    subscriptions = Subscriptions()
    changed = subscriptions.subscribe_all()
    for key in (A, B, A):
        subscriptions.notify(key)
    assert [await changed.take(), await changed.take()] == [A, B]
    waiting = asyncio.create_task(changed.take())
    await asyncio.sleep(0)
    assert not waiting.done()
    subscriptions.notify(B)
    assert await waiting == B


async def test_cancelled_worker_loses_no_job() -> None:
    queue = JobQueue(8)
    workers = [asyncio.create_task(queue.take()) for _ in range(4)]
    await asyncio.sleep(0)
    queue.add(A)
    workers[0].cancel()  # It waits for the change, which wakes it in the same turn.
    queue.add(B)
    taken = [await worker for worker in workers[1:3]]
    assert taken == [A, B]
    assert not workers[3].done()
    workers[3].cancel()


async def test_change_wakes_one_of_many_idle_workers() -> None:
    """The others would look in vain: with 16 workers that took ten times as long as all else for a changed job."""
    queue, pauses = JobQueue(16), 0

    @types.coroutine
    def counted(taking: Coroutine[Any, Any, JobKey]) -> Generator[Any, None, JobKey]:
        nonlocal pauses
        try:
            while True:
                paused = taking.send(None)
                pauses += 1
                yield paused
        except StopIteration as taken:
            return cast("JobKey", taken.value)

    async def work() -> JobKey:
        return await counted(queue.take())

    workers = [asyncio.create_task(work()) for _ in range(16)]
    await asyncio.sleep(0)
    before = pauses
    queue.add(A)
    for _ in range(10):
        await asyncio.sleep(0)
    assert [worker.result() for worker in workers if worker.done()] == [A]
    assert pauses - before <= 1
    for worker in workers:
        worker.cancel()
    await asyncio.gather(*workers, return_exceptions=True)
