"""Subscribers are notified of changed jobs, once per read."""

from __future__ import annotations

import asyncio

from runway.state.job_store import JobKey
from runway.state.subscriptions import Subscriptions

A, B = JobKey("runway-vision", "a"), JobKey("runway-vision", "b")


async def test_several_changes_are_one_notification() -> None:
    subscriptions = Subscriptions()
    with subscriptions.subscribe(A) as subscription:
        subscriptions.notify(A)
        subscriptions.notify(A)
        subscriptions.notify(B)
        assert [await subscription.wait(0.01), await subscription.wait(0.01)] == [True, False]
    assert len(subscriptions) == 0


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
