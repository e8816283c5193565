"""Write results into docs/performance.md, each between two markers, with plots."""

from __future__ import annotations

import os
import platform
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path

from bench import plot
from bench.fanout import EVENT_STREAMS, LOG_STREAMS, Fanout
from bench.limits import SUBMISSIONS, Admission
from bench.load import Measured
from bench.many_jobs import ROUNDS, Latency, ManyJobs
from bench.overload import Overload
from bench.process import ROOT
from bench.quota_release import QuotaRelease
from bench.restart import Restart
from bench.submit import InProcess, Pair, middle, rate
from bench.takeover import Takeover

DOCUMENT = ROOT / "docs" / "performance.md"
IMAGES = ROOT / "docs" / "images"


def write(parts: Mapping[str, str], kubernetes: str, document: Path = DOCUMENT) -> None:
    """Replace these parts of the document. Raises ValueError if a marker is missing."""
    text = document.read_text()
    measured = (
        f"Measured on {datetime.now(UTC):%Y-%m-%d}: {os.cpu_count()} shared cores, Linux {platform.release()}, "
        f"Python {platform.python_version()}, {kubernetes}."
    )
    for name, part in parts.items():
        begin, end = f"<!-- {name}: begin -->", f"<!-- {name}: end -->"
        head, found, rest = text.partition(begin)
        _, closed, tail = rest.partition(end)
        if not (found and closed):
            raise ValueError(f"{document} lacks the markers {begin} and {end}")
        text = f"{head}{begin}\n{part}\n\n{measured}\n{end}{tail}"
    document.write_text(text)


def submit(pairs: list[Pair], inside: InProcess, images: Path) -> str:
    """Render raw creates against submissions, with a plot in `images`, and the time that Runway adds."""
    names = [str(pair.concurrency) for pair in pairs]
    series = {
        "raw creates": [rate(pair.raw) for pair in pairs],
        "Runway": [rate(pair.runway) for pair in pairs],
    }
    plot.bars(images / "submit-throughput.svg", "Jobs created, by concurrent requests", "per second", names, series)
    columns = (
        "concurrency",
        "raw",
        "p50 ms",
        "p99 ms",
        "Runway",
        "p50 ms",
        "p99 ms",
        "throughput / raw",
        "p50 / raw",
        "CPU ms",
    )
    rows = [
        (
            str(pair.concurrency),
            *_measured(pair.raw),
            *_measured(pair.runway),
            _spread(pair.throughput, pair.ratios(lambda one: one.per_second)),
            _spread(middle(p50s := pair.ratios(lambda one: one.p50)), p50s),
            f"{pair.cpu:.2f}",
        )
        for pair in pairs
    ]
    rounds = len(pairs[0].raw)
    return (
        _table(columns, rows)
        + f"\n\n{rounds} alternating rounds of each. Rates cover all rounds. p50 and p99 are medians of the rounds. "
        + "The ratios include the lowest and the highest round. CPU time is that of Runway's process for a submission "
        + f"and the watch events of its Job. Of {inside.submissions} one after the other, without raw creates in "
        + f"turn, each takes {inside.in_process:.2f} ms in process, without the wait for the API server, and "
        + f"{inside.cpu:.2f} ms of CPU time.\n\n"
        + "![Jobs created per second](images/submit-throughput.svg)"
    )


def overload(one: Overload) -> str:
    """Render accepted and rejected submissions at twice the sustainable load."""
    refused = sum(number for status, number in one.statuses.items() if status != 201)
    by_status = ", ".join(f"{status}: {number}" for status, number in sorted(one.statuses.items()) if status != 201)
    rows = [
        ("accepted", f"{one.statuses.get(201, 0)}", f"{one.accepted.p50:.0f}", f"{one.accepted.p99:.0f}"),
        (f"rejected ({by_status or 'none'})", str(refused), *_took_or_none(one)),
    ]
    return (
        f"{one.rate:.0f} submissions/s for {one.seconds:.0f} s, twice the {one.sustainable:.0f}/s of 32 concurrent "
        f"requests before. Runway accepted {one.accepted_per_second:.0f}/s.\n\n"
        + _table(("result", "number", "p50 ms", "p99 ms"), rows)
    )


def history(found: list[ManyJobs], images: Path) -> str:
    """Render the measurements by number of jobs, with plots in `images`."""
    base = found[0]
    columns = (
        "jobs, each with a pod",
        "ready after",
        "list alone",
        "resident",
        "peak",
        *base.reads,
        *base.pages,
        "view delay",
    )
    rows = [
        (
            f"{one.jobs:,}",
            f"{one.ready:.2f} s",
            f"{one.fetched:.2f} s",
            f"{one.memory:.0f} MB",
            f"{one.peak:.0f} MB",
            *(f"{took.p50:.1f} / {took.p99:.1f}" for took in (*one.reads.values(), *one.pages.values(), one.shown)),
        )
        for one in found
    ]
    last = found[-1]
    at_last = last.reads | last.pages
    ratios = [f"{name} {_of(at_last[name], took)}" for name, took in (base.reads | base.pages).items()]
    places = [one.jobs for one in found]
    plot.lines(
        images / "memory.svg",
        "Resident memory",
        "MB",
        places,
        {"Runway": [one.memory for one in found]},
        "jobs, each with a pod",
    )
    plot.lines(
        images / "reads.svg",
        "Reads, p99",
        "ms",
        places,
        {what: [one.reads[what].p99 for one in found] for what in base.reads},
        "jobs, each with a pod",
    )
    plot.lines(
        images / "pages.svg",
        "Pages of the console, p99",
        "ms",
        places,
        {what: [one.pages[what].p99 for one in found] for what in base.pages},
        "jobs, each with a pod",
    )
    return (
        _table(columns, rows)
        + f"\n\nReads, pages and view delay: p50 / p99 in ms. Reads and pages are the medians of {ROUNDS} rounds. "
        + f"Ratios of {last.jobs:,} jobs to {base.jobs:,}: "
        + ", ".join(ratios)
        + f", view delay {_of(last.shown, base.shown)}.\n\n"
        + "![Resident memory by number of jobs](images/memory.svg) ![Reads by number of jobs](images/reads.svg) "
        + "![Pages of the console by number of jobs](images/pages.svg)"
    )


