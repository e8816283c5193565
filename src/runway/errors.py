"""Every error of Runway, and the stable codes that callers see.

No exception of a library leaves the package that uses it: `kube` turns those of its client into a ClusterError. The
services turn a ClusterError into a PublicError, which is answered as a problem document (RFC 9457).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar, Final

MAX_NAMES: Final = 5
"""Names that one message lists."""


@dataclass(frozen=True, slots=True)
class Violation:
    """One fault of a request."""

    __pydantic_config__: ClassVar = {
        "use_attribute_docstrings": True,
        "json_schema_serialization_defaults_required": True,
    }

    field: str
    """The field, header or parameter."""
    code: str
    """A stable code for programs."""
    message: str
    """The fault in plain words."""
    observed: str | None = None
    """The observed value."""
    limit: str | None = None
    """The limit."""
    hint: str | None = None
    """The next step."""


class RunwayError(Exception):
    pass


class ConfigurationError(RunwayError):
    """An invalid setting, which the message names: the process does not start."""


@dataclass(frozen=True, slots=True)
class PolicyFault:
    """One fault of a policy file. `field` is `file` for a fault of the whole file; lines count from 1."""

    field: str
    message: str
    line: int | None = None
    observed: str | None = None
    limit: str | None = None
    hint: str | None = None

    def __str__(self) -> str:
        """Return one line; the message has the limit: `line 3: limits.gpu.max: must be at most 64 (observed 100)`."""
        place = [] if self.line is None else [f"line {self.line}"]
        field = [self.field] if self.field != "file" or not place else []
        observed = "" if self.observed is None else f" (observed {self.observed})"
        hint = f"; {self.hint}" if self.hint else ""
        return f"{': '.join([*place, *field, self.message])}{observed}{hint}"


class PolicyError(ConfigurationError):
    """An invalid policy file; the message has a line for each fault."""

    def __init__(self, faults: list[PolicyFault]) -> None:
        super().__init__("\n".join(map(str, faults)))
        self.faults = faults


class ClusterError(RunwayError):
    """A failed call to Kubernetes; the message may be shown. `retry_after` is in seconds, if the API server sent it."""

    def __init__(self, message: str, retry_after: int | None = None) -> None:
        super().__init__(message)
        self.retry_after = retry_after


class AlreadyExists(ClusterError):
    """409 AlreadyExists: an object of this name exists."""


class Conflict(ClusterError):
    """409 Conflict: the object has changed since it was read."""


class NotFound(ClusterError):
    """404."""


class ResourceExpired(ClusterError):
    """410: the resource version or continue token is too old; list again."""


class Rejected(ClusterError):
    """Any other 4xx: nothing happened, and a retry does not help."""


class NotExecuted(ClusterError):
    """No connection, or 429: nothing happened."""


class AmbiguousOutcome(ClusterError):
    """A timeout, a broken connection or a 5xx: the call may have had its effect."""


class ResponseTooLarge(AmbiguousOutcome):
    """The response exceeds the size that Runway reads."""


class PrometheusUnavailable(RunwayError):
    """Prometheus returned no usable response; the message may be shown."""


class StreamInterrupted(RunwayError):
    """The rest of a response is unavailable, so the server closes its connection; the message is for Runway's log."""


class PublicError(RunwayError):
    """An error that a caller sees. `extra` holds further members of the problem document.

    `title` is a fixed noun phrase, `hint` the caller's next step as one imperative sentence.
    """

    status: ClassVar[int]
    code: ClassVar[str]
    title: ClassVar[str]
    hint: ClassVar[str]

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
    status, code, title = 422, "invalid_spec", "Invalid job specification"
    hint = "correct the fields that the violations name"

    def __init__(self, violations: tuple[Violation, ...]) -> None:
        count = len(violations)
        super().__init__(f"{count} violation{'s' if count != 1 else ''}, listed below", violations=violations)


class InvalidParameter(PublicError):
    status, code, title = 422, "invalid_parameter", "Invalid request parameter"
    hint = "correct the parameter or header"


class MalformedRequest(PublicError):
    status, code, title = 400, "malformed_request", "Malformed HTTP request"
    hint = "send a whole HTTP/1.1 request without TLS or Upgrade, with one Host header and short headers"


class TenantRequired(PublicError):
    status, code, title = 400, "tenant_required", "Missing or malformed X-Tenant-ID header"
    hint = "send the X-Tenant-ID header once, with the name of your tenant"


