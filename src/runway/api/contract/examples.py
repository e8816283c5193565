"""Real requests and answers: jobs as Kubernetes would hold them, shown by the code that shows them in earnest."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any, Final

import msgspec

from runway.admission.quota import Amounts, Ledger, ObservedUsage, amounts_of
from runway.admission.validation import validate
from runway.api.events import event
from runway.api.models import HolderView, QuotaView, ReadyView, TenantQuotaView
from runway.api.platform import amounts_view, policy_json
from runway.api.usage import usage_view
from runway.errors import QuotaExceeded
from runway.jobs.identity import ANNOTATION_RECORD, job_id
from runway.jobs.log_excerpt import Excerpt
from runway.jobs.manifest import Placement, job_manifest
from runway.jobs.record import encode, final_record
from runway.jobs.snapshot import FreeCapacity, JobSnapshot
from runway.jobs.spec import read_draft
from runway.jobs.usage import Usage
from runway.jobs.view import JobState, JobView, job_view
from runway.kube.objects import Job, Pod
from runway.policy import Policy, parse_policy
from runway.services.job_usage import UsageReport
from runway.services.submit import cost_json, decision_json
from runway.services.watch_job import Heartbeat, JobUpdated

Json = dict[str, Any]

POLICY: Final[Policy] = parse_policy(
    """\
version: 1
limits:
  cpu: {min: 100m, max: "16"}
  memory: {min: 32Mi, max: 128Gi}
  gpu: {max: 4}
  timeout_seconds: {min: 1, max: 86400, default: 3600}
  grace_period_seconds: {max: 120, default: 30}
  retries: {max: 3}
images: {allow: ["registry.example.com/teams/*", "docker.io/library/*"]}
pools:
  cpu: {instance_type: m6i.4xlarge, hourly_usd: "0.768", cpu: "16", memory: 64Gi}
  a10g: {instance_type: g5.12xlarge, hourly_usd: "5.672", cpu: "48", memory: 192Gi, gpu: 4, gpu_type: a10g}
tenants:
  vision:
    namespace: runway-vision
    quota: {gpu: 4, cpu: "32", memory: 128Gi, jobs: 100}
    rate: {per_minute: 600, burst: 100}
  speech:
    namespace: runway-speech
    quota: {gpu: 2, cpu: "16", memory: 64Gi, jobs: 50}
    rate: {per_minute: 6, burst: 5}
