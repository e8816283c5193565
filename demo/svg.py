"""The SVG figures of the report. Pure; every text is escaped."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from html import escape
from itertools import groupby, pairwise

from demo.recording import AttemptRecord, JobRecord, Sample, ScenarioRun
from runway import text as runway_text

WIDTH = 1000
LEFT = 190
"""Left edge of the time axis; the names are left of it."""
RIGHT = 120
MAX_JOBS = 8
"""Jobs that a timeline shows."""
ROW = 26
AXIS = 24


def timeline(scenario: ScenarioRun) -> str:
    """Draw the jobs of a scenario over time, and the times of its evidence below them."""
    shown = scenario.jobs[:MAX_JOBS]
    height = ROW * (len(shown) + 1) + AXIS + 6
    scale = _Scale(scenario.began, scenario.ended)
    parts = [*_grid(scale, height)]
    for row, job in enumerate(shown):
        parts += _job(job, scale, row * ROW + 4)
    parts += _marks(scenario, scale, len(shown) * ROW + 4)
    left = len(scenario.jobs) - len(shown)
    label = f"The {len(shown)} jobs of this scenario over time" + (f"; {left} more are not shown" if left else "")
    return _svg(height, label, parts)


def quota(title: str, samples: Sequence[Sample], tenant: str, scenarios: Sequence[ScenarioRun], *, of: str) -> str:
    """Draw the usage of a tenant over the demo, in GPUs or jobs, with the scenarios as background bands."""
    end = max([scenario.ended for scenario in scenarios] + [sample.at for sample in samples], default=1.0)
    scale, top, height = _Scale(0.0, end), 26, 150
    floor = height - AXIS
    values = [(sample.at, _value(sample, tenant, of)) for sample in samples]
    limit = next((limit for sample in samples if (limit := _limit(sample, tenant, of)) is not None), 0)
    most = max([value for _, value in values if value is not None] + ([limit] if of == "gpu" else [1]), default=1) or 1

    def y(value: float) -> float:
        return floor - (floor - top) * value / most

    parts = [*_grid(scale, height), *_bands(scenarios, scale, top, floor)]
    for at, height_of_line in ((0, floor), (most, y(most))):
        parts.append(_text(LEFT - 8, height_of_line + 4, str(at), "end"))
    if of == "gpu" and limit:
        parts.append(f'<line class="limit" x1="{LEFT}" x2="{WIDTH - RIGHT}" y1="{y(limit):.1f}" y2="{y(limit):.1f}"/>')
        parts.append(_text(WIDTH - RIGHT + 8, y(limit) + 4, f"limit {limit}"))
    for run in _runs(values):
        parts += _steps(run, scale, y, floor)
    parts.append(_text(8, top + 12, title, "start", "name"))
    return _svg(height, title, parts)


def duration_bar(seconds: float, longest: float) -> str:
    """Draw a bar for a duration in seconds."""
    width = 140 * seconds / longest if longest else 0
    return (
        f'<svg class="bar" viewBox="0 0 140 8" width="140" height="8" aria-hidden="true">'
        f'<rect width="{width:.1f}" height="8" rx="2"/></svg>'
    )


class _Scale:
    """Map seconds to x coordinates; clamp values outside the range to the edge."""

    def __init__(self, begin: float, end: float) -> None:
        self.begin = begin
        self.seconds = max(end - begin, 0.001)

    def x(self, at: float) -> float:
        part = min(max((at - self.begin) / self.seconds, 0.0), 1.0)
        return LEFT + part * (WIDTH - LEFT - RIGHT)

    def ticks(self) -> Iterator[float]:
        """Return the tick positions, about eight."""
        step = next((step for step in (1, 2, 5, 10, 15, 30, 60, 120, 300) if self.seconds / step <= 9), 600)
        count = int(self.seconds // step) + 1
        return (float(number * step) for number in range(count))


def _svg(height: float, label: str, parts: Iterable[str]) -> str:
    return (
        f'<svg viewBox="0 0 {WIDTH} {height}" role="img" aria-label="{_safe(label)}">'
        f"<title>{_safe(label)}</title>{''.join(parts)}</svg>"
    )


def _grid(scale: _Scale, height: float) -> Iterator[str]:
    for tick in scale.ticks():
        x = scale.x(scale.begin + tick)
        yield f'<line class="grid" x1="{x:.1f}" x2="{x:.1f}" y1="0" y2="{height - AXIS + 4}"/>'
        yield _text(x, height - 6, f"{tick:g} s", "middle")


def _job(job: JobRecord, scale: _Scale, top: float) -> Iterator[str]:
    yield _text(8, top + 13, job.id, "start", "id")
    for attempt in job.attempts:
        yield from _attempt(attempt, job, scale, top)
    if not job.attempts:
        yield _bar("waiting", scale.x(job.created), scale.x(job.finished or job.created), top, "no pod was created")
    yield _text(WIDTH - RIGHT + 8, top + 13, job.verdict or job.state)


def _attempt(attempt: AttemptRecord, job: JobRecord, scale: _Scale, top: float) -> Iterator[str]:
    over = attempt.finished if attempt.finished is not None else scale.begin + scale.seconds
    started = attempt.started if attempt.started is not None else over
    yield _bar("waiting", scale.x(attempt.created), scale.x(started), top, f"pending {started - attempt.created:.0f} s")
    if attempt.started is not None:
        state = "cancelled" if job.state == "cancelled" else attempt.state
        yield _bar(state, scale.x(started), scale.x(over), top, f"{state} after {over - started:.0f} s")


def _bar(state: str, begin: float, end: float, top: float, title: str) -> str:
    # Kubernetes has whole seconds: a pod that started and finished within one is still visible.
    width = max(end - begin, 3)
    return (
        f'<rect class="pod {_safe(state)}" x="{begin:.1f}" y="{top}" width="{width:.1f}" height="18" rx="3">'
        f"<title>{_safe(title)}</title></rect>"
    )


def _marks(scenario: ScenarioRun, scale: _Scale, top: float) -> Iterator[str]:
    yield _text(8, top + 12, "seen by", "start")
    for item in scenario.evidence:
        source = item.source.name.lower()
        yield (
            f'<circle class="mark {source}" cx="{scale.x(item.at):.1f}" cy="{top + 8}" r="5">'
            f"<title>{escape(f'{item.source} at {item.at - scenario.began:.1f} s')}</title></circle>"
        )


def _bands(scenarios: Sequence[ScenarioRun], scale: _Scale, top: float, floor: float) -> Iterator[str]:
    for scenario in scenarios:
        left, right = scale.x(scenario.began), scale.x(scenario.ended)
        kind = "even" if scenario.number % 2 == 0 else "odd"
        yield (
            f'<rect class="band {kind}" x="{left:.1f}" y="{top}" width="{right - left:.1f}" height="{floor - top}">'
            f"<title>{_safe(f'{scenario.number} {scenario.title}')}</title></rect>"
        )
        if right - left > 9:
            yield _text((left + right) / 2, top - 8, str(scenario.number), "middle")


def _runs(values: Sequence[tuple[float, int | None]]) -> Iterator[list[tuple[float, int]]]:
    """Yield the periods in which Runway answered."""
    for answered, run in groupby(values, key=lambda value: value[1] is not None):
        if answered:
            yield [(at, value) for at, value in run if value is not None]


def _steps(run: list[tuple[float, int]], scale: _Scale, y: Callable[[float], float], floor: float) -> Iterator[str]:
    first, last = scale.x(run[0][0]), scale.x(run[-1][0])
    line = f"M{first:.1f} {y(run[0][1]):.1f}"
    for (_, before), (at, value) in pairwise(run):
        if value != before:
            line += f"H{scale.x(at):.1f}V{y(value):.1f}"
    line += f"H{last:.1f}"
    yield f'<path class="area" d="{line}V{floor}H{first:.1f}Z"/>'
    yield f'<path class="line" d="{line}"/>'


def _value(sample: Sample, tenant: str, of: str) -> int | None:
    usage = sample.tenants.get(tenant) if sample.tenants else None
    return None if usage is None else usage.gpu if of == "gpu" else usage.jobs


def _limit(sample: Sample, tenant: str, of: str) -> int | None:
    usage = sample.tenants.get(tenant) if sample.tenants else None
    return None if usage is None else usage.gpu_limit if of == "gpu" else usage.jobs_limit


def _safe(text: str) -> str:
    return escape(runway_text.escape(text))


def _text(x: float, y: float, text: str, anchor: str = "start", kind: str = "small") -> str:
    return f'<text class="{kind}" x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}">{_safe(text)}</text>'
