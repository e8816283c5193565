"""The part of the autoscaler in the wait of a pod: node starting, pool at its maximum, no capacity."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from runway.jobs.diagnosis.outcome import diagnose
from runway.jobs.models import ConditionView
from runway.jobs.snapshot import JobSnapshot, PoolSize
from runway.jobs.view import job_view
from runway.kube.objects import Event
from tests.support.builders import condition, event, job, moment, node, pod, unschedulable, warning

WAITS = pod(node=None, conditions=[unschedulable("0/1 nodes are available: 1 node(s) had untolerated taint {x}.")])
TRIGGERED = "pod triggered scale-up: [{eks-a10g-36c1 0->1 (max: 2)}]"
AT_MAXIMUM = (
    "pod didn't trigger scale-up: 1 node(s) didn't match Pod's node affinity/selector, 1 max node group size reached"
)
BACKOFF = "pod didn't trigger scale-up: 1 in backoff after failed scale-up"
UNFIT = "pod didn't trigger scale-up: 2 node(s) didn't match Pod's node affinity/selector"
KARPENTER_LIMIT = 'Failed to schedule pod, all available instance types exceed limits for nodepool "gpu"'
SMALL, FULL = PoolSize("a10g", 1, 2), PoolSize("a10g", 2, 2)


def conditions(*events: Event, pool: PoolSize | None = None) -> dict[str, ConditionView]:
    snapshot = JobSnapshot("vision", job(), (WAITS,), events=events, pool=pool)
    return {found.code: found for found in job_view(snapshot).conditions}


def hint(*events: Event, pool: PoolSize | None = None) -> str:
    """Return the hint of the job after its deadline passed in this wait."""
    gone = pod(node=None, conditions=[unschedulable("0/1 nodes are available: 1 node(s) had untolerated taint {x}.")],
               deleted=100, grace=30)  # fmt: skip
    failed = job(outcome="Failed", reason="DeadlineExceeded", started=0, deadline=60)
    failure = diagnose(JobSnapshot("vision", failed, (gone,), frozenset({gone.metadata.name}), events, pool=pool))
    assert failure is not None
    assert failure.code == "unschedulable"
    return failure.hint


@pytest.mark.parametrize(
    ("events", "pool", "code", "quoted"),
    [
        ((event(WAITS, "TriggeredScaleUp", TRIGGERED),), None, "node_starting", "eks-a10g-36c1 0->1"),
        ((event(WAITS, "TriggeredScaleUp", TRIGGERED),), FULL, "node_starting", "eks-a10g-36c1 0->1"),
        ((event(WAITS, "Nominated", "Pod should schedule on: nodeclaim/gpu-x7"),), None, "node_starting", "gpu-x7"),
        ((event(WAITS, "NotTriggerScaleUp", AT_MAXIMUM),), None, "pool_at_maximum", "1 max node group size reached"),
        ((event(WAITS, "NotTriggerScaleUp", AT_MAXIMUM),), FULL, "pool_at_maximum", "a10g has its maximum of 2 nodes"),
        ((warning(WAITS, "FailedScheduling", KARPENTER_LIMIT),), None, "pool_at_maximum", "exceed limits for nodepool"),
        ((), FULL, "pool_at_maximum", "pool a10g has its maximum of 2 nodes"),
        ((event(WAITS, "NotTriggerScaleUp", BACKOFF),), None, "no_capacity", "in backoff after failed scale-up"),
        ((event(WAITS, "NotTriggerScaleUp", BACKOFF),), SMALL, "no_capacity", "in backoff after failed scale-up"),
        (
            (event(WAITS, "NotTriggerScaleUp", AT_MAXIMUM, at=5), event(WAITS, "TriggeredScaleUp", TRIGGERED, at=9)),
            None, "node_starting", "0->1",
        ),
        (
            (event(WAITS, "TriggeredScaleUp", TRIGGERED, at=5), event(WAITS, "NotTriggerScaleUp", BACKOFF, at=9)),
            None, "no_capacity", "backoff",
        ),
    ],
)  # fmt: skip
def test_autoscaler_events_become_conditions(
    events: tuple[Event, ...], pool: PoolSize | None, code: str, quoted: str
) -> None:
    found = conditions(*events, pool=pool)
    assert list(found) == ["unschedulable", code]
    assert quoted in found[code].message


def test_pool_below_its_maximum_is_not_blamed_for_node_groups_of_other_pools() -> None:
    assert list(conditions(event(WAITS, "NotTriggerScaleUp", AT_MAXIMUM), pool=SMALL)) == ["unschedulable"]


@pytest.mark.parametrize(
    "events",
    [
        (),
        (event(WAITS, "NotTriggerScaleUp", UNFIT),),
        (warning(WAITS, "FailedScheduling", f"0/1 nodes are available: {AT_MAXIMUM}"),),
        (event(job(), "TriggeredScaleUp", TRIGGERED),),  # On another object.
        (event(WAITS, "Ready", TRIGGERED),),
    ],
)
def test_events_that_say_nothing_of_scaling_add_no_condition(events: tuple[Event, ...]) -> None:
    assert list(conditions(*events, pool=SMALL)) == ["unschedulable"]


def test_node_is_starting_since_the_first_event_that_no_refusal_followed() -> None:
    found = conditions(
        event(WAITS, "TriggeredScaleUp", TRIGGERED, at=5),
        event(WAITS, "NotTriggerScaleUp", BACKOFF, at=9),
        event(WAITS, "Nominated", "Pod should schedule on: nodeclaim/a", first=20, at=30),
        event(WAITS, "Nominated", "Pod should schedule on: nodeclaim/b", at=40),
    )
    assert found["node_starting"].since == moment(20)


def test_hint_never_blames_operators_while_a_node_is_on_its_way() -> None:
    assert "operators" in hint()
    starting = hint(event(WAITS, "TriggeredScaleUp", TRIGGERED))
    assert starting == "resubmit the job with a longer timeout_seconds, which includes the start of a node"
    assert "name another pool" in hint(pool=FULL)
    assert "resubmit the job later" in hint(event(WAITS, "NotTriggerScaleUp", BACKOFF))


def test_bound_pod_ignores_the_autoscaler() -> None:
    bound = pod(conditions=[condition("PodScheduled")])
    events = (event(bound, "TriggeredScaleUp", TRIGGERED),)
    snapshot = JobSnapshot("vision", job(), (bound,), events=events, nodes={"node-1": node()}, pool=FULL)
    assert job_view(snapshot).conditions == []


@given(
    st.sampled_from(["TriggeredScaleUp", "NotTriggerScaleUp", "Nominated", "FailedScheduling"]), st.text(max_size=300)
)
def test_hostile_event_text_is_shown_on_one_bounded_line(reason: str, text: str) -> None:
    hostile = f"{text}\x1b[2J\u202e in backoff after failed scale-up {'max cluster x' * 300}"
    for found in conditions(event(WAITS, reason, f"Failed to schedule pod{hostile}")).values():
        assert found.message.isprintable()
        assert len(found.message) < 1500
