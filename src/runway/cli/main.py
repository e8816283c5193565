"""The command tree of `runway`, with `runway serve` and `runway version`."""

from __future__ import annotations

import errno
import io
import os
import sys
from pathlib import Path
from textwrap import fill
from typing import Annotated, Final

import typer

from runway import __version__
from runway.cli.commands import config, doctor, jobs, limits, logs, policy, quota, stop, submit, top
from runway.cli.context import Environment, Exit, load_server_module
from runway.cli.habits import Command, Group, SpecCommand
from runway.cli.options import As
from runway.cli.output import Output, Screen, emit

HTTP_PROTOCOL = "runway.http_server.protocol:BoundedHttpProtocol"
"""The protocol that limits requests, by name: the command line imports nothing of the server."""
SHUTDOWN_SECONDS = 10  # Open requests, including followed logs, may take this long to end after SIGTERM.

UNWRITABLE: Final = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EIO)
"""Errors of writing the output. A closed pipe, EPIPE, ends every command silently."""
_HELP_WIDTH: Final = 76  # Help indents by 2, and does not wrap these lines itself.

# \b keeps the lines apart where help is wrapped.
_EXIT_CODES = "\n".join(
    [
        "\b",
        "Exit codes:",
        *(fill(f"{code.value:>4}  {code.doc}", _HELP_WIDTH, subsequent_indent=" " * 6) for code in Exit),
    ]
)
_OWN_CODE = "`wait`, `run` and `submit --wait` exit with the job's own code if its process failed."
_SEE_EXIT_CODES = "`runway --help` lists the exit codes."

# Help is plain text: rich would read brackets in it as markup. Tracebacks never show local values, which may be secret.
app = typer.Typer(
    name="runway",
    cls=Group,
    help="Submit batch jobs to a shared Kubernetes cluster and track them.",
    epilog=f"{_EXIT_CODES}\n\n{_OWN_CODE}",
    no_args_is_help=True,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)
policy_app = typer.Typer(
    cls=Group,
    help="Validate the policy file, or compare it with the policy in force.",
    no_args_is_help=True,
    rich_markup_mode=None,
)
tenants_app = typer.Typer(
    cls=Group, help="Render or apply the tenants of the policy.", no_args_is_help=True, rich_markup_mode=None
)


def serve(
    host: Annotated[str, typer.Option(help="Address to listen on.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=1, max=65_535, help="TCP port to listen on.")] = 8000,
) -> None:
    """Serve the HTTP API. RUNWAY_* variables configure it; KUBECONFIG or the service account names the cluster."""
    # The other commands start faster without uvicorn. The app is named, not imported: contract "the command line
    # talks HTTP".
    load_server_module("uvicorn", "serve").run(
        "runway.app:create",
        factory=True,
        host=host,
        port=port,
        http=HTTP_PROTOCOL,
        ws="none",
        access_log=False,  # Runway logs each request itself.
        timeout_graceful_shutdown=SHUTDOWN_SECONDS,
    )


def version(output: As = Output.TABLE) -> None:
    """Show the version of this command line."""
    emit({"version": __version__}, output, names=[__version__], table=lambda: Screen().out(f"runway {__version__}"))


app.command(cls=SpecCommand, epilog=_SEE_EXIT_CODES)(submit.submit)
app.command(cls=SpecCommand, epilog=_SEE_EXIT_CODES)(submit.run)
app.command(cls=Command)(jobs.ls)
app.command(cls=Command)(jobs.status)
app.command(cls=Command)(logs.logs)
app.command(cls=Command, epilog=_SEE_EXIT_CODES)(jobs.wait)
app.command(cls=Command)(jobs.cancel)
app.command(cls=Command)(quota.quota)
app.command(cls=Command)(limits.limits)
app.command(cls=Command)(top.top)
app.command(cls=Command)(config.config)
app.add_typer(policy_app, name="policy")
policy_app.command(cls=Command)(policy.check)
policy_app.command(cls=Command, epilog=_SEE_EXIT_CODES)(policy.diff)
app.add_typer(tenants_app, name="tenants")
tenants_app.command(cls=Command)(policy.render)
tenants_app.command(cls=Command)(policy.apply)
app.command(cls=Command, epilog=_SEE_EXIT_CODES)(doctor.doctor)
app.command(cls=Command, epilog=_SEE_EXIT_CODES)(stop.stop)
app.command(cls=Command, epilog=_SEE_EXIT_CODES)(stop.resume)
app.command()(serve)
app.command()(version)


def main() -> None:
    _open_closed_outputs()
    for stream in (sys.stdout, sys.stderr):
        # A terminal or a pipe may have an encoding that lacks a character: show another instead of a traceback.
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="replace")
    try:
        app(obj=Environment())
    except OSError as error:
        if error.errno not in UNWRITABLE:
            raise
        print(f"Error: the output cannot be written: {error.strerror}", file=sys.stderr)
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)  # Python writes its buffer again at its exit.
        sys.exit(Exit.UNWRITTEN)


def _open_closed_outputs() -> None:
    """Discard the output of a process without stdout or stderr, as of some daemons: Python has None for them."""
    for name in ("stdout", "stderr"):
        if getattr(sys, name) is None:
            setattr(sys, name, Path(os.devnull).open("w", encoding="utf-8"))  # noqa: SIM115 (open until the exit)
