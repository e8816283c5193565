"""The reflector against a scripted API server: requests, pauses and updates."""

from __future__ import annotations

import asyncio
from contextlib import suppress
from itertools import pairwise
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from runway.backoff import Timing
from runway.errors import AmbiguousOutcome, NotExecuted, ResponseTooLarge, TooBusy
from runway.kube.client import EVENTS, IDLE_SECONDS, JOBS, MAX_EVENT_BYTES, PODS, KubeClient
from runway.kube.decode import IsKnown
from runway.kube.reflector import Bookmark, Disconnected, Relisted, reflect
from runway.kube.transport import Response
from tests.support.scripted import Script, ScriptEnded, Step, Watched, bookmark, expired, item, line, listed, refused

BROKEN = AmbiguousOutcome("the connection broke")


async def follow(*steps: Step, kind: Any = JOBS, is_known: IsKnown = lambda _: False) -> tuple[list[str], Script]:
    """Run the reflector until the script ends; each pause is the longest of its range."""
    script = Script(list(steps))
    updates: list[str] = []
    timing = Timing(clock=lambda: script.now, sleep=script.sleep, jitter=lambda: 1.0)
    changes = reflect(KubeClient(script, 5), kind, timing, is_known=is_known)
    with suppress(ScriptEnded):
        async for change in changes:
            updates.append(describe(change))  # noqa: PERF401 (what came before the script ended is to be kept)
    return updates, script


def describe(change: Any) -> str:
    """Describe one update."""
    if isinstance(change, Relisted):
        return f"list {change.version}: {' '.join(found.metadata.name for found in change.items)}".rstrip()
    if isinstance(change, Disconnected):
        return f"lost: {change.reason}"
    if isinstance(change, Bookmark):
        return "bookmark"
    return f"{change.type} {change.object.metadata.name}"


async def test_lists_then_watches_from_last_version() -> None:
    updates, script = await follow(
        listed(10, item("a", 7)),
        Watched([line("ADDED", item("b", 11)), line("MODIFIED", item("a", 12))]),
        Watched([line("DELETED", item("b", 13))]),
        Watched(),
    )
    assert updates == ["list 10: a", "ADDED b", "MODIFIED a", "DELETED b"]
    assert script.trace[:4] == ["list", "watch from 10", "watch from 12", "watch from 13"]


async def test_watch_requests_bookmarks_and_timeout() -> None:
    _, script = await follow(listed(10), Watched(), kind=PODS)
    page, watch = script.queries
    assert (page["path"], page["limit"]) == ("/api/v1/pods", "500")
    assert watch["path"] == "/api/v1/pods"
    assert (watch["watch"], watch["allowWatchBookmarks"], watch["timeoutSeconds"]) == ("true", "true", "300")


async def test_bookmark_advances_version() -> None:
    updates, script = await follow(listed(10), Watched([bookmark(50)]), Watched([bookmark(60)]), Watched())
    assert updates == ["list 10:", "bookmark", "bookmark"]
    assert script.trace[:4] == ["list", "watch from 10", "watch from 50", "watch from 60"]


async def test_event_of_known_version_advances_watch_as_bookmark() -> None:
    updates, script = await follow(
        listed(10),
        Watched([line("ADDED", item("a", 11)), line("MODIFIED", item("a", 12)), line("DELETED", item("a", 13))]),
        Watched([line("ADDED", item("b", 14))]),
        Watched(),
        is_known=lambda metadata: metadata.resource_version in ("12", "13", "14"),
    )
    assert updates == ["list 10:", "ADDED a", "bookmark", "DELETED a", "bookmark"]
    assert script.trace[:4] == ["list", "watch from 10", "watch from 13", "watch from 14"]


async def test_version_expired_during_watch_relists_after_pause() -> None:
    updates, script = await follow(listed(10, item("a", 7)), Watched([expired()]), listed(90, item("b", 80)))
    assert updates == ["list 10: a", "list 90: b"]
    assert script.trace == ["list", "watch from 10", "sleep 0.5", "list"]


async def test_version_expired_before_watch_relists_after_pause() -> None:
    updates, script = await follow(listed(10), refused(410, "too old"), listed(90))
    assert updates == ["list 10:", "list 90:"]
    assert script.trace == ["list", "watch from 10", "sleep 0.5", "list"]


