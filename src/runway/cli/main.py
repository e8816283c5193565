"""The command tree of `runway`."""

from __future__ import annotations

import typer

from runway import __version__
from runway.cli.commands import jobs, logs, policy, quota, serve, submit, top
from runway.cli.context import Environment, exit_code_help
from runway.cli.options import As
from runway.cli.output import Output, Screen, emit

_OWN_CODE = "`wait`, `run` and `submit --wait` exit with the job's own code where the job itself failed."
# \b keeps the lines apart where help is wrapped.
_EXIT_CODES = f"\b\nExit codes:\n{exit_code_help()}\n{_OWN_CODE}"

# Help is plain text: rich would read brackets in it as markup. Tracebacks never show local values, which may be secret.
app = typer.Typer(
    name="runway",
    help="Submit batch jobs to a shared Kubernetes cluster and track them.",
    epilog=_EXIT_CODES,
    no_args_is_help=True,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)
policy_app = typer.Typer(help="Validate the policy file.", no_args_is_help=True, rich_markup_mode=None)
tenants_app = typer.Typer(help="Render the tenants of the policy.", no_args_is_help=True, rich_markup_mode=None)


def version(output: As = Output.TABLE) -> None:
    """Show the version of this command line."""
    emit({"version": __version__}, output, names=[__version__], table=lambda: Screen().out(f"runway {__version__}"))


app.command(epilog=_EXIT_CODES)(submit.submit)
app.command(epilog=_EXIT_CODES)(submit.run)
app.command()(jobs.ls)
app.command()(jobs.status)
app.command()(logs.logs)
app.command(epilog=_EXIT_CODES)(jobs.wait)
app.command()(jobs.cancel)
app.command()(quota.quota)
app.command()(top.top)
app.add_typer(policy_app, name="policy")
policy_app.command()(policy.check)
app.add_typer(tenants_app, name="tenants")
tenants_app.command()(policy.render)
app.command()(serve.serve)
app.command()(version)


def main() -> None:
    app(obj=Environment())
