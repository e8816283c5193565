"""Every error Runway raises, and the stable codes that callers see.

    RunwayError
    ├── ConfigurationError           a policy file or setting that stops the start; never answered over HTTP
    │   └── PolicyError
    ├── ClusterError                 what a call to Kubernetes came to; the flows turn it into a public error
    │   ├── ObjectExists             409: the name is taken, or the version has changed since it was read
    │   ├── ObjectMissing            404
    │   ├── Expired                  410: the resource version or continue token is too old; list again
    │   ├── Refused                  any other 4xx: nothing happened, and repeating would not help
    │   ├── NotDone                  no connection, or 429: certainly nothing happened
    │   └── Ambiguous                a time-out, a broken connection or a 5xx: it may have happened
    │       └── AnswerTooLarge       the answer has more bytes than Runway takes in at once
    ├── PrometheusUnavailable        no answer from Prometheus that can be used; usage stays unknown and says why
    ├── StreamCut                    an answer in progress that cannot be made whole: its connection is broken off
    └── PublicError                  answered as a problem document (RFC 9457): code, status, title, detail
        ├── InvalidSpec          422 invalid_spec            every violation at once
        ├── InvalidParameter     422 invalid_parameter       a query parameter or path that cannot be used
        ├── MalformedRequest     400 malformed_request       the bytes are not acceptable HTTP/1.1
        ├── TenantRequired       400 tenant_required
        ├── UnknownTenant        403 unknown_tenant
        ├── QuotaExceeded        403 quota_exceeded
        ├── RouteNotFound        404 not_found
        ├── JobNotFound          404 job_not_found
        ├── LogsNotReady         404 logs_not_ready          no container of the job has started yet
        ├── MethodNotAllowed     405 method_not_allowed
        ├── BodyTooSlow          408 body_too_slow
        ├── IdempotencyConflict  409 idempotency_conflict
        ├── LogsGone             410 logs_gone               the pod is gone; the kept excerpt comes along
        ├── BodyTooLarge         413 body_too_large
        ├── UnsupportedMediaType 415 unsupported_media_type
        ├── RateLimited          429 rate_limited            with Retry-After
        ├── InternalError        500 internal_error          a defect of Runway's own, never meant to be seen
        └── Unavailable          503                         with Retry-After
            ├── NotReady             not_ready
            ├── NotLeader            not_leader              another process is the writer
            ├── SubmissionsStopped   submissions_stopped     an operator's emergency stop; the detail is the reason
            ├── KubernetesUnavailable kubernetes_unavailable
            ├── OutcomeUnknown       outcome_unknown         names the id; a retry with the same key settles it
            └── TooBusy              too_busy                a bound on work in progress was reached

No exception of a library crosses the package that uses it: `cluster/` turns those of its client into these.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar


@dataclass(frozen=True, slots=True)
class Violation:
    """One thing that is wrong with a request: which field, how it was seen, what is allowed, what to do."""

    field: str
    code: str
    message: str
    observed: str | None = None
    limit: str | None = None
    hint: str | None = None


class RunwayError(Exception):
    """The root of the tree."""


class ConfigurationError(RunwayError):
    """A setting that stops the start; the message names it."""


class PolicyError(ConfigurationError):
    """A policy file that cannot be used; the message has a line per faulty field, `field: message`."""

    def __init__(self, faults: list[tuple[str, str]]) -> None:
        super().__init__("\n".join(f"{field}: {message}" for field, message in faults))
        self.faults = faults


class ClusterError(RunwayError):
    """A call to Kubernetes that did not succeed; the message is fit to be shown.

    `retry_after` is in seconds, where the API server has given one.
    """

    def __init__(self, message: str, retry_after: int | None = None) -> None:
        super().__init__(message)
        self.retry_after = retry_after


class ObjectExists(ClusterError):
    pass


class NotFound(ClusterError):
    pass


class ResourceExpired(ClusterError):
    pass


class Rejected(ClusterError):
    pass


class NotExecuted(ClusterError):
    pass


class AmbiguousOutcome(ClusterError):
    pass


class ResponseTooLarge(AmbiguousOutcome):
    pass


class PrometheusUnavailable(RunwayError):
    """There is no answer from Prometheus that can be used; the message is fit to be shown."""


class StreamInterrupted(RunwayError):
    """The rest of an answer that has begun is not to be had; the message is for Runway's own log."""


