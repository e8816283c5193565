"""The report of a demo as one HTML file that can be sent to someone: nothing in it comes from elsewhere. Pure."""

from __future__ import annotations

from pathlib import Path

from jinja2 import Environment, FileSystemLoader, StrictUndefined

from demo.recording import Recording, printable
from demo.svg import duration_bar, quota, timeline
from testbed.context import Source


def _shown(value: object) -> object:
    """What was seen, with its control characters made visible; our own pictures are left as they are."""
    return printable(value) if isinstance(value, str) and not hasattr(value, "__html__") else value


_environment = Environment(
    loader=FileSystemLoader(Path(__file__).parent),
    autoescape=True,
    undefined=StrictUndefined,
    finalize=_shown,
    trim_blocks=True,
    lstrip_blocks=True,
)


def page(recording: Recording) -> str:
    """The whole file. Everything that was seen is escaped; the pictures escape their own texts."""
    seen = sum(scenario.missing is None for scenario in recording.scenarios)
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
    """GPUs of each tenant that held some, and jobs of each tenant that had any."""
    names = sorted({name for sample in recording.quota for name in sample.tenants or {}})
    held = {
        (name, kind): max(getattr(sample.tenants[name], kind) for sample in recording.quota if sample.tenants)
        for name in names
        for kind in ("gpu", "jobs")
    }
    words = {"gpu": "GPUs of", "jobs": "Jobs of"}
    return [
        quota(f"{words[kind]} {name}", recording.quota, name, recording.scenarios, of=kind)
        for kind in ("gpu", "jobs")
        for name in names
        if held[name, kind]
    ]
