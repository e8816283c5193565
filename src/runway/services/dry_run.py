"""Dry run: decide and price a submission without creating anything."""

from __future__ import annotations

from runway import errors
from runway.jobs.resources import vector_of
from runway.services.free_capacity import warn_of_wait
from runway.services.submit import Submitter, create_failed


async def dry_run(submitter: Submitter, tenant: str, document: object) -> dict[str, object]:
    """Return the decision that `submit` would make; nothing is stored or reserved.

    An emergency stop is one violation beside all others. The API server is asked nevertheless.
    """
    submitter.leadership.require_leader()
    violations = list(map(_refusal, submitter.leadership.refusals))
    ledger = submitter.cluster.ledger
    decision: dict[str, object] = {
        "decision": "refused",
        "violations": violations,
        "cost": None,
        "quota": ledger.accounts[tenant].to_json(submitter.now()) | {"requested": None},
        "manifest": None,
        "warnings": [],
    }
    try:
        validated = submitter.validate(tenant, document)
    except errors.InvalidSpec as error:
        violations += error.violations
        return decision
    submitter.check_rate(tenant)
    key = submitter.job_key(tenant, None)
    manifest = submitter.build_manifest(tenant, key, document, validated)
    request = vector_of(validated.spec.resources, validated.price)
    try:
        ledger.reserve(tenant, key.name, request, submitter.now())
    except errors.QuotaExceeded as error:
        violations += error.violations
    else:
        ledger.release(tenant, key.name)
    try:
        warnings = await submitter.kubernetes.create_job_dry_run(key.namespace, manifest)
    except errors.ClusterError as error:
        raise create_failed(error, key) from error
    pool = submitter.policy.pools[validated.pool]
    wait = warn_of_wait(submitter.cluster, validated.pool, pool, validated.spec.resources)
    return decision | {
        "decision": "refused" if violations else "admitted",
        "cost": validated.price,
        "quota": ledger.accounts[tenant].to_json(submitter.now()) | {"requested": request.to_json()},
        "manifest": manifest,
        "warnings": [*warnings, *([wait] if wait else [])],
    }


def _refusal(error: errors.PublicError) -> errors.Violation:
    """Show a reason to admit no job at all as a violation that names no field of the specification."""
    retry = f"submit again in {error.retry_after} s"
    hint = errors.SubmissionsStopped.hint if isinstance(error, errors.SubmissionsStopped) else retry
    return errors.Violation("submissions", error.code, error.detail, hint=hint)