def _percentiles(found: Mapping[str, Latency]) -> dict[str, list[float]]:
    return {"p50": [one.p50 for one in found.values()], "p99": [one.p99 for one in found.values()]}


def _of(last: Latency, base: Latency) -> str:
    return f"{last.p50 / base.p50:.2f} / {last.p99 / base.p99:.2f}"


def limits(few: list[Admission], many: list[Admission], images: Path) -> str:
    """Render the admission with few and with many jobs, with a plot in `images`."""
    series = {f"{found[0].jobs:,} jobs": [one.figures[2] for one in found] for found in (few, many)}
    plot.bars(images / "limits.svg", "CPU time of a submission", "ms", [one.what for one in few], series)
    columns = ("p50 / p99 / CPU ms of a submission", f"{few[0].jobs:,} jobs", f"{many[0].jobs:,} jobs", "ratio")
    rows = []
    for base, one in zip(few, many, strict=True):
        ratios = [figure / its for figure, its in zip(one.figures, base.figures, strict=True)]
        cells = [" / ".join(f"{figure:.2f}" for figure in figures) for figures in (base.figures, one.figures, ratios)]
        rows.append((one.what, *cells))
    return (
        _table(columns, rows)
        + f"\n\nOne at a time, {SUBMISSIONS} in each of {ROUNDS} rounds, of which p50 and p99 are "
        "medians. CPU time is that of Runway's process.\n![CPU time of a submission](images/limits.svg)"
    )


def fanout(one: Fanout, images: Path) -> str:
    """Render delays, memory and CPU use of many streams, with a plot in `images`."""
    plot.bars(images / "fanout.svg", "From a change to a client", "ms", list(one.delays), _percentiles(one.delays))
    rows = [(what, f"{took.p50:.1f}", f"{took.p99:.1f}") for what, took in one.delays.items()]
    return (
        _table(("open streams", "p50 ms", "p99 ms"), rows)
        + f"\n\nAn event stream takes {one.event_stream:.0f} KB of resident memory, a log stream "
        f"{one.log_stream:.0f} KB. While nothing happens, the process uses {one.idle:.1f} % of a core without streams, "
        f"and {one.idle_with_streams:.1f} % with {EVENT_STREAMS + LOG_STREAMS}.\n"
        "![From a change to a client](images/fanout.svg)"
    )


def start(found: Mapping[str, Latency], samples: int, images: Path) -> str:
    """Render the times from a submission to a running container; the first is Runway's. The plot is in `images`."""
    plot.bars(images / "start.svg", "From a submission to a running container", "ms", list(found), _percentiles(found))
    runway = next(iter(found.values()))
    rows = [
        (way, f"{one.p50:.0f}", f"{one.p99:.0f}", f"{runway.p50 / one.p50:.2f}", f"{runway.p99 / one.p99:.2f}")
        for way, one in found.items()
    ]
    columns = ("created by", "p50 ms", "p99 ms", "Runway / this, p50", "p99")
    return (
        _table(columns, rows)
        + f"\n\n{samples} of each in turn, one at a time.\n![Submission to running container](images/start.svg)"
    )


def release(releases: list[QuotaRelease]) -> str:
    """Render the delay of the quota release."""
    rows = [(one.what, str(one.samples), f"{one.p50:.1f}", f"{one.p99:.1f}") for one in releases]
    return _table(("from", "samples", "p50 ms", "p99 ms"), rows)


def restart(one: Restart) -> str:
    """Render the start times on the real API server."""
    columns = ("Jobs in the cluster", "start to leader", "without Jobs", "list alone")
    times = (one.seconds, one.seconds_without_jobs, one.list_seconds)
    return _table(columns, [(f"{one.jobs:,}", *(f"{seconds:.2f} s" for seconds in times))])


def takeover(takeovers: list[Takeover]) -> str:
    """Render the time without a leader."""
    rows = [(one.how, str(one.samples), f"{one.shortest:.1f} s", f"{one.longest:.1f} s") for one in takeovers]
    return _table(("the leader", "samples", "shortest", "longest"), rows)


def _table(columns: tuple[str, ...], rows: Sequence[tuple[str, ...]]) -> str:
    head = [f"| {' | '.join(columns)} |", "| --- " + "| ---: " * (len(columns) - 1) + "|"]
    return "\n".join(head + [f"| {' | '.join(row)} |" for row in rows])


def _measured(runs: list[Measured]) -> tuple[str, str, str]:
    return (
        f"{rate(runs):.0f}/s",
        f"{middle(one.p50 for one in runs):.2f}",
        f"{middle(one.p99 for one in runs):.2f}",
    )


def _spread(ratio: float, of_rounds: list[float]) -> str:
    return f"{ratio:.2f} ({of_rounds[0]:.2f} to {of_rounds[-1]:.2f})"


def _took_or_none(one: Overload) -> tuple[str, str]:
    return ("-", "-") if one.refused is None else (f"{one.refused.p50:.0f}", f"{one.refused.p99:.0f}")
