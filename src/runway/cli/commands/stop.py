"""`runway stop` and `runway resume`: the operator's emergency stop."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict
from typing import Annotated, Any, Final

import typer

from runway.cli.context import Environment, Exit, configuration_errors, load_server_module
from runway.cli.options import As
from runway.cli.output import Output, Screen, emit
from runway.errors import ClusterError, NotFound, Rejected, TooBusy
from runway.text import MESSAGE, one_line

SEEN_SECONDS: Final = 3
"""Every Runway reads its Lease after at most this time."""

LeaseNamespace = Annotated[
    str | None,
    typer.Option(
        envvar="RUNWAY_LEASE_NAMESPACE",
        metavar="NAME",
        help="Namespace of Runway's Lease. Default: runway or default, where the Lease is.",
    ),
]


def stop(
    context: typer.Context,
    reason: Annotated[str | None, typer.Argument(metavar="REASON", help="The reason that users read.")] = None,
    show: Annotated[bool, typer.Option("--show", help="Show the stop in force, and change nothing.")] = False,
    replace: Annotated[bool, typer.Option("--replace", help="Replace the reason of a stop in force.")] = False,
    lease_namespace: LeaseNamespace = None,
    output: As = Output.TABLE,
) -> None:
    """Stop all submissions, with a reason. Jobs run on, and reads, logs and cancels work.

    KUBECONFIG or ~/.kube/config names the cluster. A stop in force keeps its reason, unless --replace is given.
    """
    if show == (reason is not None):
        context.fail('Give either a reason, such as runway stop "driver rollout, back at 15:00", or --show.')
    screen = Screen()
    with _cluster_errors(screen):
        module = load_server_module("runway.emergency_stop", "stop")
        if reason is None:
            state = module.show(lease_namespace)
            _emit(screen, state, output, _describe(state))
            return
        now = context.ensure_object(Environment).now
        result = module.stop(_checked(reason), lease_namespace, replace=replace, now=now)
    if result.is_refused and result.before.stop.reason != reason:
        screen.err("Error: another stop is in force, and it stays", style="bold red")
        screen.err(_describe(result.before), hang=2)
        screen.err("hint: add --replace to replace its reason", hang=6)
        if not output.for_people:
            _emit(screen, result.before, output, "")
        raise typer.Exit(Exit.REJECTED)
    _emit(screen, result.after, output, _describe(result.after))
    if result.after.holder is None:
        screen.err("warning: no Runway holds this Lease: check --lease-namespace", style="yellow", hang=2)
    elif output.for_people and not result.is_refused:
        screen.err(f"Every Runway refuses submissions within {SEEN_SECONDS} s. `runway resume` ends the stop.")


def resume(lease_namespace: LeaseNamespace = None, output: As = Output.TABLE) -> None:
    """End the emergency stop, and show which one it was.

    KUBECONFIG or ~/.kube/config names the cluster.
    """
    screen = Screen()
    with _cluster_errors(screen):
        result = load_server_module("runway.emergency_stop", "resume").resume(lease_namespace)
    ended = result.before.stop is not None
    text = f"Ended: {_describe(result.before)}" if ended else _describe(result.after)
    _emit(screen, result.after, output, text)


def _checked(reason: str) -> str:
    """Return the reason as the users see it. Raises typer.BadParameter."""
    if len(reason.split()) < 2:  # `runway stop JOB` must not stop everyone.
        message = "say why in two words or more, since users read it; to end a job, use `runway cancel JOB`"
        raise typer.BadParameter(message, param_hint="REASON")
    if len(reason) > MESSAGE:
        raise typer.BadParameter(f"{len(reason)} characters; at most {MESSAGE}", param_hint="REASON")
    if not reason.isprintable():
        raise typer.BadParameter("it must be one line of printable text", param_hint="REASON")
    return reason


def _describe(state: Any) -> str:
    place = f"Lease {state.lease}"
    holder = f"held by {state.holder}" if state.holder else "which no Runway holds now"
    if state.stop is None:
        return f"Submissions are open ({place}, {holder})."
    by, at = state.stop.by or "an unknown user", state.stop.at or "an unknown time"
    return f'Submissions are stopped by {by} since {at}: "{one_line(state.stop.reason)}" ({place}, {holder}).'


def _emit(screen: Screen, state: Any, output: Output, text: str) -> None:
    document = asdict(state) | {"submissions": "open" if state.stop is None else "stopped"}
    emit(document, output, names=[str(document["submissions"])], table=lambda: screen.out(text, hang=2))


@contextmanager
def _cluster_errors(screen: Screen) -> Iterator[None]:
    """End the command with the reason of Kubernetes, and say whether the stop can be in force."""
    try:
        with configuration_errors(screen):
            yield
    except (ClusterError, TooBusy) as error:
        screen.err(f"Error: {error}", style="bold red", hang=2)
        nothing_happened = isinstance(error, NotFound | Rejected)
        advice = "check KUBECONFIG, --lease-namespace and your permission (get and patch of the Lease)"
        screen.err(
            f"hint: {advice if nothing_happened else 'run `runway stop --show`: the change may be made'}", hang=6
        )
        raise typer.Exit(Exit.REJECTED if nothing_happened else Exit.UNAVAILABLE) from error
