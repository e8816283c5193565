"""`runway policy check`, `policy diff`, `tenants render` and `tenants apply`: read the policy file.

These commands import the policy's modules when they run, so that the other commands start faster.
"""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Final, Literal

import httpx2
import typer

from runway.cli.client import Client, RequestFailed
from runway.cli.context import Environment, Exit, configuration_errors, load_server_module, open_session
from runway.cli.options import DEFAULT_URL, As, Url
from runway.cli.output import Output, Screen, emit, emit_data, to_yaml
from runway.cli.policy_diff import Difference, compare
from runway.cli.views.policy_views import show_checked, show_difference, show_policy_error, show_warnings
from runway.errors import PolicyError

if TYPE_CHECKING:
    from runway.policy import Policy

COMPARE_TIMEOUT: Final = httpx2.Timeout(5.0)
"""`policy check` compares by the way, so it does not wait as long as other commands."""
PolicyArgument = Annotated[Path, typer.Argument(envvar="RUNWAY_POLICY", metavar="FILE", help="The policy file.")]
PolicyFile = Annotated[Path, typer.Option("--policy", envvar="RUNWAY_POLICY", metavar="FILE", help="The policy file.")]
OneTenant = Annotated[str | None, typer.Option(metavar="NAME", help="Only this tenant.")]
AdmissionPolicy = Annotated[
    bool,
    typer.Option(
        "--admission-policy",
        help="Also a ValidatingAdmissionPolicy: only Runway and the Job controller create Jobs and pods there.",
    ),
]
RunwayUsers = Annotated[
    list[str] | None,
    typer.Option(
        "--runway-user",
        metavar="USER",
        help="Kubernetes user that Runway runs as, for --admission-policy; repeatable. Default: its service account.",
    ),
]


def check(
    context: typer.Context,
    file: PolicyArgument,
    output: Annotated[Output, typer.Option("-o", "--output", help="Format of the result on stdout.")] = Output.TABLE,
    url: Annotated[
        str | None,
        typer.Option(
            "--url", "--server", envvar="RUNWAY_URL", metavar="URL", help="A Runway to compare with. Default: none."
        ),
    ] = None,
) -> None:
    """Validate a policy file, and show what it allows.

    An invalid file gets every fault with its line. With --url or RUNWAY_URL it also shows what the file changes. That
    never makes a valid file invalid.
    """
    from runway.policy import policy_hash

    screen = Screen()
    policy = load_policy_file(file, screen, output)
    digest, difference = policy_hash(policy), None
    if url is not None:
        try:
            with _client(context, url) as client:
                difference = _compare(client, policy, digest)
        except RequestFailed as error:
            screen.err(f"warning: not compared with the policy in force: {error}", style="yellow")
    document = {"valid": True, "policy": policy.model_dump(mode="json")} | _document(policy, digest, difference)
    emit(
        document,
        output,
        names=[str(file)],
        table=lambda: show_checked(screen, file, policy, digest, difference),
    )


def diff(context: typer.Context, file: PolicyArgument, output: As = Output.TABLE, url: Url = DEFAULT_URL) -> None:
    """Compare a policy file with the policy in force.

    Shows what changes, and how many unfinished jobs that affects. Exits with 0 if nothing changes, and with 3 if
    something does.
    """
    from runway.policy import policy_hash

    screen = Screen(wide=output is Output.WIDE)
    policy = load_policy_file(file, screen, output)
    digest = policy_hash(policy)
    with open_session(context, url, None, output) as session:
        difference = _compare(session.client, policy, digest)
    document, names = _document(policy, digest, difference), [change.field for change in difference.changes]
    emit(document, output, names=names, table=lambda: show_difference(screen, difference))
    if output.for_people:
        show_warnings(screen, policy)
    if difference.has_changes:
        raise typer.Exit(Exit.CHANGES)


def _client(context: typer.Context, url: str) -> Client:
    try:
        return Client(url, None, context.ensure_object(Environment).transport, COMPARE_TIMEOUT)
    except ValueError as error:
        raise typer.BadParameter(str(error), param_hint="--url / RUNWAY_URL") from error