async def test_list_with_expired_continue_token_restarts() -> None:
    updates, script = await follow(listed(10, item("a", 1), after="p2"), refused(410, "token expired"), listed(20))
    assert updates == ["lost: Kubernetes answered 410: token expired", "list 20:"]
    assert script.trace == ["list", "list from p2", "sleep 0.5", "list"]


async def test_pages_form_one_list_of_last_version() -> None:
    updates, script = await follow(
        listed(10, item("a", 1), item("b", 2), after="p2"),
        listed(10, item("c", 3), after="p3"),
        listed(10, item("d", 4)),
    )
    assert updates == ["list 10: a b c d"]
    assert script.trace == ["list", "list from p2", "list from p3"]


@pytest.mark.parametrize(
    ("failure", "reason"),
    [
        (NotExecuted("no connection"), "no connection"),
        (AmbiguousOutcome("no answer in time"), "no answer in time"),
        (TooBusy("too many calls"), "too many calls"),
        (refused(500, "etcd is away"), "Kubernetes answered 500: etcd is away"),
        (refused(403, "no"), "Kubernetes answered 403: no"),
        (refused(429, "slow down"), "Kubernetes answered 429: slow down"),
        (Response(503, b"<html>"), "Kubernetes answered 503"),
        (Response(200, b"<html>"), "the answer of Kubernetes could not be read"),
        (Response(200, b'{"items": []}'), "the answer of Kubernetes could not be read"),
    ],
    ids=["no connection", "time-out", "too busy", "500", "403", "429", "a proxy's page", "not JSON", "not a list"],
)
async def test_failed_list_is_reported_and_retried_after_pause(failure: Step, reason: str) -> None:
    updates, script = await follow(failure, listed(10))
    assert updates[0].startswith(f"lost: {reason}")
    assert updates[1:] == ["list 10:"]
    assert script.trace == ["list", "sleep 0.5", "list"]


@pytest.mark.parametrize(
    ("failure", "reason"),
    [
        (Watched(broken=BROKEN), "the connection broke"),
        (Watched([line("ADDED", item("a", 11))], BROKEN), "the connection broke"),
        (NotExecuted("no connection"), "no connection"),
        (refused(500, "etcd is away"), "Kubernetes answered 500: etcd is away"),
        (Watched([line("ERROR", {"code": 500, "message": "internal"})]), "internal"),
        (Watched([b"garbage\n"]), "a watch event could not be read"),
        (Watched([b"\xff\xfe\n"]), "a watch event could not be read"),
        (Watched([b"[]\n"]), "a watch event could not be read"),
        (Watched([line("RENAMED", item("a", 11))]), "watch failed"),
        (Watched([b'{"type": "ADDED"}\n']), "a watch event could not be read"),
        (Watched([b"x" * (MAX_EVENT_BYTES + 1)]), f"a watch event is larger than {MAX_EVENT_BYTES} bytes"),
    ],
    ids=[
        "broken at once",
        "broken after an event",
        "no connection",
        "refused",
        "an error event",
        "garbage",
        "not UTF-8",
        "not an event",
        "an unknown type",
        "no object",
        "a line without end",
    ],
)
async def test_failed_watch_is_reported_and_relisted(failure: Step, reason: str) -> None:
    updates, script = await follow(listed(10), failure, listed(90))
    assert updates[-2:] == [f"lost: {reason}", "list 90:"]
    assert script.trace == ["list", "watch from 10", "sleep 0.5", "list"]


async def test_back_off_is_bounded_and_reset_by_event() -> None:
    updates, script = await follow(
        *[NotExecuted("no connection")] * 6, listed(10), Watched([bookmark(11)]), Watched(broken=BROKEN), listed(20)
    )
    assert [step for step in script.trace if step.startswith("sleep")] == [
        *[f"sleep {pause}" for pause in (0.5, 1, 2, 4, 5, 5)],
        "sleep 0.5",
    ]
    assert updates.count("lost: no connection") == 6


async def test_server_without_watch_is_backed_off() -> None:
    _, script = await follow(*[listed(10), refused(500)] * 4)
    assert [step for step in script.trace if step.startswith("sleep")] == [f"sleep {pause}" for pause in (0.5, 1, 2, 4)]


