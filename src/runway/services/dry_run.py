"""Dry run: decide and price a submission without creating anything."""

from __future__ import annotations

from runway.admission.quota import TenantQuota
from runway.admission.validation import validate
from runway.errors import ClusterError, InvalidSpec, PublicError, QuotaExceeded, SubmissionsStopped, Violation
from runway.jobs.resources import vector_of
from runway.jobs.spec import read_draft
from runway.services.submit import Submitter, create_failed


async def dry_run(submitter: Submitter, tenant: str, document: object) -> dict[str, object]:
    """Return the decision that `submit` would make; nothing is stored or reserved.

    An emergency stop or lost contact is one violation beside all others. The API server is asked nevertheless, so an
    operator can test the whole path before the stop ends.
    """
    submitter.leadership.require_leader()
    violations = tuple(map(_refusal, submitter.leadership.refusals))
    ledger = submitter.cluster.ledger
    account = ledger.accounts[tenant]
    try:
        validated = validate(read_draft(document), submitter.policy)
    except InvalidSpec as error:
        return _decision(violations + error.violations, None, account, None, ())
    submitter.check_rate(tenant)
    key = submitter.job_key(tenant, None)
    manifest = submitter.build_manifest(tenant, key, validated)
    try:
        ledger.reserve(tenant, key.name, vector_of(validated.spec.resources))
    except QuotaExceeded as error:
        violations += error.violations
    else:
        ledger.release(tenant, key.name)
    try:
        warnings = await submitter.kubernetes.create_job_dry_run(key.namespace, manifest)
    except ClusterError as error:
        raise create_failed(error, key) from error
    return _decision(violations, validated.price.to_json(), account, manifest, warnings)


def _decision(
    violations: tuple[Violation, ...],
    cost: dict[str, object] | None,
    account: TenantQuota,
    manifest: dict[str, object] | None,
    warnings: tuple[str, ...],
) -> dict[str, object]:
    return {
        "decision": "refused" if violations else "admitted",
        "violations": list(violations),
        "cost": cost,
        "quota": account.to_json(),
        "manifest": manifest,
        "warnings": list(warnings),
    }


def _refusal(error: PublicError) -> Violation:
    """Show a reason to admit no job at all as a violation that names no field of the specification."""
    retry = f"submit again in {error.retry_after} s"
    hint = SubmissionsStopped.hint if isinstance(error, SubmissionsStopped) else retry
    return Violation("submissions", error.code, error.detail, hint=hint)
