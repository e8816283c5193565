"""Outcomes without outside influence, and CPU throttling by Linux."""

from __future__ import annotations

from demo.scenario import Scenario
from testbed.context import Context, Source, expect
from testbed.http_client import Document, shell
from testbed.kernel_log import parse_cpu_stat
from testbed.waiting import wait_for

MIB = 1024 * 1024

# The cgroup's files inside the container, version 1 or 2: https://docs.kernel.org/admin-guide/cgroup-v2.html
MEMORY_LIMIT = "cat /sys/fs/cgroup/memory/memory.limit_in_bytes 2>/dev/null || cat /sys/fs/cgroup/memory.max"
CPU_STAT = "cat /sys/fs/cgroup/cpu/cpu.stat 2>/dev/null || cat /sys/fs/cgroup/cpu.stat"


def succeed(context: Context) -> None:
    script = f"echo limit $({MEMORY_LIMIT}); echo user $(id -u)"
    view = context.submit("vision", shell(script, resources={"cpu": "100m", "memory": "48Mi"}))
    view = context.until_finished(view["id"])
    cost = view["cost"]
    context.show(
        Source.RUNWAY, f"{view['id']} {view['state']}; at most {cost['ceiling']} USD at {cost['hourly']} an hour"
    )
    expect(view["state"] == "succeeded", f"the job is {view['state']}: {view['failure']}")

    limit = container(context.pod(view))["resources"]["limits"]["memory"]
    complete = condition(context.job(view), "Complete")
    context.show(
        Source.KUBERNETES, f"Job condition Complete={complete['status']}; the container's memory limit is {limit}"
    )
    expect(limit == "48Mi", f"the container's limit is {limit}, not 48Mi")

    said = dict(line.split() for line in context.runway.log(view["id"]).text.splitlines())
    context.show(Source.JOB, f"cgroup memory limit {said['limit']} bytes, running as user {said['user']}")
    expect(said["limit"] == str(48 * MIB), f"the cgroup's limit is {said['limit']}, not {48 * MIB}")


def run_out_of_memory(context: Context) -> None:
    script = "echo doubling a string for ever; a=x; while :; do a=$a$a; done"
    view = context.submit("vision", shell(script, resources={"cpu": "500m", "memory": "32Mi"}))
    view = context.until_finished(view["id"])
    failure = view["failure"] or {}
    context.show(Source.RUNWAY, f"{view['state']}: {failure.get('code')}: {failure.get('message')}")
    context.show(Source.RUNWAY, f"hint: {failure.get('hint')}")
    expect(failure.get("code") == "oom_killed", f"the failure is {failure or view['state']}")

    pod = context.pod(view)
    ended = pod["status"]["containerStatuses"][0]["state"]["terminated"]
    context.show(Source.KUBERNETES, f"container terminated: reason {ended['reason']}, exit code {ended['exitCode']}")
    expect((ended["reason"], ended["exitCode"]) == ("OOMKilled", 137), f"the container terminated with {ended}")

    kernel, uid = context.kernel, pod["metadata"]["uid"]
    if kernel is None:
        # Kubernetes reads OOMKilled from the node's kernel, so the claim holds without the log line.
        context.show(Source.LINUX, "not available: the jobs run on another machine")
        return
    for line in wait_for(lambda: kernel.oom_kill(uid), f"the kernel logs an OOM kill in pod {uid}"):
        context.show(Source.LINUX, line)


def fail(context: Context) -> None:
    # Only one stream: the runtime reads stdout and stderr separately, so their lines may be reordered.
    view = context.submit("vision", shell("echo loading; echo 'cannot open /data/train.csv'; exit 3"))
    view = context.until_finished(view["id"])
    failure = view["failure"] or {}
    context.show(Source.RUNWAY, f"{view['state']}: {failure.get('code')}: {failure.get('message')}")
    expect(failure.get("code") == "exit_nonzero", f"the failure is {failure or view['state']}")
    expect(view["attempts"][-1]["exit_code"] == 3, f"the exit code is {view['attempts'][-1]['exit_code']}")

    ended = context.pod(view)["status"]["containerStatuses"][0]["state"]["terminated"]
    failed = condition(context.job(view), "Failed")
    context.show(
        Source.KUBERNETES, f"container exit code {ended['exitCode']}; Job condition Failed: {failed['reason']}"
    )
    expect(ended["exitCode"] == 3, f"Kubernetes has exit code {ended['exitCode']}")

    words = failure["evidence"].get("last_words", "").splitlines()
    context.show(Source.JOB, f"end of the log in the failure: {words[-1] if words else None!r}")
    expect(words[-1:] == ["cannot open /data/train.csv"], f"the end of the log is {words}")


def be_throttled(context: Context) -> None:
    busy = "for loop in 1 2; do timeout 5 sh -c 'while :; do :; done' & done; wait"
    view = context.submit("vision", shell(f"{busy}; {CPU_STAT}; trap 'exit 0' TERM; sleep 600 & wait"))
    log = context.until_log(view["id"], "nr_throttled")
    view = context.runway.job(view["id"])
    requested = view["spec"]["resources"]["cpu"]
    context.show(Source.RUNWAY, f"{view['id']}, which requests {requested} CPU, is {view['state']}")
    pod = context.pod(view)
    limit = container(pod)["resources"]["limits"]["cpu"]
    context.show(Source.KUBERNETES, f"the container's CPU limit is {limit}")
    expect(limit == "100m", f"the container's limit is {limit}, not 100m")

    stats = [parse_cpu_stat(log)]
    context.show(Source.JOB, f"cpu.stat of the container's cgroup: {_throttled(stats[0])}")
    if context.kernel is None:
        context.show(Source.LINUX, "not available: the jobs run on another machine")
    else:
        # The pod's cgroup has the limit of its only container. Either of the two may throttle the loops, and each
        # counts only its own periods. The container sees only its own cgroup.
        stats.append(context.kernel.cpu_stat(pod["metadata"]["uid"]))
        context.show(Source.LINUX, f"the pod's cgroup, which has the same limit: {_throttled(stats[1])}")
    shares = [stat["nr_throttled"] / max(1, stat["nr_periods"]) for stat in stats]
    # A loop that the node itself gives less than its limit is throttled in fewer periods.
    expect(max(shares) > 0, "no period was throttled")


def _throttled(stat: dict[str, int]) -> str:
    return f"nr_throttled {stat['nr_throttled']} of nr_periods {stat['nr_periods']}"


def container(pod: Document) -> Document:
    """Return the spec of the pod's only container."""
    return dict(pod["spec"]["containers"][0])


def condition(job: Document, kind: str) -> Document:
    """Return a condition of a Job, with status Unknown if it is not set."""
    found = (item for item in job["status"].get("conditions", []) if item["type"] == kind)
    return next(found, {"type": kind, "status": "Unknown", "reason": None})


SUCCESS = Scenario(
    "Success, inside the limit that was asked for",
    "A job with 48Mi of memory succeeds in a cgroup with exactly that memory limit.",
    succeed,
)
OUT_OF_MEMORY = Scenario(
    "Out of memory",
    "The kernel kills a job that exceeds its 32Mi, and Runway names the cause and the limit.",
    run_out_of_memory,
)
FAILURE = Scenario(
    "A job that fails",
    "The job view has exit code 3 unchanged and the end of the job's log.",
    fail,
)
THROTTLING = Scenario(
    "CPU throttling",
    "The kernel throttles two busy loops with a tenth of a CPU, and counts the scheduling periods.",
    be_throttled,
)
