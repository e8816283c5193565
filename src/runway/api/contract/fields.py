"""What each field of an answer means, and its form: laid over the schemas that FastAPI makes of the classes."""

from __future__ import annotations

from typing import Any, Final

from runway.api.contract.spec import LABEL, QUANTITY, pattern
from runway.errors import OutcomeUnknown
from runway.jobs.identity import JOB_ID as JOB_ID_GRAMMAR
from runway.policy import TENANT_NAME

JOB_ID: Final[dict[str, Any]] = {"pattern": pattern(JOB_ID_GRAMMAR)}
TENANT: Final[dict[str, Any]] = {"pattern": pattern(TENANT_NAME)}
REQUEST_ID: Final[dict[str, Any]] = {"pattern": "^[A-Za-z0-9._-]{1,128}$"}
_AMOUNT: Final[dict[str, Any]] = {"pattern": QUANTITY}
_USD: Final[dict[str, Any]] = {"pattern": r"^[0-9]{1,12}(\.[0-9]{1,6})?$"}
_COUNT: Final[dict[str, Any]] = {"minimum": 0}
_RATIO: Final[dict[str, Any]] = {"minimum": 0, "maximum": 1}

_ATTEMPT_STATES: Final = ["waiting", "running", "terminating", "succeeded", "failed"]

Form = str | tuple[str, dict[str, Any]]
"""A description, or that and the form."""

_RESOURCES: Final[dict[str, Form]] = {
    "cpu": ("Kubernetes quantity", _AMOUNT),
    "memory": ("Kubernetes quantity", _AMOUNT),
    "gpu": ("Whole GPUs", _COUNT),
}
_USAGE: Final[dict[str, Form]] = {
    "cpu_seconds": ("CPU time of the last attempt", _COUNT),
    "cpu_cores": ("Its mean since the container started, in cores", _COUNT),
    "cpu_limit_cores": ("The job's own `resources.cpu`, in cores", _COUNT),
    "memory_bytes": ("The working set: what the kernel cannot simply drop", _COUNT),
    "memory_peak_bytes": ("The most that was needed at once, over all attempts", _COUNT),
    "memory_limit_bytes": ("The job's own `resources.memory`, in bytes", _COUNT),
    "throttled_ratio": (
        "Of the CPU periods in which the job wanted to run, the part in which its limit stopped it",
        _RATIO,
    ),
    "cpu_periods": ("How many such periods there were, of 100 ms each", _COUNT),
    "gpu_utilisation": (
        "Mean of the job's GPUs, where NVIDIA's DCGM exporter is scraped; null elsewhere, as on the local cluster",
        _RATIO,
    ),
    "sampled_at": "When CPU was measured last",
}