async def test_watch_that_closes_at_once_is_retried_after_pause() -> None:
    updates, script = await follow(listed(10), *[Watched()] * 4)
    assert updates == ["list 10:"]
    assert script.trace == [
        "list",
        *[
            "watch from 10",
            "sleep 0.5",
            "watch from 10",
            "sleep 1",
            "watch from 10",
            "sleep 2",
            "watch from 10",
            "sleep 4",
        ],
    ]


async def test_quiet_watch_of_events_is_renewed_before_it_counts_as_dead() -> None:
    updates, script = await follow(listed(10), Watched(seconds=60), Watched(seconds=61), kind=EVENTS)
    assert updates == ["list 10:", "bookmark", "bookmark"]
    assert script.trace == ["list", "watch from 10", "watch from 10"]
    assert float(script.queries[1]["timeoutSeconds"]) < IDLE_SECONDS


async def test_watch_of_events_that_closes_at_once_is_no_sign_of_life() -> None:
    updates, script = await follow(listed(10), Watched(), Watched(seconds=1), kind=EVENTS)
    assert updates == ["list 10:"]
    assert script.trace == ["list", "watch from 10", "sleep 0.5", "watch from 10", "sleep 1"]


async def test_quiet_watch_of_jobs_is_no_sign_of_life() -> None:
    updates, _ = await follow(listed(10), Watched(seconds=300), Watched(seconds=300))
    assert updates == ["list 10:"]


async def test_only_first_watch_follows_list_without_pause() -> None:
    _, script = await follow(
        refused(500), listed(1), Watched(), Watched(broken=BROKEN), listed(2), refused(410), refused(503), listed(3)
    )
    without_pause = [pair for pair in pairwise(script.trace) if not any(step.startswith("sleep") for step in pair)]
    assert without_pause == [("list", "watch from 1"), ("list", "watch from 2")]


async def test_event_cut_by_end_of_stream_is_ignored() -> None:
    whole = line("ADDED", item("b", 12))
    updates, script = await follow(listed(10), Watched([line("ADDED", item("a", 11)), whole[:-9]]), Watched([whole]))
    assert updates == ["list 10:", "ADDED a", "ADDED b"]
    assert script.trace[2] == "watch from 11"


CHANGES = b"".join(
    [line("ADDED", item("a", 11)), bookmark(12), line("MODIFIED", item("é", 13)), line("DELETED", item("a", 14))]
)


@given(st.lists(st.integers(0, len(CHANGES)), max_size=12))
def test_chunk_boundaries_do_not_matter(cuts: list[int]) -> None:
    places = [0, *sorted(cuts), len(CHANGES)]
    chunks = [CHANGES[start:end] for start, end in pairwise(places)]
    updates, _ = asyncio.run(follow(listed(10), Watched(chunks)))
    assert updates == ["list 10:", "ADDED a", "bookmark", "MODIFIED é", "DELETED a"]


async def test_list_of_large_objects_uses_smaller_pages() -> None:
    too_large = ResponseTooLarge("an answer of Kubernetes has more than 16 MiB")
    updates, script = await follow(
        listed(10, item("a", 1), after="x"), too_large, too_large, listed(10, item("b", 2), after="y"), listed(10)
    )
    assert updates[0] == "list 10: a b"
    asked = [(query["limit"], query.get("continue")) for query in script.queries[:5]]
    assert asked == [("500", None), ("500", "x"), ("62", "x"), ("7", "x"), ("14", "y")]


async def test_object_with_undecodable_metadata_does_not_end_watch() -> None:
    broken = {"metadata": {"name": "b", "namespace": "runway-vision", "resourceVersion": "none"}}
    updates, script = await follow(
        listed(10),
        Watched([line("ADDED", item("a", 11)), line("ADDED", broken)]),
        Watched([line("ADDED", item("c", 12))]),
    )
    assert [words for words in updates if "ADDED" in words] == ["ADDED a", "ADDED ", "ADDED c"]
    assert script.trace[:3] == ["list", "watch from 10", "watch from 11"]


async def test_list_after_timeout_uses_smaller_pages() -> None:
    late = AmbiguousOutcome("the Kubernetes API did not answer within 2.5 s")
    _, script = await follow(late, late, listed(10, item("a", 1), after="x"), listed(10, item("b", 2)))
    asked = [(query["limit"], query.get("continue")) for query in script.queries[:4]]
    assert asked == [("500", None), ("62", None), ("7", None), ("14", "x")]
