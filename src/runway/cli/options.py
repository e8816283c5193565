"""Options and arguments that several commands share."""

from __future__ import annotations

from typing import Annotated

import typer

from runway.cli import completion
from runway.cli.output import Output
from runway.cli.text import is_name, parse_duration

DEFAULT_URL = "http://127.0.0.1:8000"


def _job_id(text: str) -> str:
    if not is_name(text):
        raise typer.BadParameter(f"{text!r} is not a job id such as rw-4f2a; `runway ls` lists them")
    return text


def _job_ids(texts: list[str]) -> list[str]:
    return list(dict.fromkeys(_job_id(text) for text in texts))


def header_text(text: str | None) -> str | None:
    """An option's value that is sent as an HTTP header. Raises typer.BadParameter where it cannot be."""
    if text is not None and not (text.isascii() and text.isprintable()):
        raise typer.BadParameter(f"{text!r} must be printable ASCII")
    return text


Url = Annotated[str, typer.Option("--url", "--server", envvar="RUNWAY_URL", metavar="URL", help="Address of Runway.")]
Tenant = Annotated[
    str | None,
    typer.Option(
        "--tenant",
        envvar="RUNWAY_TENANT",
        metavar="NAME",
        callback=header_text,
        autocompletion=completion.tenants,
        help="Act as this tenant.",
    ),
]
As = Annotated[
    Output,
    typer.Option("-o", "--output", help="Form of the result on stdout; wide is a table that leaves nothing out."),
]
JobId = Annotated[
    str,
    typer.Argument(
        metavar="ID", callback=_job_id, autocompletion=completion.job_ids, help="Job id, as `runway ls` shows it."
    ),
]
JobIds = Annotated[
    list[str],
    typer.Argument(metavar="ID...", callback=_job_ids, autocompletion=completion.live_job_ids, help="Job ids."),
]
WaitTimeout = Annotated[
    int | None,
    typer.Option(
        "--timeout", metavar="DURATION", parser=parse_duration, help="Stop waiting after this long; the job goes on."
    ),
]

Image = Annotated[str | None, typer.Option("--image", metavar="REF", help="Container image.")]
Cpu = Annotated[str | None, typer.Option("--cpu", metavar="QUANTITY", help="CPU, such as 500m or 4.")]
Memory = Annotated[str | None, typer.Option("--memory", metavar="QUANTITY", help="Memory, such as 512Mi or 16Gi.")]
Gpu = Annotated[int | None, typer.Option("--gpu", metavar="COUNT", help="Whole GPUs.")]
GpuType = Annotated[str | None, typer.Option("--gpu-type", metavar="TYPE", help="Type of the GPUs, such as a10g.")]
Env = Annotated[
    list[str] | None, typer.Option("--env", metavar="NAME=VALUE", help="Environment variable; may be repeated.")
]
JobTimeout = Annotated[
    int | None,
    typer.Option(
        "--timeout",
        metavar="DURATION",
        parser=parse_duration,
        help="The job's whole life, waiting and retries included: 90, 30m, 1h.",
    ),
]
Retries = Annotated[int | None, typer.Option("--retries", metavar="COUNT", help="Repeats of a failed attempt.")]
Grace = Annotated[
    int | None,
    typer.Option("--grace", metavar="DURATION", parser=parse_duration, help="Time between SIGTERM and SIGKILL."),
]
MaxCost = Annotated[
    str | None, typer.Option("--max-cost", metavar="USD", help="Refuse the job if it could cost more, such as 12.50.")
]
Name = Annotated[str | None, typer.Option("--name", metavar="LABEL", help="A label for people; need not be unique.")]
IdempotencyKey = Annotated[
    str | None,
    typer.Option(
        "--idempotency-key",
        metavar="KEY",
        callback=header_text,
        help="The same key and spec again answer with the first job.",
    ),
]
SpecFile = Annotated[
    str | None,
    typer.Option("-f", "--file", metavar="FILE", help="Job spec as YAML or JSON, - for stdin; flags override it."),
]
Command = Annotated[
    list[str] | None,
    typer.Argument(
        metavar="COMMAND",
        help="After --: what runs in the container, instead of the image's own command.",
        show_default=False,
    ),
]
