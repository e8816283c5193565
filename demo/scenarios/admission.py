"""Admission: quota, malformed specs, rate limit."""

from __future__ import annotations

import json
import time
from decimal import Decimal

from demo.scenario import Scenario
from demo.scenarios.outcomes import condition, container
from testbed.context import Context, NotSeen, Source, Unavailable, expect
from testbed.http_client import Document, document, shell
from testbed.waiting import wait_for

GPU = "nvidia.com/gpu"
GPU_POOL = "a10g"
WAITING_POOL = "large"
"""A pool without nodes that jobs can select: its jobs wait, and hold their maximum cost."""
SIMULATED_LABEL = "runway.local/simulated-gpus"

# Each key is a field of a spec that is wrong in as many ways as there are keys.
BAD_SPEC: Document = {
    "name": "no/slashes",
    "image": "example.org/miner:latest",
    "command": "python train.py",
    "env": {"RUNWAY_TENANT": "speech"},
    "resources": {"cpu": "64", "memory": "1_000Mi", "gpu": 1, "gpu_type": "h100"},
    "timeout_seconds": 0,
    "retries": 99,
    "grace_period_seconds": 3600,
    "max_cost_usd": 1.5,
    "privileged": True,
}
BAD_FIELDS = {
    "name", "image", "command", "env[RUNWAY_TENANT]", "resources.cpu", "resources.memory", "resources.gpu_type",
    "timeout_seconds", "retries", "grace_period_seconds", "max_cost_usd", "privileged",
}  # fmt: skip


def share_gpus(context: Context) -> None:
    context.require_gpus(4)
    quota = context.runway.quota("vision")
    expect(quota["used"]["gpu"] == 0, f"vision uses GPUs before the scenario starts: {quota['jobs']}")
    first, second = (_run_on_gpus(context, 2) for _ in range(2))
    _show_node(context, [first, second])
    devices = {view["id"]: _devices(context, view) for view in (first, second)}
    together = [device for each in devices.values() for device in each]
    expect(len(together) == 4 == len(set(together)), f"the devices are not disjoint, two for each: {devices}")

    refused = context.try_to_submit("vision", _gpu_spec(1))
    problem = refused.json()
    expect(refused.status_code == 403, f"the third job got {refused.status_code}: {problem}")
    fault = problem["violations"][0]
    context.show(
        Source.RUNWAY, f"a third job: {refused.status_code} {problem['code']}: {fault['field']}: {fault['message']}"
    )
    context.show(Source.RUNWAY, f"held_by: {', '.join(problem['held_by'])}")
    expect(set(problem["held_by"]) == set(devices), f"held_by is {problem['held_by']}")

    document(context.runway.cancel(first["id"]))
    ended = context.until_finished(first["id"])
    third = _run_on_gpus(context, 1)
    context.show(Source.RUNWAY, f"{first['id']} is {ended['state']}; the third job is admitted as {third['id']}")
    taken = set(_devices(context, third))
    expect(taken.isdisjoint(devices[second["id"]]), f"the third job has a device of the second: {sorted(taken)}")
    failed = condition(context.job(first), "Failed")
    context.show(
        Source.KUBERNETES, f"the first Job: Failed={failed['status']}; pods of the third: {_phases(context, third)}"
    )
    expect(failed["status"] == "True", "the first Job is not finished in Kubernetes")


def refuse_bad_spec(context: Context) -> None:
    namespace = context.runway.policy()["tenants"]["vision"]["namespace"]
    before = _job_names(context, namespace)
    answer = context.try_to_submit("vision", BAD_SPEC)
    problem = answer.json()
    expect(answer.status_code == 422, f"the spec got {answer.status_code}: {problem}")
    context.show(Source.RUNWAY, f"{answer.status_code} {problem['code']}: {problem['detail']}")
    for fault in problem["violations"]:
        facts = [f"{name} {fault[name]}" for name in ("observed", "limit", "hint") if fault[name] is not None]
        context.show(Source.RUNWAY, f"{fault['field']}: {fault['message']} ({'; '.join(facts)})")
    fields = {fault["field"] for fault in problem["violations"]}
    expect(fields >= BAD_FIELDS, f"no violation for {sorted(BAD_FIELDS - fields)}")

    created = _job_names(context, namespace) - before
    context.show(Source.KUBERNETES, f"Jobs created in {namespace} meanwhile: {len(created)}")
    expect(not created, f"Jobs were created: {sorted(created)}")


