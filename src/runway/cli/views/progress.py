"""What is shown while a job is waited for: one live display on a terminal, a line for each change elsewhere."""

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
from runway.cli.output import show_state, wrapped
from runway.cli.text import safe, show_age, show_duration, show_usd
from runway.cli.views.job_metrics import cost_so_far, deadline_of, elapsed_seconds
from runway.cli.wire import JobView, attempts_begun

FRAMES_PER_SECOND: Final = 4
CONDITIONS_SHOWN: Final = 3
REASON_LINES: Final = 3
BAR_WIDTH: Final = 24
ROOMY: Final = 75
"""In fewer columns than these the bar is half as wide."""

Tell = Callable[[JobView], None]


@contextmanager
def progress(session: Session) -> Iterator[Tell]:
    """Shows on stderr each view that is told, until the end of the block; a live display is gone then."""
    console = session.screen.stderr
    if not console.is_terminal:
        yield _Lines(session.screen.err, session.edges.now)
        return
    display = _Display(session.edges.now)
    with Live(display, console=console, refresh_per_second=FRAMES_PER_SECOND, transient=True):
        yield display.tell


class _Lines:
    """A line for each change."""

    def __init__(self, note: Callable[..., None], now: Callable[[], datetime]) -> None:
        self._note = note
        self._now = now
        self._shown: str | None = None

    def __call__(self, view: JobView) -> None:
        line = f"{view['id']} is {view['state']}{_where(view)}"
        line += "".join(f"; {condition['code']}: {condition['message']}" for condition in view["conditions"])
        if line != self._shown:
            self._note(line, Text(f"({', '.join(_figures(view, self._now()))})", "dim"))
        self._shown = line


class _Display:
    """The view that was told last, with the figures of the moment at which it is drawn."""

    def __init__(self, now: Callable[[], datetime]) -> None:
        self._now = now
        self._view: JobView | None = None
        self._spinner = Spinner("dots")

    def tell(self, view: JobView) -> None:
        """From now on show this view."""
        self._view = view

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        view = self._view
        if view is None:
            return
        self._spinner.update(text=head(view))
        now = self._now()
        width = options.max_width
        lines = [_bar(view, now, console.encoding, BAR_WIDTH if width > ROOMY else BAR_WIDTH // 2)]
        for reason in _reasons(view, now):
            several = wrapped(console, reason, 4, width)
            lines += several[:REASON_LINES]
            if len(several) > REASON_LINES:
                lines[-1].append(" …")
        for line in lines:
            line.truncate(width, overflow="ellipsis")
        yield Group(self._spinner, *lines)


def head(view: JobView) -> Text:
    """A job in short: id, name, state, and which attempt runs where."""
    name = Text(safe(view["name"])) if view["name"] else Text()
    parts = (Text(safe(view["id"]), "bold"), name, show_state(view["state"]), Text(_where(view).removeprefix(", ")))
    return Text("  ").join(part for part in parts if part)


def _where(view: JobView) -> str:
    """`, attempt 2 of 3 on node-1`; without the attempt where there can be only one."""
    if not view["attempts"]:
        return ""
    number, node = attempts_begun(view), view["attempts"][-1]["node"]
    possible = max(number, 1 + view["disruptions"] + view["spec"]["retries"]) if view["spec"] else number
    attempt = f", attempt {number} of {possible}" if possible > 1 else ""
    return attempt + (f" on {safe(node)}" if node and attempt else f", on {safe(node)}" if node else "")


def _figures(view: JobView, now: datetime) -> list[str]:
    """Time against the deadline, money against the ceiling; each as far as it is known."""
    told = []
    elapsed = elapsed_seconds(view, now)
    if elapsed is not None:
        of = f" of {show_duration(view['spec']['timeout_seconds'])}" if view["spec"] else ""
        told.append(f"{show_duration(elapsed)}{of}")
    spent = cost_so_far(view, now)
    if spent is not None and view["cost"] is not None:
        told.append(f"{show_usd(f'{spent:f}')} of at most {show_usd(view['cost']['ceiling'])} USD")
    return told


def _bar(view: JobView, now: datetime, encoding: str, width: int) -> Text:
    """How much of the job's time is over, with the figures."""
    created, deadline = elapsed_seconds(view, now), deadline_of(view)
    text = Text("  ")
    if created is not None and deadline is not None and view["spec"] is not None:
        done, rest = ("━", "─") if encoding.lower().startswith("utf") else ("=", "-")
        share = min(1.0, created / max(1, view["spec"]["timeout_seconds"]))
        cells = round(share * width)
        text.append(done * cells, "yellow" if share > 0.9 else "cyan").append(rest * (width - cells), "dim")
        text.append("  ")
    return text.append("  ".join(_figures(view, now)))


def _reasons(view: JobView, now: datetime) -> list[Text]:
    reasons = []
    for condition in view["conditions"][:CONDITIONS_SHOWN]:
        since = f" ({show_age(condition['since'], now)})" if condition["since"] else ""
        reasons.append(Text(f"  {safe(condition['code'])}{since}: {safe(condition['message'])}", "yellow"))
    return reasons