class UnknownTenant(PublicError):
    status, code, title = 403, "unknown_tenant", "Unknown tenant"
    hint = "check the name, or ask a platform operator to add the tenant to the policy"


class QuotaExceeded(PublicError):
    status, code, title = 403, "quota_exceeded", "Quota exceeded"
    hint = "follow the hint of each violation; `held_by` lists the jobs that use the quota"


class RouteNotFound(PublicError):
    status, code, title = 404, "not_found", "Unknown path"
    hint = "check the path; /docs lists all paths"


class TenantPageNotFound(RouteNotFound):
    title, hint = "Unknown tenant", "check the name; the overview lists the tenants"


class JobNotFound(PublicError):
    status, code, title = 404, "job_not_found", "Unknown job"
    hint = "check the id and the tenant; finished jobs are deleted after a time (`limits.retention_seconds`)"

    def __init__(self, job_id: str) -> None:
        super().__init__(f"no job has the id {job_id!r}")


class JobOrphaned(JobNotFound):
    """Someone deleted the Job and left its pods, which run on."""

    hint = "ask the platform operators to delete the pods, or wait until they end"

    def __init__(self, job_id: str, pods: Sequence[str]) -> None:
        super().__init__(job_id)
        number = "1 pod, which runs on and uses" if len(pods) == 1 else f"{len(pods)} pods, which run on and use"
        self.detail = f"the Job {job_id} was deleted without {number} quota: {', '.join(pods[:MAX_NAMES])}"


class LogsNotReady(PublicError):
    status, code, title = 404, "logs_not_ready", "Log not available yet"
    hint = "retry when the job runs, or use `follow`"


class MethodNotAllowed(PublicError):
    status, code, title = 405, "method_not_allowed", "Method not allowed"
    hint = "use a method of the Allow header"


class IdempotencyConflict(PublicError):
    status, code, title = 409, "idempotency_conflict", "Idempotency key in use"
    hint = "use a new key for another job, or the same body for the same job"


class LogsGone(PublicError):
    status, code, title = 410, "logs_gone", "Log deleted with its pod"
    hint = "read `excerpt`, or open `logs_url` if there is one"


class BodyTooSlow(PublicError):
    status, code, title = 408, "body_too_slow", "Request body timeout"
    hint = "send the request again over a faster connection"


class BodyTooLarge(PublicError):
    status, code, title = 413, "body_too_large", "Request body too large"
    hint = "send less; put long command lines and files into the image or a store"


class UnsupportedMediaType(PublicError):
    status, code, title = 415, "unsupported_media_type", "Unsupported media type"
    hint = "send `Content-Type: application/json`, in UTF-8 and not compressed"


class RateLimited(PublicError):
    status, code, title = 429, "rate_limited", "Rate limit exceeded"
    hint = "retry after the seconds in Retry-After; a rejected request does not count"


class InternalError(PublicError):
    """A defect of Runway. The log has the traceback under the request id."""

    status, code, title = 500, "internal_error", "Internal error"
    hint = "report the request id to a platform operator"


class Unavailable(PublicError):
    """Runway cannot decide now, and nothing changed unless the code says so. Each response has Retry-After."""

    status = 503

    def __init__(self, detail: str, *, retry_after: int = 2, extra: dict[str, object] | None = None) -> None:
        super().__init__(detail, retry_after=retry_after, extra=extra)


class NotReady(Unavailable):
    code, title = "not_ready", "Runway not ready"
    hint = "retry after the seconds in Retry-After"


class NotLeader(Unavailable):
    code, title = "not_leader", "Not the leader"
    hint = "retry after the seconds in Retry-After, or send the request to the leader"


class SubmissionsStopped(Unavailable):
    code, title = "submissions_stopped", "Submissions stopped"
    hint = "submit again after the stop; accepted jobs continue, and you can read and cancel them"

    def __init__(self, reason: str) -> None:
        super().__init__(reason, retry_after=60)


class KubernetesUnavailable(Unavailable):
    code, title = "kubernetes_unavailable", "Kubernetes API unavailable"
    hint = "retry after the seconds in Retry-After; nothing changed"


class OutcomeUnknown(Unavailable):
    code, title = "outcome_unknown", "Unknown outcome"
    hint = "read the job that `id` names, or repeat the request with the same key"


class TooBusy(Unavailable):
    code, title = "too_busy", "Too many requests in progress"
    hint = "retry after the seconds in Retry-After; nothing changed"