def refuse_stranding(context: Context) -> None:
    context.require_gpus(1)
    pool = context.runway.policy()["pools"].get(GPU_POOL)
    if pool is None or pool["per_gpu"] is None:
        raise Unavailable(f"pool {GPU_POOL} with `per_gpu` in the policy")
    share = pool["per_gpu"]
    wide = _gpu_spec(1) | {"resources": {"cpu": pool["node"]["cpu"], "memory": "32Mi", "gpu": 1}}
    answer = context.try_to_submit("vision", wide)
    problem = answer.json()
    expect(answer.status_code == 422, f"one GPU with all CPUs of the node got {answer.status_code}: {problem}")
    (fault,) = problem["violations"]
    context.show(Source.RUNWAY, f"{answer.status_code} {fault['field']}: {fault['message']}; {fault['hint']}")
    expect(fault["code"] == "over_gpu_share", f"the violation is {fault}")

    fitting = wide | {"resources": {**wide["resources"], "cpu": share["cpu"]}}
    view = context.submit("vision", fitting)
    context.until_log(view["id"], "devices")
    pod = context.pod(view)
    preferred = pod["spec"]["affinity"]["podAffinity"]["preferredDuringSchedulingIgnoredDuringExecution"]
    selected = preferred[0]["podAffinityTerm"]["labelSelector"]["matchLabels"]
    context.show(Source.KUBERNETES, f"with {share['cpu']} CPU it runs; its pod prefers nodes with pods of {selected}")
    expect(selected == {"runway.internal/pool": GPU_POOL}, f"the pod prefers {selected}")


def spend_budget(context: Context) -> None:
    policy = context.runway.policy()
    if not policy["tenants"].get("research", {}).get("budget") or WAITING_POOL not in policy["pools"]:
        raise Unavailable(f"a budget of tenant research, and pool {WAITING_POOL} without nodes, in the policy")
    budget = context.runway.quota("research")["budget"]
    day = policy["limits"]["timeout_seconds"]["max"]
    # A dry run tells the price.
    spec = shell("true", pool=WAITING_POOL, resources={"cpu": "4", "memory": "16Gi"}, timeout_seconds=day)
    ceiling = Decimal(document(context.runway.submit("research", spec, dry_run=True))["cost"]["ceiling"])
    free = Decimal(budget["free"])
    expect(ceiling <= free < 2 * ceiling, f"{free} USD are free, and a job costs at most {ceiling}")
    first = context.submit("research", spec)
    written = json.loads(context.job(first)["metadata"]["annotations"]["runway.internal/cost"])["ceiling"]
    context.show(Source.KUBERNETES, f"the first Job says that it costs at most {written} USD")
    expect(Decimal(written) == ceiling, f"the annotation says {written}, the dry run {ceiling}")

    refused = context.try_to_submit("research", spec)
    problem = refused.json()
    expect(refused.status_code == 403, f"the second job got {refused.status_code}: {problem}")
    (fault,) = problem["violations"]
    context.show(Source.RUNWAY, f"the second job: {refused.status_code} {fault['code']}: {fault['message']}")
    context.show(Source.RUNWAY, f"hint: {fault['hint']}")
    expect(fault["code"] == "budget_exceeded", f"the violation is {fault}")

    document(context.runway.cancel(first["id"]))
    context.until_finished(first["id"])

    def is_free() -> bool | None:
        return Decimal(context.runway.quota("research")["budget"]["free"]) >= ceiling or None

    # The ceiling counts until the job's record has its actual cost.
    wait_for(is_free, "the cancelled job costs nothing")
    third = context.submit("research", spec)
    after = context.runway.quota("research")["budget"]
    context.show(Source.RUNWAY, f"the first job is cancelled before it ran; {third['id']} is admitted: {after}")
    expect(Decimal(after["committed"]) == ceiling, f"committed are {after['committed']}")