class PublicError(RunwayError):
    """An error that a caller sees. `extra` holds further members of the problem document."""

    status: ClassVar[int]
    code: ClassVar[str]
    title: ClassVar[str]

    def __init__(
        self,
        detail: str,
        *,
        violations: tuple[Violation, ...] = (),
        retry_after: int | None = None,
        extra: dict[str, object] | None = None,
    ) -> None:
        super().__init__(detail)
        self.detail = detail
        self.violations = violations
        self.retry_after = retry_after
        self.extra = extra or {}


class InvalidSpec(PublicError):
    status, code, title = 422, "invalid_spec", "The job specification is not acceptable"

    def __init__(self, violations: tuple[Violation, ...]) -> None:
        count = len(violations)
        super().__init__(f"{count} violation{'s' if count != 1 else ''}, listed below", violations=violations)


class InvalidParameter(PublicError):
    status, code, title = 422, "invalid_parameter", "A parameter of the request cannot be used"


class MalformedRequest(PublicError):
    status, code, title = 400, "malformed_request", "The request is not acceptable HTTP"


class TenantRequired(PublicError):
    status, code, title = 400, "tenant_required", "The X-Tenant-ID header is missing or malformed"


class UnknownTenant(PublicError):
    status, code, title = 403, "unknown_tenant", "The tenant is not in the policy"


class QuotaExceeded(PublicError):
    status, code, title = 403, "quota_exceeded", "The tenant's quota would be exceeded"


class RouteNotFound(PublicError):
    status, code, title = 404, "not_found", "There is nothing at this path"


class JobNotFound(PublicError):
    status, code, title = 404, "job_not_found", "There is no such job"

    def __init__(self, job_id: str) -> None:
        super().__init__(f"no job {job_id!r} is known for this tenant; it may have passed its time to live")


class LogsNotReady(PublicError):
    status, code, title = 404, "logs_not_ready", "The job has not written any log yet"


class MethodNotAllowed(PublicError):
    status, code, title = 405, "method_not_allowed", "The path does not take this method"


class IdempotencyConflict(PublicError):
    status, code, title = 409, "idempotency_conflict", "The idempotency key belongs to another specification"


class LogsGone(PublicError):
    status, code, title = 410, "logs_gone", "The pod is gone, and its log with it"


class BodyTooSlow(PublicError):
    status, code, title = 408, "body_too_slow", "The request body did not arrive in time"


class BodyTooLarge(PublicError):
    status, code, title = 413, "body_too_large", "The request body is too large"


class UnsupportedMediaType(PublicError):
    status, code, title = 415, "unsupported_media_type", "The request body must be application/json"


class RateLimited(PublicError):
    status, code, title = 429, "rate_limited", "The tenant asks for more, or faster, than its rate allows"


class InternalError(PublicError):
    """A fault of Runway's own. It is a defect wherever it is seen; the log has the traceback under the request id."""

    status, code, title = 500, "internal_error", "Runway itself failed"


class Unavailable(PublicError):
    """Runway cannot decide now; nothing was kept unless the code says so. Always carries Retry-After."""

    status = 503

    def __init__(self, detail: str, *, retry_after: int = 2, extra: dict[str, object] | None = None) -> None:
        super().__init__(detail, retry_after=retry_after, extra=extra)


class NotReady(Unavailable):
    code, title = "not_ready", "Runway has not yet learnt the state of the cluster"


class NotLeader(Unavailable):
    code, title = "not_leader", "Another process is the writer"


class SubmissionsStopped(Unavailable):
    code, title = "submissions_stopped", "The platform's operators have stopped all submissions"

    hint: ClassVar = "accepted jobs go on, and can be read and cancelled; submit again once the stop has ended"

    def __init__(self, reason: str) -> None:
        super().__init__(reason, retry_after=60, extra={"hint": self.hint})


class KubernetesUnavailable(Unavailable):
    code, title = "kubernetes_unavailable", "The Kubernetes API did not answer as it should"


class OutcomeUnknown(Unavailable):
    code, title = "outcome_unknown", "Kubernetes may or may not have taken the request"


class TooBusy(Unavailable):
    code, title = "too_busy", "Runway has as much work in progress as it allows itself"
