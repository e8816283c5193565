"""ConnectionTable aborts at a bound, and all bounds together fit into memory."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

import yaml

from runway.admission.rate_limit import MAX_BODIES
from runway.http_server import bounds as limit
from runway.http_server.bounds import Bounds, ConnectionTable
from runway.quantity import parse_bytes
from runway.settings import Settings

ROOT = Path(__file__).parents[3]
MIB = 1 << 20
FIELD_BYTES = 170
"""Memory of a header field beside its text: a tuple, two bytes objects, a list item (CPython 3.11)."""
REQUEST_BYTES = 2000
"""Memory of a queued request beside its head: ASGI scope and cycle."""
CONNECTION_BYTES = 24 << 10
"""Memory of a connection beside its buffers: parser, transport, task and frames of one request."""


@dataclass(eq=False, slots=True)
class Fake:
    """A connection that records why it was aborted."""

    aborted: str | None = None

    def abort(self, reason: str) -> None:
        self.aborted = reason


def admitted(table: ConnectionTable, count: int, *, busy: bool = False) -> list[Fake]:
    connections = [Fake() for _ in range(count)]
    for connection in connections:
        assert table.admit(connection)
        if busy:
            table.mark_busy(connection)
    return connections


def test_idle_connection_stays_open_for_longer_than_clients_reuse_it() -> None:
    """Otherwise a request can meet the close of its connection, and gets no response (`Bounds.idle_seconds`)."""
    reused_for_seconds = {"httpx": 5, "aiohttp": 15, "AWS ALB": 60, "nginx": 60, "Go": 90}
    assert Bounds().idle_seconds > max(reused_for_seconds.values())


def test_new_connection_replaces_longest_idle_connection() -> None:
    table = ConnectionTable(Bounds(max_connections=3))
    first, second, third = admitted(table, 3)
    table.mark_busy(first)
    table.mark_idle(first)
    admitted(table, 1)
    assert [bool(each.aborted) for each in (first, second, third)] == [False, True, False]


def test_new_connection_is_rejected_while_all_are_busy() -> None:
    table = ConnectionTable(Bounds(max_connections=2))
    first, second = admitted(table, 2, busy=True)
    assert not table.admit(Fake())
    table.remove(first)
    assert table.admit(Fake())
    assert second.aborted is None


def test_new_connection_replaces_stalled_connection_if_none_is_idle() -> None:
    table = ConnectionTable(Bounds(max_connections=2))
    first, second = admitted(table, 2, busy=True)
    table.mark_stalled(second, 10)
    assert table.admit(Fake())
    assert (first.aborted, bool(second.aborted)) == (None, True)


def test_leaving_connections_are_not_counted_as_open_and_are_bounded() -> None:
    table = ConnectionTable(Bounds(max_connections=1, max_leaving=2))
    leaving = [Fake() for _ in range(3)]
    for connection in leaving:
        table.admit(connection)
        table.mark_leaving(connection)
    assert [bool(each.aborted) for each in leaving] == [True, False, False]


def test_excess_stalled_bytes_abort_longest_stalled_connection() -> None:
    table = ConnectionTable(Bounds(max_stalled_bytes=100))
    first, second, third = admitted(table, 3, busy=True)
    table.mark_stalled(first, 60)
    table.mark_flowing(first)
    table.mark_stalled(second, 60)
    table.mark_stalled(first, 30)
    table.mark_stalled(third, 60)
    assert [bool(each.aborted) for each in (first, second, third)] == [False, True, False]


def test_all_clients_together_hold_less_than_a_quarter_of_the_memory_limit() -> None:
    """The table in docs/operations.md shows the same figures."""
    values = yaml.safe_load((ROOT / "deploy/chart/values.yaml").read_text(encoding="utf-8"))
    assert values["env"] == []
    memory_limit = parse_bytes(values["resources"]["limits"]["memory"])
    parts = _worst_case_bytes(MAX_BODIES, Settings.model_fields["max_body_bytes"].default)
    assert sum(parts) < memory_limit / 4
    text = (ROOT / "docs/operations.md").read_text(encoding="utf-8")
    shown = [int(mib) for mib in re.findall(r"^\| .* \| (\d+) MiB \|$", text, re.MULTILINE)]
    assert shown == [round(size / MIB) for size in (*parts, sum(parts))]


def _worst_case_bytes(max_bodies: int, max_body_bytes: int) -> tuple[int, int, int]:
    """Return the memory of connections, stalled responses and request bodies at their bounds."""
    bounds = Bounds()
    head = limit.MAX_HEAD_BYTES + limit.READ_BYTES + limit.MAX_HEAD_FIELDS * FIELD_BYTES
    body = limit.MAX_BODY_BUFFER_BYTES + 2 * limit.READ_BYTES
    queued = limit.MAX_PIPELINED * REQUEST_BYTES
    connection = head + body + queued + CONNECTION_BYTES + limit.MAX_WRITE_BUFFER_BYTES
    bodies = max_bodies * (max_body_bytes + max_body_bytes // 8)
    return bounds.max_sockets * connection, bounds.max_stalled_bytes, bodies
