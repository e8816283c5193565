"""Read the end of a log in bounded time and memory."""

from __future__ import annotations

import pytest

from runway.errors import AmbiguousOutcome, NotFound, Rejected
from runway.jobs.log_excerpt import RAW_BYTES
from runway.kube.client import MAX_TAIL_READ_BYTES, KubeClient, follow_tail, read_tail
from runway.kube.transport import Response
from tests.support.builders import JOB, NAMESPACE
from tests.support.fake_cluster import FakeKubernetes
from tests.support.fake_logs import Cut, FakeLog

POD = f"{JOB}-0"


def serving(log: FakeLog | None, *, node: str | None = "node-1") -> KubeClient:
    """Serve one pod with this log."""
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


async def test_short_log_is_read_completely() -> None:
    end = await read_tail(serving(written(b"one", b"two")), NAMESPACE, POD, RAW_BYTES)
    assert (end.log, end.cut) == (b"one\ntwo\n", False)


async def test_long_log_is_cut_to_its_end() -> None:
    log = written(*(f"{number:08} {'x' * 2000}".encode() for number in range(90)))
    end = await read_tail(serving(log), NAMESPACE, POD, RAW_BYTES)
    assert (len(end.log), end.cut) == (RAW_BYTES, True)
    assert b"\n00000089 " in end.log
    assert len(log.queries) == 1


async def test_only_last_line_is_read_if_lines_are_long() -> None:
    log = FakeLog(ended=True)
    log.write(*[b"y" * 16384] * 99, partial=True)
    log.write(b"the end")
    assert MAX_TAIL_READ_BYTES < 99 * 16384
    end = await read_tail(serving(log), NAMESPACE, POD, RAW_BYTES)
    assert end.log == b"the end\n"
    assert [query["tailLines"] for query in log.queries] == ["100", "1"]
    assert log.open == 0


async def test_unreadable_log_raises_the_cause() -> None:
    refused = Response(500, b'{"message": "no route to node"}')
    with pytest.raises(AmbiguousOutcome, match="no route"):
        await read_tail(serving(written(b"x", refusals=[refused])), NAMESPACE, POD, RAW_BYTES)
    with pytest.raises(Rejected):
        await read_tail(serving(None), NAMESPACE, POD, RAW_BYTES)
    with pytest.raises(Rejected):
        await read_tail(serving(None, node=None), NAMESPACE, POD, RAW_BYTES)
    with pytest.raises(NotFound):
        await read_tail(serving(None), NAMESPACE, "another", RAW_BYTES)


async def test_log_is_followed_until_container_terminates() -> None:
    end = await follow_tail(serving(written(b"last words")), NAMESPACE, POD, RAW_BYTES, 10.0)
    assert (end.log, end.whole) == (b"last words\n", True)


async def test_follow_times_out_with_partial_log() -> None:
    log = FakeLog()
    log.write(b"so far")
    end = await follow_tail(serving(log), NAMESPACE, POD, RAW_BYTES, 0.05)
    assert (end.log, end.whole, log.open) == (b"so far\n", False, 0)


async def test_broken_follow_keeps_partial_log() -> None:
    log = written(b"so far", cuts=[Cut(4, AmbiguousOutcome("the connection broke"))])
    end = await follow_tail(serving(log), NAMESPACE, POD, RAW_BYTES, 10.0)
    assert (end.log, end.whole, log.open) == (b"so f", False, 0)
    with pytest.raises(AmbiguousOutcome):
        await follow_tail(
            serving(written(b"x", cuts=[Cut(0, AmbiguousOutcome("it broke"))])), NAMESPACE, POD, RAW_BYTES, 10.0
        )