"""
)
TENANT: Final = "vision"

EVALUATE: Final[Json] = {
    "name": "nightly-eval",
    "image": "registry.example.com/teams/vision/eval:2.1",
    "command": ["python", "eval.py"],
    "args": ["--split", "test"],
    "env": {"EPOCHS": "3"},
    "resources": {"cpu": "2", "memory": "4Gi"},
    "timeout_seconds": 1800,
    "retries": 1,
}
"""A job without GPUs."""
FINE_TUNE: Final[Json] = {
    "name": "train-resnet",
    "image": "registry.example.com/teams/vision/train:1.4",
    "command": ["python", "train.py"],
    "resources": {"cpu": "8", "memory": "32Gi", "gpu": 3, "gpu_type": "a10g"},
    "timeout_seconds": 7200,
    "grace_period_seconds": 60,
    "max_cost_usd": "12.50",
}
"""A training job on GPUs."""

_START: Final = datetime(2026, 11, 24, 8, 0, tzinfo=UTC)
_NODE: Final = "ip-10-0-3-17.ec2.internal"


def _at(seconds: int) -> str:
    return (_START + timedelta(seconds=seconds)).isoformat().replace("+00:00", "Z")


def _manifest(document: Json, name: str) -> Json:
    passed = validate(read_draft(document), POLICY)
    namespace = POLICY.tenants[TENANT].namespace
    placement = Placement(name, TENANT, namespace, POLICY.pools[passed.pool], cost_json(passed))
    return job_manifest(passed.spec, placement, POLICY.limits)


def _job(document: Json, name: str, *conditions: Json, record: str | None = None) -> Job:
    """The Job of a specification as Kubernetes holds it."""
    manifest = _manifest(document, name)
    notes = manifest["metadata"]["annotations"] | ({ANNOTATION_RECORD: record} if record else {})
    seen = {"uid": f"uid-{name}", "creationTimestamp": _at(0), "annotations": notes}
    return msgspec.convert(
        manifest | {"metadata": manifest["metadata"] | seen, "status": {"conditions": conditions}}, Job
    )


def _pod(job: Job, suffix: str, phase: str, **state: Json) -> Pod:
    """A pod of the Job on its node, since three seconds after the Job was created."""
    status = {
        "phase": phase,
        "conditions": [{"type": "PodScheduled", "status": "True", "lastTransitionTime": _at(3)}],
        "containerStatuses": [{"name": "job", "state": state}],
    }
    return msgspec.convert(_pod_meta(job, suffix) | {"spec": {"nodeName": _NODE}, "status": status}, Pod)


def _pod_meta(job: Job, suffix: str) -> Json:
    meta = job.metadata
    labels = {"batch.kubernetes.io/controller-uid": meta.uid, "batch.kubernetes.io/job-name": meta.name}
    name = f"{meta.name}-{suffix}"
    place = {"name": name, "namespace": meta.namespace, "uid": f"uid-{name}"}
    return {"metadata": place | {"labels": labels, "creationTimestamp": _at(1)}}


def _verdict(kind: str, after: int, **reason: str) -> Json:
    return {"type": kind, "status": "True", "lastTransitionTime": _at(after), **reason}


def _waiting() -> JobView:
    """No node has room for it."""
    job = _job(FINE_TUNE, job_id(TENANT, "waiting"))
    why = {
        "type": "PodScheduled",
        "status": "False",
        "reason": "Unschedulable",
        "message": "0/3 nodes are available: 3 Insufficient nvidia.com/gpu.",
        "lastTransitionTime": _at(1),
    }
    pod = msgspec.convert(
        _pod_meta(job, "8ktwz")
        | {"spec": msgspec.to_builtins(job.spec.template.spec), "status": {"phase": "Pending", "conditions": [why]}},
        Pod,
    )
    room = FreeCapacity(nodes=1, cpu=39_000, memory=150 << 30, gpu=1, gpu_in_all=1)
    return job_view(JobSnapshot(TENANT, job, (pod,), room=room))


def _running() -> JobView:
    job = _job(FINE_TUNE, job_id(TENANT, "running"))
    return job_view(JobSnapshot(TENANT, job, (_pod(job, "x9vqd", "Running", running={"startedAt": _at(9)}),)))


def _over(document: Json, seed: str, pod: tuple[str, str, Json], verdict: Json, log: str, usage: Usage) -> JobView:
    """A job that has ended, with its record."""
    suffix, phase, ended = pod
    name = job_id(TENANT, seed)
    bare = _job(document, name, verdict)
    case = JobSnapshot(TENANT, bare, (_pod(bare, suffix, phase, terminated=ended),))
    excerpt = Excerpt(pod=f"{name}-{suffix}", text=log, truncated=False)
    record = final_record(case, None, excerpt, usage, _START + timedelta(hours=1))
    return job_view(replace(case, job=_job(document, name, verdict, record=encode(record, bare))))


_USAGE: Final = Usage(
    cpu_seconds=812.4,
    cpu_cores=1.91,
    cpu_limit_cores=2.0,
    memory_bytes=1_476_395_008,
    memory_peak_bytes=1_932_735_283,
    memory_limit_bytes=4 << 30,
    throttled_ratio=0.31,
    cpu_periods=4251,
    sampled_at=_START + timedelta(seconds=430),
)

WAITING_JOB: Final = _waiting()
RUNNING_GPU_JOB: Final = _running()
SUCCEEDED_JOB: Final = _over(
    EVALUATE,
    "succeeded",
    ("m2hlc", "Succeeded", {"exitCode": 0, "reason": "Completed", "startedAt": _at(6), "finishedAt": _at(431)}),
    _verdict("Complete", 433),
    "split test: 10000 images\naccuracy 0.913\n",
    _USAGE,
)
CRASHED_JOB: Final = _over(
    EVALUATE | {"retries": 0, "resources": {"cpu": "2", "memory": "1Gi"}},
    "crashed",
    ("t7bnr", "Failed", {"exitCode": 137, "reason": "OOMKilled", "startedAt": _at(6), "finishedAt": _at(95)}),
    _verdict("Failed", 97, reason="BackoffLimitExceeded", message="Job has reached the specified backoff limit"),
    "split test: 10000 images\nloading everything at once\n",
    Usage(cpu_limit_cores=2.0, memory_peak_bytes=1 << 30, memory_limit_bytes=1 << 30),
)


def requests() -> dict[str, Json]:
    """Specifications to submit."""
    return {
        "cpu": _example("A job without GPUs", EVALUATE),
        "gpu": _example("A training job on three GPUs, with a cap on its cost", FINE_TUNE),
    }


def answers() -> dict[str, dict[str, dict[str, Json]]]:
    """By operation and status: examples of answers."""
    accepted = job_view(JobSnapshot(TENANT, _job(FINE_TUNE, job_id(TENANT, "running"))))
    cancelled = replace(RUNNING_GPU_JOB, state=JobState.CANCELLING)
    jobs = {
        "pending": _example("A job that waits, and for what", WAITING_JOB),
        "running": _example("A job that runs", RUNNING_GPU_JOB),
        "failed": _example("A job that failed: the verdict, what to do, the end of its log", CRASHED_JOB),
        "succeeded": _example("A job that succeeded, with what it used and cost", SUCCEEDED_JOB),
    }
    page = {"jobs": [RUNNING_GPU_JOB, SUCCEEDED_JOB], "next_cursor": None}
    return {
        "submit_job": {
            "201": {"accepted": _example("The job as it was accepted", accepted)},
            "200": {
                "replay": _example("The same request again", RUNNING_GPU_JOB),
                "admitted": _example("A dry run that would be let in", _dry_run(EVALUATE)),
                "refused": _example("A dry run that would not: another job holds the GPUs", _dry_run(FINE_TUNE)),
            },
        },
        "list_jobs": {"200": {"page": _example("The last page", page)}},
        "read_job": {"200": jobs},
        "cancel_job": {"202": {"cancelling": _example("A running job is being ended", cancelled)}},
        "read_logs": {"200": {"log": _example("A log", SUCCEEDED_JOB.excerpt.text if SUCCEEDED_JOB.excerpt else "")}},
        "read_events": {"200": {"stream": _example("Three pieces of the stream", _stream())}},
        "read_usage": {"200": _usages()},
        "read_quota": {"200": {"one": _example("One tenant's quota", _quota())}},
        "read_policy": {"200": {"policy": _example("A small policy", policy_json(POLICY))}},
        "healthz": {"200": {"alive": _example("Alive", {"status": "alive"})}},
        "readyz": {"200": {"writer": _example("The writer", _ready())}},
        "metrics": {"200": {"metrics": _example("Two of them", _METRICS)}},
    }


_METRICS: Final = (
    "# HELP runway_quota_used Booked for jobs and pods in the cluster\n"
    "# TYPE runway_quota_used gauge\n"
    'runway_quota_used{resource="gpu",tenant="vision"} 3.0\n'
    "# TYPE runway_is_writer gauge\n"
    "runway_is_writer 1.0\n"
)


def refused_quota(asked: Amounts) -> QuotaExceeded | None:
    """What the ledger says to this while `RUNNING_GPU_JOB` runs; None where it fits."""
    ledger = _ledger()
    try:
        ledger.reserve(TENANT, job_id(TENANT, "tried"), asked)
    except QuotaExceeded as error:
        return error
    return None


def _ledger() -> Ledger:
    """The books while `RUNNING_GPU_JOB` runs."""
    ledger = Ledger({name: tenant.quota for name, tenant in POLICY.tenants.items()})
    held = amounts_of(validate(read_draft(FINE_TUNE), POLICY).spec.resources)
    ledger.set_observed(TENANT, RUNNING_GPU_JOB.id, ObservedUsage(held, own=held))
    return ledger


def _dry_run(document: Json) -> Json:
    passed, account = validate(read_draft(document), POLICY), _ledger().accounts[TENANT]
    refused = refused_quota(amounts_of(passed.spec.resources))
    amounts = {"limit": account.limit, "used": account.used, "reserved": account.reserved}
    return decision_json(
        refused.violations if refused else (),
        cost_json(passed),
        {name: amount.to_json() for name, amount in amounts.items()},
        _manifest(document, job_id(TENANT, "tried")),
        (),
    )


def _quota() -> QuotaView:
    account = _ledger().accounts[TENANT]
    nothing = amounts_view(Amounts())
    held = amounts_view(account.used)
    holder = HolderView(RUNNING_GPU_JOB.id, RUNNING_GPU_JOB.state, held.gpu, held.cpu, held.memory, terminating=False)
    namespace = POLICY.tenants[TENANT].namespace
    return QuotaView(
        [TenantQuotaView(TENANT, namespace, amounts_view(account.limit), held, nothing, nothing, [holder])]
    )


def _usages() -> dict[str, Json]:
    known, unknown = UsageReport(_USAGE, "kept"), UsageReport(Usage(cpu_limit_cores=8.0), None)
    return {
        "kept": _example("What was kept when the job ended", usage_view(SUCCEEDED_JOB.id, known)),
        "unknown": _example("No source is set up: null is unknown, never 0", usage_view(RUNNING_GPU_JOB.id, unknown)),
    }


def _stream() -> str:
    pieces = (
        JobUpdated.of(RUNNING_GPU_JOB),
        Heartbeat(),
        JobUpdated.of(replace(RUNNING_GPU_JOB, state=JobState.CANCELLING)),
    )
    return "retry: 2000\n\n" + b"".join(event(piece, RUNNING_GPU_JOB.id) for piece in pieces).decode()


def _ready() -> ReadyView:
    return ReadyView("ready", "writer", "open", None, {"jobs": 0.4, "pods": 0.4}, 12, 0, [])


def _example(summary: str, value: object) -> Json:
    return {"summary": summary, "value": msgspec.json.decode(msgspec.json.encode(value))}
