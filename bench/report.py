"""Write what was measured into docs/performance.md, each table between its own two marks."""

from __future__ import annotations

import os
import platform
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from bench.release import Release
from bench.restart import Restart
from bench.submit import Pair
from bench.takeover import Takeover


@dataclass(frozen=True, slots=True)
class Figures:
    """Everything one run of the bench has measured."""

    pairs: list[Pair]
    releases: list[Release]
    restart: Restart
    takeovers: list[Takeover]
    requests: int
    kubernetes: str


def write(document: Path, figures: Figures) -> None:
    """Replace the parts of the document that `make bench` measures. Raises ValueError where a mark is missing."""
    parts = {
        "environment": _environment(figures),
        "submit": _submit(figures.pairs),
        "release": _release(figures.releases),
        "restart": _restart(figures.restart),
        "takeover": _takeover(figures.takeovers),
    }
    replace_parts(document, parts)


def replace_parts(document: Path, parts: Mapping[str, str]) -> None:
    """Put each part between its two marks. Raises ValueError where a mark is missing."""
    text = document.read_text()
    for name, part in parts.items():
        begin, end = f"<!-- {name}: begin -->", f"<!-- {name}: end -->"
        head, found, rest = text.partition(begin)
        _, closed, tail = rest.partition(end)
        if not (found and closed):
            raise ValueError(f"{document} has lost its marks {begin} and {end}")
        text = f"{head}{begin}\n\n{part}\n\n{end}{tail}"
    document.write_text(text)


def _environment(figures: Figures) -> str:
    return (
        f"Measured on {datetime.now(UTC):%Y-%m-%d}: {os.cpu_count()} shared cores, Linux {platform.release()}, "
        f"Python {platform.python_version()},\nKubernetes {figures.kubernetes}; "
        f"{figures.requests} submissions a run (a quarter of that at concurrency 1), the better of two runs of each."
    )


def _submit(pairs: list[Pair]) -> str:
    head = "| at once | raw | p50 ms | p99 ms | Runway | p50 ms | p99 ms | throughput, of raw | p50, of raw |"
    rows = [
        f"| {pair.concurrency} "
        f"| {pair.raw.per_second:.0f}/s | {pair.raw.p50:.2f} | {pair.raw.p99:.2f} "
        f"| {pair.runway.per_second:.0f}/s | {pair.runway.p50:.2f} | {pair.runway.p99:.2f} "
        f"| {pair.runway.per_second / pair.raw.per_second:.2f} | {pair.runway.p50 / pair.raw.p50:.2f} |"
        for pair in pairs
    ]
    return "\n".join([head, "| ---: " * 9 + "|", *rows])


def _release(releases: list[Release]) -> str:
    head = ["| from | samples | p50 ms | p99 ms |", "| --- | ---: | ---: | ---: |"]
    return "\n".join(head + [f"| {one.what} | {one.samples} | {one.p50:.1f} | {one.p99:.1f} |" for one in releases])


def _restart(one: Restart) -> str:
    return "\n".join(
        [
            "| Jobs in the cluster | from start until it may write | with none | fetching the list alone |",
            "| ---: | ---: | ---: | ---: |",
            f"| {one.jobs} | {one.seconds:.2f} s | {one.seconds_without_jobs:.2f} s | {one.list_seconds:.2f} s |",
        ]
    )


def _takeover(takeovers: list[Takeover]) -> str:
    head = ["| the writer | samples | shortest | longest |", "| --- | ---: | ---: | ---: |"]
    rows = [f"| {one.how} | {one.samples} | {one.shortest:.1f} s | {one.longest:.1f} s |" for one in takeovers]
    return "\n".join(head + rows)