def limit_rate(context: Context) -> None:
    tenant = context.runway.policy()["tenants"]["speech"]
    before = _job_names(context, tenant["namespace"])
    accepted = []
    refused = context.try_to_submit("speech", shell("true"))
    while refused.status_code != 429:
        accepted.append(document(refused)["id"])
        expect(len(accepted) <= tenant["rate"]["burst"] + 1, f"{len(accepted)} jobs were admitted at once")
        refused = context.try_to_submit("speech", shell("true"))
    since, seconds = time.monotonic(), int(refused.headers["Retry-After"])
    context.show(Source.RUNWAY, f"{len(accepted)} jobs admitted, then {refused.status_code} {refused.json()['code']}")
    context.show(Source.RUNWAY, f"Retry-After: {seconds} ({refused.json()['detail']})")

    _sleep_until(since + seconds)
    waited = time.monotonic() - since
    last = context.try_to_submit("speech", shell("true"))
    context.show(Source.RUNWAY, f"retried after {waited:.1f} s: {last.status_code}")
    expect(last.status_code == 201, f"the job was rejected after Retry-After: {last.text}")
    accepted.append(document(last)["id"])
    again = context.try_to_submit("speech", shell("true"))
    context.show(Source.RUNWAY, f"and at once another: {again.status_code}")
    expect(again.status_code == 429, "a second job was admitted after Retry-After")

    created = _job_names(context, tenant["namespace"]) - before
    context.show(Source.KUBERNETES, f"Jobs created in {tenant['namespace']} meanwhile: {len(created)}")
    expect(created == set(accepted), f"Kubernetes has {sorted(created)}, but {accepted} were admitted")


def _gpu_spec(gpus: int) -> Document:
    script = "trap 'exit 0' TERM; echo devices $NVIDIA_VISIBLE_DEVICES; sleep 600 & wait"
    return shell(script, resources={"cpu": "100m", "memory": "32Mi", "gpu": gpus})


def _run_on_gpus(context: Context, gpus: int) -> Document:
    view = context.submit("vision", _gpu_spec(gpus))
    context.until_log(view["id"], "devices")
    return view


def _devices(context: Context, view: Document) -> list[str]:
    said = context.runway.log(view["id"]).text.split()
    context.show(Source.JOB, f"{view['id']}: NVIDIA_VISIBLE_DEVICES={said[1]}")
    return said[1].split(",")


def _show_node(context: Context, views: list[Document]) -> None:
    pods = [context.pod(view) for view in views]
    for name in sorted({pod["spec"]["nodeName"] for pod in pods}):
        node = context.kubernetes.get("node", name)
        if node is None:
            raise NotSeen(f"Kubernetes has no node {name}")
        here = [pod for pod in pods if pod["spec"]["nodeName"] == name]
        limits = [f"{container(pod)['resources']['limits'][GPU]} for {pod['metadata']['name']}" for pod in here]
        context.show(
            Source.KUBERNETES, f"node {name} has {node['status']['allocatable'][GPU]} {GPU}: {', '.join(limits)}"
        )
        simulated = node["metadata"]["labels"].get(SIMULATED_LABEL)
        if simulated is not None:
            context.show(
                Source.KUBERNETES, f"these GPUs are SIMULATED: the node is labelled {SIMULATED_LABEL}={simulated}"
            )


def _phases(context: Context, view: Document) -> str:
    pods = context.kubernetes.pods(view["kubernetes"]["namespace"], view["id"])
    return ", ".join(pod["status"]["phase"] for pod in pods)


def _job_names(context: Context, namespace: str) -> set[str]:
    return {job["metadata"]["name"] for job in context.kubernetes.select("jobs", f"--namespace={namespace}")}


def _sleep_until(moment: float) -> None:
    """Wait for a point in time. The claim is about time, so no condition replaces the sleep."""
    time.sleep(max(0.0, moment - time.monotonic()))


GPU_QUOTA = Scenario(
    "GPU quota",
    "Two jobs use all 4 GPUs of tenant vision. Runway rejects a third one, names the two, "
    "and admits it after one has finished.",
    share_gpus,
)
BAD_SPEC_REFUSED = Scenario(
    "A bad spec",
    f"The response to a spec with {len(BAD_FIELDS)} faults lists all of them, and nothing reaches Kubernetes.",
    refuse_bad_spec,
)
STRANDED_GPUS = Scenario(
    "Stranded GPUs",
    "One GPU with all CPUs of its node is refused with a hint how much fits, and GPU pods prefer nodes with GPU pods.",
    refuse_stranding,
)
BUDGET = Scenario(
    "A budget",
    "A job whose maximum cost exceeds what is left of the tenant's budget of a day is refused. "
    "It is admitted once an unfinished job has freed its share.",
    spend_budget,
)
RATE_LIMIT = Scenario(
    "Rate limit",
    "A tenant over its rate limit gets a Retry-After. After that time one job is admitted, and the next is rejected.",
    limit_rate,
)
