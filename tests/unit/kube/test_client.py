"""Each finished call to Kubernetes is counted once, by verb, kind and outcome."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from contextlib import aclosing, suppress

import pytest

from runway.errors import (
    AlreadyExists,
    AmbiguousOutcome,
    ClusterError,
    Conflict,
    NotExecuted,
    ResourceExpired,
    TooBusy,
)
from runway.kube.client import JOBS, OUTCOMES, PODS, KubeClient
from runway.kube.transport import Response
from tests.support.scripted import Script, Step, Watched, bookmark, expired, item, line, listed, refused

Call = tuple[str, str, str]


def scripted(*steps: Step) -> tuple[KubeClient, list[Call]]:
    """Return a client of a scripted API server, and its counted calls."""
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
async def test_call_is_counted_by_outcome(step: Step, outcome: str) -> None:
    kubernetes, counted = scripted(step)
    with suppress(ClusterError, TooBusy):
        await kubernetes.get_job("runway-vision", "a")
    assert counted == [("get", "jobs", outcome)]


@pytest.mark.parametrize("status", [200, 403, 500])
async def test_answer_that_is_not_utf_8_is_an_error_of_runway(status: int) -> None:
    kubernetes, _ = scripted(Response(status, b'{"metadata": {"resourceVersion": "\xff"}, "message": "\xff"}'))
    with pytest.raises(ClusterError):
        await kubernetes.list(PODS)


async def test_each_page_of_a_list_is_counted() -> None:
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
async def test_watch_is_counted_when_it_ends(step: Step, outcome: str) -> None:
    kubernetes, counted = scripted(step)
    with suppress(ClusterError):
        async for _ in kubernetes.watch(JOBS, "1"):
            assert counted == []
    assert counted == [("watch", "jobs", outcome)]


async def test_stream_closed_by_client_has_no_outcome() -> None:
    kubernetes, counted = scripted(Watched([line("ADDED", item("a", 2)), bookmark(3)]))
    async with aclosing(kubernetes.watch(JOBS, "1")) as changes:
        assert (await anext(changes)).type == "ADDED"
    assert counted == []


def test_every_error_has_its_own_outcome() -> None:
    assert set(OUTCOMES) == {*ClusterError.__subclasses__(), *AmbiguousOutcome.__subclasses__(), TooBusy}
    assert [error for error, outcome in OUTCOMES.items() if outcome == "conflict"] == [AlreadyExists, Conflict]
    assert len(set(OUTCOMES.values())) == len(OUTCOMES) - 1


class _Rejecting(Script):
    """Answers every request with 409 and this reason."""

    def __init__(self, reason: str | None) -> None:
        super().__init__([])
        self._reason = reason

    async def request(self, *_: object, **__: object) -> Response:
        return refused(409, reason=self._reason)


@pytest.mark.parametrize(
    ("verb", "reason", "error"),
    [
        ("create", "AlreadyExists", AlreadyExists),
        ("create", "Conflict", Conflict),  # As of a ResourceQuota that changed meanwhile: nothing was created.
        ("create", None, AlreadyExists),
        ("patch", "Conflict", Conflict),
        ("patch", "AlreadyExists", AlreadyExists),
        ("patch", None, Conflict),
        ("patch", "Unheard", Conflict),
        ("update", None, Conflict),
    ],
)
async def test_409_is_mapped_by_reason_then_by_verb(verb: str, reason: str | None, error: type[ClusterError]) -> None:
    kubernetes = KubeClient(_Rejecting(reason), 5)
    calls: dict[str, Callable[[], Awaitable[object]]] = {
        "create": lambda: kubernetes.create_job("runway-vision", {}),
        "patch": lambda: kubernetes.patch_job("runway-vision", "a", {}),
        "update": lambda: kubernetes.update_lease("runway-vision", "a", {}),
    }
    with pytest.raises(ClusterError) as caught:
        await calls[verb]()
    assert type(caught.value) is error
