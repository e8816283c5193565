"""Read the end of a log in bounded time and memory."""

from __future__ import annotations

import asyncio

import pytest
from hypothesis import given
from hypothesis import strategies as st

from runway.errors import AmbiguousOutcome, NotFound, Rejected
from runway.jobs.log_excerpt import RAW_BYTES
from runway.kube.client import KubeClient
from runway.kube.log_tail import MAX_TAIL_READ_BYTES, follow_tail, read_tail
from runway.kube.transport import Response
from runway.text import end_states
from tests.support.builders import JOB, NAMESPACE, pod
from tests.support.fake_cluster import FakeKubernetes
from tests.support.fake_logs import START, Cut, FakeLog, Record

POD = pod(f"{JOB}-0")


def serving(log: FakeLog | None, *, node: str | None = "node-1") -> KubeClient:
    """Serve one pod with this log."""
    server = FakeKubernetes({NAMESPACE})
    placed = {} if node is None else {"nodeName": node}
    server.add("pods", {"metadata": {"name": POD.metadata.name, "namespace": NAMESPACE}, "spec": placed, "status": {}})
    if log is not None:
        server.logs[POD.metadata.name] = log
    return KubeClient(server, 1.0)


def written(*lines: bytes, **more: object) -> FakeLog:
    log = FakeLog(ended=True, **more)  # type: ignore[arg-type]
    log.write(*lines)
    return log


async def test_short_log_is_read_completely() -> None:
    end = await read_tail(serving(written(b"one", b"two")), POD, RAW_BYTES)
    assert (end.log, end.cut) == (b"one\ntwo\n", False)


async def test_long_log_is_cut_to_its_end() -> None:
    log = written(*(f"{number:08} {'x' * 2000}".encode() for number in range(90)))
    end = await read_tail(serving(log), POD, RAW_BYTES)
    assert (len(end.log), end.cut) == (RAW_BYTES, True)
    assert b"\n00000089 " in end.log
    assert len(log.queries) == 1


async def test_tail_of_a_log_with_more_lines_is_cut() -> None:
    end = await read_tail(serving(written(*[b"short"] * 150)), POD, RAW_BYTES)
    assert (end.log, end.cut) == (b"short\n" * 100, True)


async def test_fewer_lines_are_read_if_lines_are_long() -> None:
    log = FakeLog(ended=True)
    log.write(*[b"y" * 16384] * 99, partial=True)
    log.write(b"the end")
    assert MAX_TAIL_READ_BYTES < 99 * 16384
    end = await read_tail(serving(log), POD, RAW_BYTES)
    assert end.log == (b"y" * 16384 * 3 + b"the end\n")[-RAW_BYTES:]
    assert end.cut
    assert [query["tailLines"] for query in log.queries] == ["100", "60"]
    assert log.open == 0


BAR = b"".join(b"\r%3d%%|%s|" % (percent, b"#" * 100) for percent in range(100))


@pytest.mark.parametrize("seconds", [1, 100])
async def test_text_before_a_progress_bar_is_kept(seconds: int) -> None:
    """https://github.com/tqdm/tqdm/issues/1319: an epoch's bar is one line of megabytes."""
    log = FakeLog(ended=True)
    log.write(b"Traceback of a worker")
    bar = BAR * seconds * 5
    log.write(*(bar[at : at + 16384] for at in range(0, len(bar), 16384)), partial=True)
    log.write(b"\r100%", b"killed")
    end = await read_tail(serving(log), POD, RAW_BYTES)
    assert end.log == b"Traceback of a worker\n100%\nkilled\n"
    assert not end.cut
    followed = await follow_tail(serving(log), POD, RAW_BYTES, 10.0)
    assert followed.log.endswith(b"100%\nkilled\n")


@given(st.lists(st.sampled_from([b"a", b"bc", b"\r", b"\n", b"\r\n"]), max_size=40), st.integers(1, 9))
def test_end_states_do_not_depend_on_how_a_log_arrives(parts: list[bytes], size: int) -> None:
    text = b"".join(parts)
    log = written(cuts=[])
    log.records = [Record(START, text[at : at + size], partial=True) for at in range(0, len(text), size)]
    end = asyncio.run(read_tail(serving(log), POD, RAW_BYTES))
    assert end.log.decode() == end_states(text.decode())


async def test_progress_bar_without_end_is_bounded() -> None:
    log = FakeLog(ended=True)
    log.write(*[b"\r" + b"#" * 16383] * 60, partial=True)
    end = await read_tail(serving(log), POD, 100)
    assert end.log == b"#" * 100


async def test_unreadable_log_raises_the_cause() -> None:
    refused = Response(500, b'{"message": "no route to node"}')
    with pytest.raises(AmbiguousOutcome, match="no route"):
        await read_tail(serving(written(b"x", refusals=[refused])), POD, RAW_BYTES)
    with pytest.raises(Rejected):
        await read_tail(serving(None), POD, RAW_BYTES)
    with pytest.raises(Rejected):
        await read_tail(serving(None, node=None), POD, RAW_BYTES)
    with pytest.raises(NotFound):
        await read_tail(serving(None), pod("another"), RAW_BYTES)


async def test_log_is_followed_until_container_terminates() -> None:
    end = await follow_tail(serving(written(b"last words")), POD, RAW_BYTES, 10.0)
    assert (end.log, end.whole) == (b"last words\n", True)


async def test_follow_times_out_with_partial_log() -> None:
    log = FakeLog()
    log.write(b"so far")
    end = await follow_tail(serving(log), POD, RAW_BYTES, 0.05)
    assert (end.log, end.whole, log.open) == (b"so far\n", False, 0)


async def test_broken_follow_keeps_partial_log() -> None:
    log = written(b"so far", cuts=[Cut(4, AmbiguousOutcome("the connection broke"))])
    end = await follow_tail(serving(log), POD, RAW_BYTES, 10.0)
    assert (end.log, end.whole, log.open) == (b"so f", False, 0)
    with pytest.raises(AmbiguousOutcome):
        await follow_tail(serving(written(b"x", cuts=[Cut(0, AmbiguousOutcome("it broke"))])), POD, RAW_BYTES, 10.0)