FIELDS: Final[dict[str, dict[str, Form]]] = {
    "JobView": {
        "id": ("The name of the Kubernetes Job: `kubectl describe job` takes it", JOB_ID),
        "tenant": ("Whose job it is", TENANT),
        "name": ("The caller's label", {"pattern": LABEL}),
        "state": "Where the job is in its life",
        "spec": "The specification as admitted, every default filled in; null for a Job that was made past Runway",
        "created_at": "When Kubernetes took the job; its timeout counts from about here",
        "started_at": "When the first container started",
        "finished_at": "When Kubernetes gave its verdict, once the job is over",
        "conditions": "Why a job that is not over is not further along; several can hold at once",
        "attempts": ("The pods of the job, oldest first: the newest 20", {"maxItems": 20}),
        "attempts_left_out": ("How many attempts came before those", _COUNT),
        "disruptions": ("How many attempts the cluster ended; they do not count against the retries", _COUNT),
        "failure": "The verdict on a job that failed",
        "cost": "The price as admitted, and the actual cost once it is known",
        "kubernetes": "Where `kubectl` finds the job",
        "excerpt": "The end of the log of the last attempt that ran, as far as it is kept",
        "usage": "What the job used, kept with its verdict where it was measured",
    },
    "SpecView": {
        "name": ("The caller's label", {"pattern": LABEL}),
        "image": "The image reference",
        "command": "The command; empty for the image's own",
        "args": "The arguments",
        "env": "The environment variables of the caller. Where `X-Tenant-ID` does not name the job's tenant, each "
        "value is replaced by its length: `<hidden: 12 characters>`",
        "resources": "What each attempt gets, and is held to",
        "timeout_seconds": ("The whole life of the job, from acceptance", {"minimum": 1}),
        "retries": ("Attempts after one that failed by itself", _COUNT),
        "grace_period_seconds": ("Between SIGTERM and SIGKILL", {"minimum": 1}),
        "max_cost_usd": ("The most that the job was allowed to cost", _USD),
    },
    "ResourcesView": {**_RESOURCES, "gpu_type": "The GPU type; null without GPUs"},
    "Condition": {
        "code": "Stable; made for programs",
        "message": "What is known of it, in plain words",
        "since": "When it began, as far as Kubernetes says",
    },
    "Attempt": {
        "pod": "The pod's name",
        "node": "The node it was bound to; null where it never got one",
        "state": ("Where the attempt is", {"enum": _ATTEMPT_STATES}),
        "exit_code": ("Of the container; 128 + n for signal n", {"minimum": -(2**31), "maximum": 2**31 - 1}),
        "signal": "The signal that ended the process, by name",
        "reason": "Kubernetes' own word for how it ended",
        "created_at": "When the pod was made",
        "bound_at": "When the scheduler gave it its node; the actual cost counts from here",
        "started_at": "When its container started",
        "finished_at": "When its container ended",
        "counted": "Whether it used up a retry",
        "cause": "Why it did not succeed",
        "message": "The same in plain words, or what speaks against its success",
    },
    "Failure": {
        "code": "Stable; made for programs",
        "category": "Who has to act",
        "retryable": "Whether the same specification may succeed if it is submitted again",
        "message": "What happened, in plain words",
        "hint": "What to change, and by how much where that can be known",
        "evidence": "The fields that the verdict was read from, each bounded",
    },
    "CostView": {
        "currency": ("Always USD", {"const": "USD"}),
        "rate_card": "Pool, instance type and hourly price that the job was priced by",
        "hourly": ("USD an hour: the job's part of its node", _USD),
        "ceiling": ("USD at most: `hourly` times the timeout, rounded up", _USD),
        "actual": ("USD for the time on a node, over all attempts; null until the job is over", _USD),
        "lines": "What each resource contributes; they add up to `hourly`",
    },
    "CostLineView": {
        "resource": ("Which resource", {"enum": ["cpu", "memory", "gpu"]}),
        "quantity": ("How much of it", _AMOUNT),
        "hourly": ("USD an hour", _USD),
    },
    "KubernetesRef": {"namespace": "The tenant's namespace", "job": ("The Job's name", JOB_ID)},
    "Excerpt": {
        "pod": "The pod that wrote it",
        "text": "At most 4 KiB; control characters are escaped, known secrets are `***`",
        "truncated": "Whether there was more before it",
    },
    "Usage": _USAGE,
    "UsageView": {
        "id": ("The job", JOB_ID),
        "source": "Where the figures are from: measured now, or kept with the verdict; null where no source is set up",
        "problem": "Why the source has not answered",
        **_USAGE,
        "findings": "What the figures mean, in plain words: throttling, and memory near its limit",
    },
    "JobList": {
        "jobs": "Newest first",
        "next_cursor": "Send it as `cursor` for the next page; null on the last",
    },
    "DryRun": {
        "decision": "Whether the job would be let in now",
        "violations": "All that speaks against it",
        "cost": "What it would cost; null where the specification itself is refused",
        "quota": "The tenant's quota at this moment",
        "manifest": "The Kubernetes Job that would be created",
        "warnings": "What the API server warns of",
    },
    "ViolationView": {
        "field": "Which field, header or parameter",
        "code": "Stable; made for programs",
        "message": "What is wrong with it",
        "observed": "What was seen",
        "limit": "What is allowed",
        "hint": "What to do",
    },
    "QuotaSummary": {
        "limit": "What the tenant may hold",
        "used": "Booked for jobs and pods in the cluster",
        "reserved": "For creates in flight",
    },
    "QuotaView": {"tenants": "All of them, or the one that the header names"},
    "TenantQuotaView": {
        "tenant": ("The tenant", TENANT),
        "namespace": "Its namespace",
        "limit": "What it may hold",
        "used": "What its jobs and pods hold in the cluster",
        "reserved": "For creates in flight",
        "held_by_terminating": "The part of `used` that only pods hold that were told to end and have not",
        "jobs": "Who holds it",
    },
    "AmountsView": {**_RESOURCES, "jobs": ("Jobs that are not over", _COUNT)},
    "HolderView": {
        "id": "The job, or the pod that was made past Runway",
        "state": "Its state; null where only pods are left",
        **_RESOURCES,
        "terminating": "Whether a pod of it was told to end and has not",
    },
    "PolicyView": {
        "limits": "The bounds of every job",
        "images": "Where images may come from",
        "pools": "By name: what jobs run on, and what it costs",
        "tenants": "By name: the teams",
    },
    "LimitsView": {
        "cpu": "Of `resources.cpu`",
        "memory": "Of `resources.memory`",
        "gpu": "Of `resources.gpu`",
        "timeout_seconds": "Of the job's whole life",
        "grace_period_seconds": "Between SIGTERM and SIGKILL",
        "retries": "Of `retries`",
        "ephemeral_storage": "The same for every job",
        "retention_seconds": ("How long a job is remembered after its end", _COUNT),
    },
    "QuantityRange": {"min": ("The least", _AMOUNT), "max": ("The most", _AMOUNT)},
    "TimeoutBounds": {
        "min": ("The least", _COUNT),
        "max": ("The most", _COUNT),
        "default": ("Where a job names none", _COUNT),
    },
    "GraceBounds": {"max": ("The most", _COUNT), "default": ("Where a job names none", _COUNT)},
    "UpperBound": {"max": ("The most", _COUNT)},
    "StorageBounds": {"per_job": ("Kubernetes quantity", _AMOUNT)},
    "ImagesView": {"allow": "Repositories, or `prefix/*`"},
    "PoolView": {
        "instance_type": "Of its nodes",
        "gpu_type": "What jobs ask for as `gpu_type`; null without GPUs",
        "node": "What one node has",
        "hourly_usd": ("Price of a node", _USD),
        "hourly_usd_per": "Price of one `cpu`, one `memory_gib`, one `gpu`",
    },
    "NodeView": _RESOURCES,
    "TenantView": {
        "namespace": "Its Kubernetes namespace",
        "quota": "What its jobs may hold together",
        "rate": "How fast it may ask",
    },
    "RateView": {
        "per_minute": ("In the long run", {"minimum": 1}),
        "burst": ("At once", {"minimum": 1}),
    },
    "TenantRateView": {
        "per_minute": ("Submissions, in the long run", {"minimum": 1}),
        "burst": ("Submissions at once", {"minimum": 1}),
        "reads": "Reads, apart from submissions",
        "streams": ("Open log and event streams", {"minimum": 1}),
    },
    "HealthView": {"status": "Alive"},
    "ReadyView": {
        "status": "Ready",
        "role": "Only the writer admits and cancels; a reader answers reads",
        "submissions": "`stopped` while an operator's emergency stop stands",
        "stop_reason": "The operator's words; null where submissions are open",
        "undecodable_objects": ("Kubernetes objects of which a part cannot be read", _COUNT),
        "undecodable": "The first 20 of them; docs/runbooks.md says how to remove them",
        "watch_age_seconds": "By kind: for how long nothing was heard from Kubernetes",
        "jobs": ("Jobs that are known", _COUNT),
    },
    "UndecodableObject": {
        "kind": "Its resource: `jobs`, `pods`, `events` or `nodes`",
        "namespace": "Its namespace; empty for a node",
        "name": "Its name",
        "fields": "The parts that cannot be read",
    },
}

