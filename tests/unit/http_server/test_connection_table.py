"""Which connection gives way, and how much memory all of them can hold."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

import yaml

from runway.admission.concurrency import MAX_BODIES
from runway.http_server.bounds import Bounds, worst_case_bytes
from runway.http_server.connection_table import ConnectionTable
from runway.quantity import parse_bytes
from runway.settings import Settings

ROOT = Path(__file__).parents[3]
MIB = 1 << 20


@dataclass(eq=False, slots=True)
class Fake:
    """A connection that notes why it was aborted."""

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


def test_connection_idle_for_longest_gives_way_to_a_new_one() -> None:
    table = ConnectionTable(Bounds(max_connections=3))
    first, second, third = admitted(table, 3)
    table.mark_busy(first)
    table.mark_idle(first)
    admitted(table, 1)
    assert [bool(each.aborted) for each in (first, second, third)] == [False, True, False]


def test_new_connection_is_refused_while_all_are_busy() -> None:
    table = ConnectionTable(Bounds(max_connections=2))
    first, second = admitted(table, 2, busy=True)
    assert not table.admit(Fake())
    table.remove(first)
    assert table.admit(Fake())
    assert second.aborted is None


def test_client_that_does_not_read_gives_way_when_no_connection_is_idle() -> None:
    table = ConnectionTable(Bounds(max_connections=2))
    first, second = admitted(table, 2, busy=True)
    table.mark_stalled(second, 10)
    assert table.admit(Fake())
    assert (first.aborted, bool(second.aborted)) == (None, True)


def test_refused_connections_hold_no_place_and_only_some_linger() -> None:
    table = ConnectionTable(Bounds(max_connections=1, max_leaving=2))
    leaving = [Fake() for _ in range(3)]
    for connection in leaving:
        table.admit(connection)
        table.mark_leaving(connection)
    assert [bool(each.aborted) for each in leaving] == [True, False, False]


def test_write_buffers_are_bounded_together_and_the_longest_pause_ends_first() -> None:
    table = ConnectionTable(Bounds(max_stalled_bytes=100))
    first, second, third = admitted(table, 3, busy=True)
    table.mark_stalled(first, 60)
    table.mark_flowing(first)
    table.mark_stalled(second, 60)
    table.mark_stalled(first, 30)
    table.mark_stalled(third, 60)
    assert [bool(each.aborted) for each in (first, second, third)] == [False, True, False]


def test_all_callers_together_hold_less_than_a_quarter_of_the_memory_limit() -> None:
    """The table in docs/operations.md shows the same figures."""
    manifest = yaml.safe_load((ROOT / "deploy/kustomize/base/deployment.yaml").read_text(encoding="utf-8"))
    (container,) = manifest["spec"]["template"]["spec"]["containers"]
    assert "RUNWAY_MAX_BODY_BYTES" not in {item["name"] for item in container["env"]}
    limit = parse_bytes(container["resources"]["limits"]["memory"])
    parts = worst_case_bytes(Bounds(), MAX_BODIES, Settings.model_fields["max_body_bytes"].default)
    assert sum(parts.values()) < limit / 4
    text = (ROOT / "docs/operations.md").read_text(encoding="utf-8")
    shown = [int(mib) for mib in re.findall(r"^\| .* \| (\d+) MiB \|$", text, re.MULTILINE)]
    assert shown == [round(size / MIB) for size in (*parts.values(), sum(parts.values()))]
