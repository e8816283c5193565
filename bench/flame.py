"""Where a process spends its CPU time: stacks sampled inside it, drawn as a flame graph.

The sampler is a handler of SIGPROF, which Linux sends after each so many milliseconds of CPU time that the process has
used. A function of a C library stands for the Python function that called it.
"""

from __future__ import annotations

import signal
from collections import Counter
from dataclasses import dataclass, field
from html import escape
from pathlib import Path
from types import FrameType
from typing import Final

INTERVAL_SECONDS: Final = 0.001
"""Asked for; Linux sends the signal at its own ticks, mostly every 4 ms."""
WIDTH: Final = 1200
ROW: Final = 17
NARROWEST: Final = 0.4
"""Pixels: a function that would be narrower is left out."""
LETTER: Final = 6.6
"""Pixels that a letter takes, about."""
PALETTE: Final = ("#e4b363", "#e0a458", "#e8c07d", "#dd9a4b", "#ecd09c")
OWN: Final = "#6fa8a2"
"""Runway's own functions; the others are the framework's and the libraries'."""


class Sampler:
    """Collects stacks while it is started, as lines `outermost;...;innermost` with their number."""

    def __init__(self) -> None:
        self.stacks: Counter[str] = Counter()

    def start(self) -> None:
        """Sample from now on. Only in the main thread, which is the one that is sampled."""
        signal.signal(signal.SIGPROF, self._take)
        signal.setitimer(signal.ITIMER_PROF, INTERVAL_SECONDS, INTERVAL_SECONDS)

    def stop(self) -> None:
        """Sample no more."""
        signal.setitimer(signal.ITIMER_PROF, 0)

    def _take(self, _: int, frame: FrameType | None) -> None:
        names: list[str] = []
        while frame is not None:
            names.append(f"{frame.f_globals.get('__name__', '?')}.{frame.f_code.co_qualname}")
            frame = frame.f_back
        self.stacks[";".join(reversed(names))] += 1


@dataclass(slots=True)
class _Frame:
    samples: int = 0
    inner: dict[str, _Frame] = field(default_factory=dict)


def draw(stacks: Counter[str], file: Path, title: str, root: str) -> None:
    """Write the flame graph of what was called by `root` and everything under it; widths are shares of the samples."""
    whole = _Frame()
    for stack, number in stacks.items():
        names = stack.split(";")
        start = next((place for place, name in enumerate(names) if name == root), 0)
        _add(whole, names[start:], number)
    boxes: list[str] = []
    deepest = _boxes(whole, 0.0, 0, WIDTH / whole.samples if whole.samples else 0.0, whole.samples, boxes)
    height = (deepest + 3) * ROW
    file.write_text(
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height}" font-family="monospace" '
        f'font-size="11">\n'
        f'<rect width="{WIDTH}" height="{height}" fill="#ffffff"/>\n'
        f'<text x="4" y="14" font-size="13">{escape(title)}, {whole.samples} samples</text>\n'
        + "\n".join(boxes)
        + "\n</svg>\n"
    )


def _add(frame: _Frame, names: list[str], number: int) -> None:
    frame.samples += number
    for name in names:
        frame = frame.inner.setdefault(name, _Frame())
        frame.samples += number


def _boxes(frame: _Frame, left: float, depth: int, per_sample: float, total: int, boxes: list[str]) -> int:
    """Append the boxes of what a frame has called; returns how deep they go."""
    deepest = depth
    for name, inner in sorted(frame.inner.items()):
        width = inner.samples * per_sample
        if width >= NARROWEST:
            boxes.append(_box(name, left, (depth + 1) * ROW + 4, width, inner.samples / total))
            deepest = max(deepest, _boxes(inner, left, depth + 1, per_sample, total, boxes))
        left += width
    return deepest


def _box(name: str, left: float, top: int, width: float, share: float) -> str:
    colour = OWN if name.startswith("runway.") else PALETTE[sum(name.encode()) % len(PALETTE)]
    short = name.rpartition(".")[2] if not name.endswith(">") else name
    room = int((width - 4) / LETTER)
    text = short if len(short) <= room else short[: room - 1] + "…" if room > 2 else ""
    label = f'<text x="{left + 2:.1f}" y="{top + 12}">{escape(text)}</text>' if text else ""
    return (
        f"<g><title>{escape(name)}: {share:.1%}</title>"
        f'<rect x="{left:.1f}" y="{top}" width="{width:.1f}" height="{ROW - 1}" fill="{colour}"/>{label}</g>'
    )