DESCRIPTIONS: Final[dict[str, str]] = {
    "JobState": "`succeeded`, `failed` and `cancelled` are for good.",
    "Category": "Who has to act: the job's owner, the platform's operators, who sets the policy, or Runway's makers.",
    "FailureCode": "Why a job, or an attempt of it, did not succeed.",
    "ConditionCode": "Why a job waits.",
}
"""Of the components that are enumerations."""

PROBLEM: Final[dict[str, Any]] = {
    "type": "object",
    "title": "Problem",
    "description": "An error, as RFC 9457 has it: `application/problem+json`.",
    "required": ["type", "title", "status", "detail", "code", "request_id", "violations"],
    "properties": {
        "type": {
            "type": "string",
            "format": "uri",
            "pattern": "^urn:runway:problem:[a-z_]+$",
            "description": "Identifies the kind of problem",
        },
        "title": {"type": "string", "description": "The kind in words"},
        "status": {"type": "integer", "minimum": 400, "maximum": 599, "description": "The HTTP status"},
        "detail": {"type": "string", "description": "What happened this time"},
        "code": {"type": "string", "pattern": "^[a-z_]+$", "description": "Stable; made for programs"},
        "request_id": {
            "type": "string",
            **REQUEST_ID,
            "description": "The id under which Runway's log has the request",
        },
        "violations": {
            "type": "array",
            "description": "All of them at once; empty where nothing can be named",
            "items": {"$ref": "#/components/schemas/ViolationView"},
        },
    },
}

_QUOTA_PARTS: Final = {
    name: {"$ref": "#/components/schemas/AmountsView"} for name in ("limit", "used", "reserved", "requested")
}

EXTRA_MEMBERS: Final[dict[str, dict[str, Any]]] = {
    "quota_exceeded": {
        "quota": {
            "type": "object",
            "required": list(_QUOTA_PARTS),
            "properties": _QUOTA_PARTS,
            "description": "With `quota_exceeded`: the tenant's quota at the moment of the decision",
        },
        "held_by": {
            "type": "array",
            "maxItems": 50,
            "items": {"type": "string"},
            "description": "With `quota_exceeded`: the jobs that hold what is short, at most 50",
        },
        "held_by_count": {"type": "integer", "minimum": 0, "description": "With `quota_exceeded`: how many there are"},
    },
    "logs_gone": {
        "excerpt": {
            "type": ["string", "null"],
            "description": "With `logs_gone`: what is kept of the last lines",
        },
        "pod": {"type": "string", "description": "With `logs_gone`: the pod that is gone"},
    },
    OutcomeUnknown.code: {
        "id": {"type": "string", **JOB_ID, "description": "With `outcome_unknown`: the job that may exist"}
    },
}
"""By code: members of the problem beyond those that all have."""
