"""Small line and bar charts as SVG for the documents, without a library."""

from __future__ import annotations

import textwrap
from collections.abc import Mapping, Sequence
from html import escape
from pathlib import Path
from typing import Final

WIDTH: Final = 640
HEIGHT: Final = 300
LEFT, RIGHT, TOP, BOTTOM = 64, 16, 48, 44
COLOURS: Final = ("#33658a", "#d1793b", "#5f8f5f", "#8a5a83")


def bars(file: Path, title: str, unit: str, groups: Sequence[str], series: Mapping[str, Sequence[float]]) -> None:
    """Draw a group of bars for each of `groups`, one bar per series; the axis starts at 0."""
    top = _round_up(max(value for values in series.values() for value in values))
    room = (WIDTH - LEFT - RIGHT) / len(groups)
    width = room * 0.8 / len(series)
    parts = []
    for place, (colour, values) in enumerate(zip(COLOURS, series.values(), strict=False)):
        for group, value in enumerate(values):
            left, height = LEFT + group * room + room * 0.1 + place * width, _height(value, top)
            parts.append(
                f'<rect x="{left:.1f}" y="{HEIGHT - BOTTOM - height:.1f}" width="{width - 2:.1f}" '
                f'height="{height:.1f}" fill="{colour}"/>'
                + _text(left + width / 2, HEIGHT - BOTTOM - height - 4, _short(value), "middle", 10)
            )
    labels = [
        _text(LEFT + (at + 0.5) * room, HEIGHT - BOTTOM + 16 + 13 * line, text)
        for at, name in enumerate(groups)
        for line, text in enumerate(textwrap.wrap(name, int(room / 6)))
    ]
    _write(file, title, unit, top, list(series), parts + labels)


def lines(
    file: Path, title: str, unit: str, places: Sequence[float], series: Mapping[str, Sequence[float]], across: str
) -> None:
    """Draw a line per series over the x values `places`; the y axis starts at 0."""
    top = _round_up(max(value for values in series.values() for value in values))
    furthest = max(places)
    at = [LEFT + (WIDTH - LEFT - RIGHT) * place / furthest for place in places]
    parts = []
    for colour, values in zip(COLOURS, series.values(), strict=False):
        points = [(x, HEIGHT - BOTTOM - _height(value, top)) for x, value in zip(at, values, strict=True)]
        path = " ".join(f"{x:.1f},{y:.1f}" for x, y in points)
        parts.append(f'<polyline points="{path}" fill="none" stroke="{colour}" stroke-width="2"/>')
        parts += [f'<circle cx="{x:.1f}" cy="{y:.1f}" r="3" fill="{colour}"/>' for x, y in points]
    labels = [_text(x, HEIGHT - BOTTOM + 16, f"{place:,.0f}") for x, place in zip(at, places, strict=True)]
    labels.append(_text((LEFT + WIDTH - RIGHT) / 2, HEIGHT - 8, across))
    _write(file, title, unit, top, list(series), parts + labels)


def _write(file: Path, title: str, unit: str, top: float, names: list[str], parts: list[str]) -> None:
    grid = []
    for share in (0.0, 0.25, 0.5, 0.75, 1.0):
        y = HEIGHT - BOTTOM - _height(top * share, top)
        grid.append(f'<line x1="{LEFT}" y1="{y:.1f}" x2="{WIDTH - RIGHT}" y2="{y:.1f}" stroke="#dddddd"/>')
        grid.append(_text(LEFT - 6, y + 4, _short(top * share), "end"))
    keys = []
    left = float(LEFT)
    for colour, name in zip(COLOURS, names, strict=False):
        keys.append(f'<rect x="{left:.1f}" y="28" width="10" height="10" fill="{colour}"/>')
        keys.append(_text(left + 14, 37, name, "start"))
        left += 30 + 6.5 * len(name)
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {HEIGHT}" font-family="sans-serif" '
        f'role="img" aria-label="{escape(title, quote=True)}">\n'
        f'<rect width="{WIDTH}" height="{HEIGHT}" fill="#ffffff"/>\n'
        + "\n".join([_text(LEFT, 18, f"{title} ({unit})", "start", 13), *grid, *keys, *parts])
        + "\n</svg>\n"
    )


def _height(value: float, top: float) -> float:
    return value / top * (HEIGHT - TOP - BOTTOM)


def _text(x: float, y: float, text: str, anchor: str = "middle", size: int = 11) -> str:
    return (
        f'<text x="{x:.1f}" y="{y:.1f}" font-size="{size}" text-anchor="{anchor}" fill="#222222">{escape(text)}</text>'
    )


def _round_up(value: float) -> float:
    """Round up to one or two significant digits, for the end of an axis."""
    power = 1.0
    while power * 10 <= value:
        power *= 10
    while power > value:
        power /= 10
    return next((power * step for step in (1, 1.5, 2, 3, 4, 5, 6, 8) if power * step >= value), power * 10)


def _short(value: float) -> str:
    return f"{value:,.0f}" if value >= 100 else f"{value:.3g}"
