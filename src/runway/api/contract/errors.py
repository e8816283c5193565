"""One real problem for every code: made by its class and, where it can be, by the code that makes it in earnest."""

from __future__ import annotations

from typing import Any, Final

import msgspec

from runway.admission.quota import amounts_of
from runway.admission.validation import validate
from runway.api.contract.examples import CRASHED_JOB, FINE_TUNE, POLICY, RUNNING_GPU_JOB, refused_quota
from runway.api.problems import problem_document
from runway.errors import (
    BodyTooLarge,
    BodyTooSlow,
    IdempotencyConflict,
    InvalidParameter,
    InvalidSpec,
    JobNotFound,
    KubernetesUnavailable,
    LogsGone,
    LogsNotReady,
    MalformedRequest,
    MethodNotAllowed,
    NotLeader,
    NotReady,
    OutcomeUnknown,
    PublicError,
    RateLimited,
    RouteNotFound,
    SubmissionsStopped,
    TenantRequired,
    TooBusy,
    UnknownTenant,
    UnsupportedMediaType,
    Violation,
)
from runway.jobs.spec import read_draft

REQUEST_ID: Final = "5f0c1e7c9b9d4b7f8f0f6a1d2c3b4a59"

_BAD_SPEC: Final = {
    "name": "train resnet",
    "image": "example.org/miner:latest",
    "resources": {"cpu": "64", "memory": "16Gi", "gpu": 1, "gpu_type": "h100"},
    "timeout": 3600,
}


def problem_examples() -> dict[str, dict[str, Any]]:
    """A problem document for each code."""
    return {error.code: _plain(problem_document(error, REQUEST_ID)) for error in _errors()}


ADVICE: Final[dict[str, str]] = {
    "malformed_request": "speak HTTP/1.1 to this port: without TLS or Upgrade, with one Host header and short headers",
    "tenant_required": "send the header once, with your tenant's name",
    "unknown_tenant": "check the name; an operator adds tenants to the policy",
    "invalid_spec": "change what each violation names; it says the limit and a way",
    "invalid_parameter": "change the parameter or header that is named",
    "quota_exceeded": "wait for one of the jobs in `held_by`, cancel one, or ask for less",
    "not_found": "check the path",
    "job_not_found": "check the id and the tenant; a job is forgotten after its time to live",
    "logs_not_ready": "try again once the job runs, or use `follow`",
    "method_not_allowed": "use a method of the `Allow` header",
    "idempotency_conflict": "use a new key for another job, or the same body for the same job",
    "logs_gone": "read `excerpt`; the rest is where your logging keeps it",
    "body_too_slow": "send it again, over a connection that carries it",
    "body_too_large": "send less: long command lines and files belong into the image or a store",
    "unsupported_media_type": "send `Content-Type: application/json`, in UTF-8 and not compressed",
    "rate_limited": "wait as long as `Retry-After` says; a try before that costs nothing",
    "submissions_stopped": "wait: the operators say in `detail` why, and everything but submissions goes on",
    "not_ready": "try again after `Retry-After`; Runway is listing what there is",
    "not_leader": "try again after `Retry-After`, or send it to the writer",
    "kubernetes_unavailable": "try again after `Retry-After`; nothing was kept",
    "outcome_unknown": "send the same request with the same key again, or read the job that `id` names",
    "too_busy": "try again after `Retry-After`; nothing was kept",
}
"""By code: what the caller does next."""


def _errors() -> list[PublicError]:
    return [
        TenantRequired("send the header X-Tenant-ID with the name of your tenant"),
        UnknownTenant("tenant visoin is not in the policy; ask a platform operator to add it"),
        _refused_spec(),
        InvalidParameter(
            "a query parameter is not acceptable",
            violations=(
                Violation("dryrun", "unknown_parameter", "is not known here", hint="parameters here: dry_run"),
            ),
        ),
        _refused_quota(),
        RouteNotFound("nothing is at '/v1/job'; /docs lists what there is"),
        JobNotFound("rw-aaaaaaaaaaaaaaaaaaaa"),
        LogsNotReady("the job is pending, and no container of its last attempt has started"),
        MalformedRequest("Invalid HTTP request received."),
        MethodNotAllowed("PUT is not possible here; try GET, POST"),
        IdempotencyConflict(f"job {RUNNING_GPU_JOB.id} was submitted under this key with another specification"),
        LogsGone(
            f"pod {CRASHED_JOB.attempts[-1].pod} no longer exists; the excerpt is what was kept of the last lines",
            extra={
                "excerpt": CRASHED_JOB.excerpt.text if CRASHED_JOB.excerpt else None,
                "pod": CRASHED_JOB.attempts[-1].pod,
            },
        ),
        BodyTooSlow("the request body did not arrive within 20 s"),
        BodyTooLarge("a request body may have at most 262144 bytes"),
        UnsupportedMediaType("send the job as application/json in UTF-8"),
        RateLimited(
            "tenant speech may submit 6 jobs a minute, 5 at once; the next one will be taken in 10 s", retry_after=10
        ),
        SubmissionsStopped("GPU driver rollout, back at 15:00"),
        NotReady("the jobs in the cluster are still being listed"),
        NotLeader("the writer is runway-6d5f7c9b8-x2x7k; this process only reads"),
        KubernetesUnavailable("the Kubernetes API did not answer within 4 s"),
        OutcomeUnknown(
            "the create did not end in time; whether it will is not known yet", extra={"id": RUNNING_GPU_JOB.id}
        ),
        TooBusy("too many calls to Kubernetes are waiting for their turn"),
    ]


def _refused_spec() -> PublicError:
    try:
        validate(read_draft(_BAD_SPEC), POLICY)
    except InvalidSpec as error:
        return error
    raise AssertionError("the specification is not refused")


def _refused_quota() -> PublicError:
    """The GPU job is asked for once more while it runs."""
    refused = refused_quota(amounts_of(validate(read_draft(FINE_TUNE), POLICY).spec.resources))
    assert refused is not None  # noqa: S101 (three GPUs and three more are more than four)
    return refused


def _plain(document: dict[str, object]) -> dict[str, Any]:
    return dict(msgspec.json.decode(msgspec.json.encode(document)))
