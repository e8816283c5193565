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
from runway.jobs.cost import cost_so_far
from runway.jobs.models import ConditionView, JobView
from runway.jobs.timeline import deadline_of
from runway.text import escape, show_between, show_duration, show_usd

FRAMES_PER_SECOND: Final = 4
CONDITIONS_SHOWN: Final = 3
CONDITION_LINES: Final = 3
MAX_MESSAGES: Final = 1000
BRIEF_CONDITIONS: Final = ("pod_not_created", "outcome_pending")
QUIET_SECONDS: Final = 5.0
"""The Job controller reacts within a second or so: its conditions are shown after this time."""
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
    """A line for each change. A message that was shown before, such as a registry's, is not repeated."""

    def __init__(self, say: Say, now: Callable[[], datetime]) -> None:
        self._say = say
        self._now = now
        self._state: str | None = None
        self._messages = set[str]()

    def __call__(self, view: JobView) -> None:
        now = self._now()
        conditions = _conditions(view, now)
        where = _where(view)
        state = f"{view.id} is {view.state}{where and f', {where}'}"
        known = "; ".join([state, *(condition.code for condition in conditions)])
        new = [condition for condition in conditions if condition.message not in self._messages]
        if known != self._state or new:
            words = [f"{each.code}: {each.message}" if each in new else each.code for each in conditions]
            self._say("; ".join([state, *words]), Text(f"({', '.join(_figures(view, now))})", "dim"))
        self._state = known
        if len(self._messages) < MAX_MESSAGES:
            self._messages |= {condition.message for condition in new}


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
        for condition in _conditions(view, now)[:CONDITIONS_SHOWN]:
            since = f" ({show_between(condition.since, now)})" if condition.since else ""
            text = Text(f"  {escape(condition.code)}{since}: {escape(condition.message)}", "yellow")
            wrapped_lines = wrapped(console, text, 4, width)
            lines += wrapped_lines[:CONDITION_LINES]
            if len(wrapped_lines) > CONDITION_LINES:
                lines[-1].append(" …")
        for line in lines:
            line.truncate(width, overflow="ellipsis")
        yield Group(self._spinner, *lines)


def _conditions(view: JobView, now: datetime) -> list[ConditionView]:
    """Return the conditions; every job waits for the Job controller for a moment."""

    def is_new(condition: ConditionView) -> bool:
        since = condition.since or view.created_at
        return since is not None and (now - since).total_seconds() < QUIET_SECONDS

    return [each for each in view.conditions if each.code not in BRIEF_CONDITIONS or not is_new(each)]


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
        ceiling = view.cost.ceiling
        figures.append(f"{show_usd(spent, ceiling)} of at most {show_usd(ceiling, ceiling)} USD")
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
