"""Options and arguments of several commands, and the completion of their values."""

from __future__ import annotations

import re
from typing import Annotated, Any, Final

import httpx2
import typer

from runway.cli.client import Client, RequestFailed
from runway.cli.context import Environment
from runway.cli.output import Output
from runway.cli.resolve import reference
from runway.jobs.models import LABEL_GRAMMAR, JobView
from runway.text import escape

DEFAULT_URL: Final = "http://127.0.0.1:8000"
COMPLETION_TIMEOUT: Final = httpx2.Timeout(1.0)
COMPLETION_JOBS: Final = 100

_SECONDS: Final = {"d": 86_400, "h": 3_600, "m": 60, "s": 1, "": 1}
# https://kubernetes.io/docs/concepts/overview/working-with-objects/names/#dns-label-names
_NAME: Final = re.compile(r"[a-z0-9](?:[-a-z0-9]{0,61}[a-z0-9])?")

_LABEL: Final = re.compile(LABEL_GRAMMAR)
_KEY: Final = re.compile(r"[ -~]{1,255}")

Words = list[tuple[str, str]]  # Completions, each with a description that a shell may show beside it.


def parse_duration(text: str) -> int:
    """Return the whole seconds of `90`, `90s`, `30m`, `1h30m` or `2d`. Raises typer.BadParameter for anything else."""
    if not re.fullmatch(r"[0-9]{1,9}|(?:[0-9]{1,9}[dhms])+", text):
        raise typer.BadParameter(f"{text!r} is not a duration such as 90, 90s, 30m, 1h30m or 2d")
    return sum(int(number) * _SECONDS[unit] for number, unit in re.findall(r"([0-9]+)([dhms]?)", text))


def header_text(text: str | None) -> str | None:
    """Return the value of an option that is sent as an HTTP header. Raises typer.BadParameter where it cannot be."""
    if text is not None and not (text.isascii() and text.isprintable()):
        raise typer.BadParameter(f"{text!r} must be printable ASCII")
    return text


def idempotency_key(text: str | None) -> str | None:
    """Return the value of an option. An empty one, as of an unset variable, would make no retry safe."""
    if text is not None and not _KEY.fullmatch(text):
        raise typer.BadParameter(f"{text[:80]!r} must have 1 to 255 printable ASCII characters")
    return text


def _job(text: str | None) -> str | None:
    return text if text is None else reference(text)


def _jobs(texts: list[str] | None) -> list[str]:
    return list(dict.fromkeys(reference(text) for text in texts or ()))


def _complete_jobs(context: typer.Context, incomplete: str) -> Words:
    return _words(_newest_jobs(context), incomplete)


def _complete_active_jobs(context: typer.Context, incomplete: str) -> Words:
    return _words([view for view in _newest_jobs(context) if not view.is_finished], incomplete)


def _complete_tenants(context: typer.Context, incomplete: str) -> Words:
    try:
        with _client(context, None) as client:
            return [(name, "") for name in client.tenants() if _NAME.fullmatch(name) and name.startswith(incomplete)]
    except (RequestFailed, ValueError):
        return []


def _newest_jobs(context: typer.Context) -> list[JobView]:
    """Return the newest jobs; none where Runway does not answer at once."""
    try:
        with _client(context, context.params.get("tenant")) as client:
            return client.jobs(limit=COMPLETION_JOBS).value.jobs
    except (RequestFailed, ValueError):
        return []


def _client(context: typer.Context, tenant: str | None) -> Client:
    transport = context.ensure_object(Environment).transport
    return Client(context.params.get("url") or "", tenant, transport, COMPLETION_TIMEOUT)


def _words(views: list[JobView], incomplete: str) -> Words:
    """Return the ids that fit, and the names that fit, each with its newest job."""
    ids = {view.id: f"{view.state} {view.name or ''}".rstrip() for view in views}
    names = {view.name: f"{view.state} {view.id}" for view in reversed(views) if view.name and incomplete}
    return [
        (word, escape(description))
        for word, description in (ids | names).items()
        # Shells evaluate completions, so only a label is passed to them.
        if _LABEL.fullmatch(word) and word.startswith(incomplete)
    ]


def duration_option(help_text: str) -> Any:
    """Return an option whose value is a duration in seconds."""
    return typer.Option(metavar="DURATION", parser=parse_duration, help=help_text)


Url = Annotated[str, typer.Option("--url", "--server", envvar="RUNWAY_URL", metavar="URL", help="Address of Runway.")]
Tenant = Annotated[
    str | None,
    typer.Option(
        envvar="RUNWAY_TENANT",
        metavar="NAME",
        callback=header_text,
        autocompletion=_complete_tenants,
        help="Act as this tenant.",
    ),
]
As = Annotated[
    Output, typer.Option("-o", "--output", help="Format of the result on stdout; wide is a table with every column.")
]
JobOrNewest = Annotated[
    str | None,
    typer.Argument(
        metavar="JOB",
        callback=_job,
        autocompletion=_complete_jobs,
        help="Id, start of an id, or name (its newest job). Default: the tenant's newest job.",
    ),
]
Jobs = Annotated[
    list[str],
    typer.Argument(metavar="JOB", callback=_jobs, autocompletion=_complete_jobs, help="Ids, starts of ids, or names."),
]
JobsOrAll = Annotated[
    list[str] | None,
    typer.Argument(
        metavar="JOB",
        callback=_jobs,
        autocompletion=_complete_active_jobs,
        help="Ids, starts of ids, or names that only one unfinished job has.",
    ),
]
JobsToShow = Annotated[
    list[str] | None,
    typer.Argument(
        metavar="JOB",
        callback=_jobs,
        autocompletion=_complete_active_jobs,
        help="Only these jobs: ids, starts of ids, or names.",
    ),
]
JobName = Annotated[
    str | None, typer.Option("--name", metavar="LABEL", callback=_job, help="Only jobs of exactly this name.")
]
