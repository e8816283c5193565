"""The end of a log is found in bounded time and memory, however the log is written and the connection behaves."""

from __future__ import annotations

import pytest

from runway.errors import AmbiguousOutcome, NotFound, Rejected
from runway.jobs.log_excerpt import RAW_BYTES
from runway.kube.client import KubeClient
from runway.kube.log_tail import MAX_BYTES, follow_tail, read_tail
from runway.kube.transport import Response
from tests.support.builders import JOB, NAMESPACE
from tests.support.fake_cluster import FakeKubernetes
from tests.support.fake_logs import Cut, FakeLog

POD = f"{JOB}-0"


def serving(log: FakeLog | None, *, node: str | None = "node-1") -> KubeClient:
    """A cluster with one pod, and this as its log."""
    server = FakeKubernetes({NAMESPACE})
    placed = {} if node is None else {"nodeName": node}
    server.add("pods", {"metadata": {"name": POD, "namespace": NAMESPACE}, "spec": placed, "status": {}})
    if log is not None:
        server.logs[POD] = log
    return KubeClient(server, 1.0)


def written(*lines: bytes, **more: object) -> FakeLog:
    log = FakeLog(ended=True, **more)  # type: ignore[arg-type]
    log.write(*lines)
    return log


async def test_a_short_log_is_read_whole() -> None:
    end = await read_tail(serving(written(b"one", b"two")), NAMESPACE, POD)
    assert (end.log, end.cut) == (b"one\ntwo\n", False)


async def test_of_a_long_one_the_end_is_held() -> None:
    log = written(*(f"{number:08} {'x' * 2000}".encode() for number in range(90)))
    end = await read_tail(serving(log), NAMESPACE, POD)
    assert (len(end.log), end.cut) == (RAW_BYTES, True)
    assert b"\n00000089 " in end.log
    assert len(log.queries) == 1


async def test_where_lines_are_too_long_the_last_is_read_alone() -> None:
    log = FakeLog(ended=True)
    log.write(*[b"y" * 16384] * 99, partial=True)
    log.write(b"the end")
    assert MAX_BYTES < 99 * 16384
    end = await read_tail(serving(log), NAMESPACE, POD)
    assert end.log == b"the end\n"
    assert [query["tailLines"] for query in log.queries] == ["100", "1"]
    assert log.open == 0


async def test_one_that_cannot_be_read_says_why() -> None:
    refused = Response(500, b'{"message": "no route to node"}')
    with pytest.raises(AmbiguousOutcome, match="no route"):
        await read_tail(serving(written(b"x", refusals=[refused])), NAMESPACE, POD)
    with pytest.raises(Rejected):
        await read_tail(serving(None), NAMESPACE, POD)
    with pytest.raises(Rejected):
        await read_tail(serving(None, node=None), NAMESPACE, POD)
    with pytest.raises(NotFound):
        await read_tail(serving(None), NAMESPACE, "another")


async def test_a_log_is_followed_until_the_container_has_ended() -> None:
    end = await follow_tail(serving(written(b"last words")), NAMESPACE, POD, 10.0)
    assert (end.log, end.whole) == (b"last words\n", True)


async def test_one_that_goes_on_is_given_up_with_what_there_was() -> None:
    log = FakeLog()
    log.write(b"so far")
    end = await follow_tail(serving(log), NAMESPACE, POD, 0.05)
    assert (end.log, end.whole, log.open) == (b"so far\n", False, 0)


async def test_a_follow_that_breaks_keeps_what_there_was() -> None:
    log = written(b"so far", cuts=[Cut(4, AmbiguousOutcome("the connection broke"))])
    end = await follow_tail(serving(log), NAMESPACE, POD, 10.0)
    assert (end.log, end.whole, log.open) == (b"so f", False, 0)
    with pytest.raises(AmbiguousOutcome):
        await follow_tail(serving(written(b"x", cuts=[Cut(0, AmbiguousOutcome("it broke"))])), NAMESPACE, POD, 10.0)
