"""Each call to Kubernetes is counted once, when it has ended, by what it was and how it went."""

from __future__ import annotations

from contextlib import aclosing, suppress

import pytest

from runway.errors import AmbiguousOutcome, ClusterError, NotExecuted, ResourceExpired, TooBusy
from runway.kube.client import JOBS, OUTCOMES, PODS, KubeClient
from runway.kube.transport import Response
from tests.support.scripted import Script, Step, Watched, bookmark, expired, item, line, listed, refused

Call = tuple[str, str, str]


def scripted(*steps: Step) -> tuple[KubeClient, list[Call]]:
    """Kubernetes that answers so, and what was counted."""
    counted: list[Call] = []
    return KubeClient(Script(list(steps)), 5, lambda *call: counted.append(call)), counted


@pytest.mark.parametrize(
    ("step", "outcome"),
    [
        (Response(200, b'{"metadata": {"name": "a", "namespace": "b", "resourceVersion": "1"}}'), "ok"),
        (refused(404), "missing"),
        (refused(409), "conflict"),
        (refused(403), "refused"),
        (refused(429), "not_done"),
        (NotExecuted("no connection"), "not_done"),
        (refused(500), "ambiguous"),
        (AmbiguousOutcome("no answer"), "ambiguous"),
        (TooBusy("no place"), "too_busy"),
    ],
)
async def test_a_call_is_counted_by_its_outcome(step: Step, outcome: str) -> None:
    kubernetes, counted = scripted(step)
    with suppress(ClusterError, TooBusy):
        await kubernetes.get_job("runway-vision", "a")
    assert counted == [("get", "jobs", outcome)]


async def test_each_page_of_a_list_is_a_call() -> None:
    kubernetes, counted = scripted(listed(1, after="x"), refused(410))
    with pytest.raises(ResourceExpired):
        await kubernetes.list(PODS)
    assert counted == [("list", "pods", "ok"), ("list", "pods", "expired")]


@pytest.mark.parametrize(
    ("step", "outcome"),
    [
        (Watched([bookmark(2)]), "ok"),
        (Watched([expired()]), "expired"),
        (Watched([bookmark(2)], broken=AmbiguousOutcome("reset")), "ambiguous"),
        (refused(403), "refused"),
        (NotExecuted("no connection"), "not_done"),
    ],
)
async def test_a_watch_is_counted_when_it_ends(step: Step, outcome: str) -> None:
    kubernetes, counted = scripted(step)
    with suppress(ClusterError):
        async for _ in kubernetes.watch(JOBS, "1"):
            assert counted == []
    assert counted == [("watch", "jobs", outcome)]


async def test_a_stream_that_is_closed_from_here_has_no_outcome() -> None:
    kubernetes, counted = scripted(Watched([line("ADDED", item("a", 2)), bookmark(3)]))
    async with aclosing(kubernetes.watch(JOBS, "1")) as changes:
        assert (await anext(changes)).type == "ADDED"
    assert counted == []


def test_every_error_of_a_call_has_an_outcome_of_its_own() -> None:
    assert set(OUTCOMES) == {*ClusterError.__subclasses__(), *AmbiguousOutcome.__subclasses__(), TooBusy}
    assert len(set(OUTCOMES.values())) == len(OUTCOMES)
