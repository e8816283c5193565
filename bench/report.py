"""Write what was measured into docs/performance.md, between its two marks."""

from __future__ import annotations

import os
import platform
from datetime import UTC, datetime
from pathlib import Path

from bench.submit import Pair

BEGIN, END = "<!-- measured: begin -->", "<!-- measured: end -->"


def write(document: Path, pairs: list[Pair], requests: int, kubernetes: str) -> None:
    """Replace the measured part of the document. Raises ValueError where the marks are missing."""
    text = document.read_text()
    head, begin, rest = text.partition(BEGIN)
    _, end, tail = rest.partition(END)
    if not (begin and end):
        raise ValueError(f"{document} has lost its marks {BEGIN} and {END}")
    document.write_text(f"{head}{BEGIN}\n{_measured(pairs, requests, kubernetes)}\n{END}{tail}")


def _measured(pairs: list[Pair], requests: int, kubernetes: str) -> str:
    rows = "\n".join(
        f"| {pair.concurrency} "
        f"| {pair.raw.per_second:.0f}/s | {pair.raw.p50:.2f} | {pair.raw.p99:.2f} "
        f"| {pair.runway.per_second:.0f}/s | {pair.runway.p50:.2f} | {pair.runway.p99:.2f} "
        f"| {pair.runway.per_second / pair.raw.per_second:.2f} | {pair.runway.p50 / pair.raw.p50:.2f} |"
        for pair in pairs
    )
    return f"""
Measured on {datetime.now(UTC):%Y-%m-%d}: {os.cpu_count()} cores, Linux {platform.release()},
Python {platform.python_version()}, Kubernetes {kubernetes}, {requests} requests a run
(a quarter of that at concurrency 1), the better of two runs of each.

| at once | raw | p50 ms | p99 ms | Runway | p50 ms | p99 ms | throughput, of raw | p50, of raw |
| ---: | ---: | ---: | ---: | ---: | ---: | ---: | ---: | ---: |
{rows}
"""