def _compare(client: Client, policy: Policy, digest: str) -> Difference:
    return compare(client.policy(), policy, digest, client.quota().value.tenants)


def _document(policy: Policy, digest: str, difference: Difference | None) -> dict[str, Any]:
    from runway.pool_capacity import capacities

    document = {"hash": digest, "capacity": [found.to_json() for found in capacities(policy)]}
    if difference is None:
        return document
    changes = [asdict(change) for change in difference.changes]
    return document | {"changed": difference.has_changes, "changes": changes, "effects": list(difference.effects)}


def render(
    policy: PolicyFile,
    tenant: OneTenant = None,
    admission_policy: AdmissionPolicy = False,
    runway_user: RunwayUsers = None,
    output: Annotated[
        Literal["yaml", "json"], typer.Option("-o", "--output", help="A YAML stream, or one JSON List.")
    ] = "yaml",
) -> None:
    """Print the Kubernetes objects of the tenants.

    Each tenant has a namespace, quota, limits, network policies, a service account for its jobs, and a role for Runway.

    `runway tenants apply` creates or updates them.
    """
    loaded = load_policy_file(policy, Screen(), Output.JSON if output == "json" else Output.TABLE)
    manifests = _manifests(loaded, tenant, admission_policy, runway_user)
    if output == "yaml":
        typer.echo(to_yaml(manifests), nl=False)
    else:
        emit_data({"apiVersion": "v1", "kind": "List", "items": manifests}, Output.JSON)


def apply(
    policy: PolicyFile,
    tenant: OneTenant = None,
    admission_policy: AdmissionPolicy = False,
    runway_user: RunwayUsers = None,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Let the API server check each object, and change nothing.")
    ] = False,
    output: As = Output.TABLE,
) -> None:
    """Create or update the Kubernetes objects of the tenants.

    It runs with your own kubeconfig, and deletes nothing. KUBECONFIG or ~/.kube/config names the cluster. It needs
    permission to create namespaces and Roles.
    """
    screen = Screen()
    loaded = load_policy_file(policy, screen, output)
    manifests = _manifests(loaded, tenant, admission_policy, runway_user)
    with configuration_errors(screen):
        results = load_server_module("runway.doctor.run", "tenants apply").apply(manifests, dry_run=dry_run)
    objects = [{"object": name, "accepted": reason is None, "reason": reason} for name, reason in results]

    def show() -> None:
        for name, reason in results:
            if reason is None:
                screen.out(name, "accepted (dry run)" if dry_run else "applied")
            else:
                screen.err(f"{name}: {reason}", style="red")

    is_complete = all(reason is None for _, reason in results)
    emit(
        {"complete": is_complete, "dry_run": dry_run, "objects": objects},
        output,
        names=[name for name, _ in results],
        table=show,
    )
    if not is_complete:
        raise typer.Exit(Exit.REJECTED)


def _manifests(
    policy: Policy, tenant: str | None, admission_policy: bool, runway_users: list[str] | None
) -> list[dict[str, object]]:
    from runway.tenant_manifests import RUNWAY_USER, render_admission_policy
    from runway.tenant_manifests import render as render_tenants

    if tenant is not None:
        if tenant not in policy.tenants:
            raise typer.BadParameter(
                f"{tenant!r} is not in the policy; it has {', '.join(policy.tenants)}", param_hint="--tenant"
            )
        policy = policy.model_copy(update={"tenants": {tenant: policy.tenants[tenant]}})
    manifests = render_tenants(policy)
    if runway_users and not admission_policy:
        raise typer.BadParameter("it needs --admission-policy", param_hint="--runway-user")
    return manifests + (render_admission_policy(runway_users or [RUNWAY_USER]) if admission_policy else [])


def load_policy_file(file: Path, screen: Screen, output: Output) -> Policy:
    from runway.policy import load_policy

    try:
        return load_policy(file)
    except PolicyError as error:
        if output in (Output.JSON, Output.YAML):
            emit_data({"valid": False, "faults": [asdict(fault) for fault in error.faults]}, output)
        else:
            show_policy_error(screen, file, error)
        raise typer.Exit(Exit.REJECTED) from error
