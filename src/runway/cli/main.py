"""The command tree of `runway`."""

from __future__ import annotations

import typer

from runway.cli.commands import cancel, jobs, logs, policy, quota, serve, submit, top, version
from runway.cli.context import Environment
from runway.cli.exits import exit_code_help

_OWN_CODE = "`wait`, `run` and `submit --wait` exit with the job's own code where it failed by itself."
# \b keeps the lines apart where help is wrapped.
_EXIT_CODES = f"\b\nExit codes:\n{exit_code_help()}\n{_OWN_CODE}"

# Help is plain text: rich would read brackets in it as markup. Tracebacks never show local values, which may be secret.
app = typer.Typer(
    name="runway",
    help="Submit batch jobs to a shared Kubernetes cluster, and see what became of them.",
    epilog=_EXIT_CODES,
    no_args_is_help=True,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)
policy_app = typer.Typer(help="The policy file.", no_args_is_help=True, rich_markup_mode=None)
tenants_app = typer.Typer(help="The tenants of the policy.", no_args_is_help=True, rich_markup_mode=None)

app.command(epilog=_EXIT_CODES)(submit.submit)
app.command(epilog=_EXIT_CODES)(submit.run)
app.command()(jobs.ls)
app.command()(jobs.status)
app.command()(logs.logs)
app.command(epilog=_EXIT_CODES)(jobs.wait)
app.command()(cancel.cancel)
app.command()(quota.quota)
app.command()(top.top)
app.add_typer(policy_app, name="policy")
policy_app.command()(policy.check)
app.add_typer(tenants_app, name="tenants")
tenants_app.command()(policy.render)
app.command()(serve.serve)
app.command()(version.version)


def main() -> None:
    """The entry point."""
    app(obj=Environment())
