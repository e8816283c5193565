"""Progress of a wait: live on a terminal, a line for each change elsewhere."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import datetime
from typing import Final

from rich.console import Console, ConsoleOptions, Group, RenderResult
from rich.live import Live
from rich.spinner import Spinner
from rich.text import Text

from runway.cli.context import Session
from runway.cli.output import Say, show_state, wrapped
from runway.cli.views.job_views import cost_so_far
from runway.jobs.models import JobView
from runway.jobs.timeline import deadline_of
from runway.text import escape, show_between, show_duration, show_usd

FRAMES_PER_SECOND: Final = 4
CONDITIONS_SHOWN: Final = 3
CONDITION_LINES: Final = 3
BAR_WIDTH: Final = 24
NARROW: Final = 75  # In this many columns or fewer the bar is half as wide.

Show = Callable[[JobView], None]


@contextmanager
def progress(session: Session) -> Iterator[Show]:
    """Show views on stderr until the end of the block, which removes a live display."""
    console = session.screen.stderr
    if not console.is_terminal:
        yield _Lines(session.screen.err, session.environment.now)
        return
    display = _Display(session.environment.now)
    with Live(display, console=console, refresh_per_second=FRAMES_PER_SECOND, transient=True):
        yield display.show


class _Lines:
    def __init__(self, say: Say, now: Callable[[], datetime]) -> None:
        self._say = say
        self._now = now
        self._shown: str | None = None

    def __call__(self, view: JobView) -> None:
        where = _where(view)
        line = f"{view.id} is {view.state}{where and f', {where}'}"
        line += "".join(f"; {condition.code}: {condition.message}" for condition in view.conditions)
        if line != self._shown:
            self._say(line, Text(f"({', '.join(_figures(view, self._now()))})", "dim"))
        self._shown = line


class _Display:
    def __init__(self, now: Callable[[], datetime]) -> None:
        self._now = now
        self._view: JobView | None = None
        self._spinner = Spinner("dots")

    def show(self, view: JobView) -> None:
        self._view = view

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        view = self._view
        if view is None:
            return
        head = (
            Text(escape(view.id), "bold"),
            Text(escape(view.name or "")),
            show_state(view.state),
            Text(_where(view)),
        )
        self._spinner.update(text=Text("  ").join(part for part in head if part))
        now, width = self._now(), options.max_width
        lines = [_bar(view, now, console.encoding, BAR_WIDTH if width > NARROW else BAR_WIDTH // 2)]
        for condition in view.conditions[:CONDITIONS_SHOWN]:
            since = f" ({show_between(condition.since, now)})" if condition.since else ""
            text = Text(f"  {escape(condition.code)}{since}: {escape(condition.message)}", "yellow")
            wrapped_lines = wrapped(console, text, 4, width)
            lines += wrapped_lines[:CONDITION_LINES]
            if len(wrapped_lines) > CONDITION_LINES:
                lines[-1].append(" …")
        for line in lines:
            line.truncate(width, overflow="ellipsis")
        yield Group(self._spinner, *lines)


def _where(view: JobView) -> str:
    """Return `attempt 2 of 3 on node-1`, without the attempt where there can be only one."""
    if not view.attempts:
        return ""
    number, node = view.attempt_count, view.attempts[-1].node
    possible = max(number, 1 + view.disruptions + view.spec.retries) if view.spec else number
    parts = [f"attempt {number} of {possible}"] if possible > 1 else []
    return " ".join([*parts, f"on {escape(node)}"] if node else parts)


def _figures(view: JobView, now: datetime) -> list[str]:
    figures = []
    if view.created_at:
        timeout = f" of {show_duration(view.spec.timeout_seconds)}" if view.spec else ""
        figures.append(f"{show_between(view.created_at, view.finished_at or now)}{timeout}")
    spent = cost_so_far(view, now)
    if spent is not None and view.cost:
        figures.append(f"{show_usd(spent)} of at most {show_usd(view.cost.ceiling)} USD")
    return figures


def _bar(view: JobView, now: datetime, encoding: str, width: int) -> Text:
    """Return the share of the job's timeout that has passed, with the figures."""
    deadline = deadline_of(view)
    text = Text("  ")
    if view.created_at and deadline and view.spec:
        done, rest = ("━", "─") if encoding.lower().startswith("utf") else ("=", "-")
        elapsed = ((view.finished_at or now) - view.created_at).total_seconds()
        share = min(max(elapsed / max(1, view.spec.timeout_seconds), 0.0), 1.0)
        cells = round(share * width)
        text.append(done * cells, "yellow" if share > 0.9 else "cyan").append(rest * (width - cells), "dim")
        text.append("  ")
    return text.append("  ".join(_figures(view, now)))
