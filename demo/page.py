"""Render the report of a demo as one self-contained HTML file. Pure."""

from __future__ import annotations

from pathlib import Path

from jinja2 import Environment, FileSystemLoader, StrictUndefined

from demo.recording import Recording
from demo.svg import duration_bar, quota, timeline
from runway.text import escape
from testbed.context import Source


def _shown(value: object) -> object:
    """Escape control characters in recorded text; leave our own SVG unchanged."""
    return escape(value) if isinstance(value, str) and not hasattr(value, "__html__") else value


_environment = Environment(
    loader=FileSystemLoader(Path(__file__).parent),
    autoescape=True,
    undefined=StrictUndefined,
    finalize=_shown,
    trim_blocks=True,
    lstrip_blocks=True,
)


def page(recording: Recording) -> str:
    """Render the file. Recorded text is escaped here, and by the figures themselves."""
    seen = sum(scenario.missing is None and scenario.needs is None for scenario in recording.scenarios)
    longest = max((scenario.seconds for scenario in recording.scenarios), default=0.0)
    return _environment.get_template("page.html").render(
        recording=recording,
        seen=seen,
        sources=list(Source),
        bar=lambda scenario: duration_bar(scenario.seconds, longest),
        picture=timeline,
        charts=_charts(recording),
    )


def _charts(recording: Recording) -> list[str]:
    """Draw the GPUs and the jobs of each tenant that used any."""
    names = sorted({name for sample in recording.quota for name in sample.tenants or {}})
    peaks = {
        (name, kind): max(getattr(sample.tenants[name], kind) for sample in recording.quota if sample.tenants)
        for name in names
        for kind in ("gpu", "jobs")
    }
    words = {"gpu": "GPUs of", "jobs": "Jobs of"}
    return [
        quota(f"{words[kind]} {name}", recording.quota, name, recording.scenarios, of=kind)
        for kind in ("gpu", "jobs")
        for name in names
        if peaks[name, kind]
    ]
