"""Subscribers are notified of changed jobs, once per read."""

from __future__ import annotations

import asyncio

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
    await asyncio.sleep(0)
    assert not waiting.done(), "one tenant has at most half"
    queue.add(JobKey("runway-speech", "a"))
    assert await waiting == JobKey("runway-speech", "a")
    queue.done(A)
    assert (await queue.take()).name == "c"


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
