"""Evidence: an OOM-killed child, an evicted pod, an outcome without a pod."""

from __future__ import annotations

import json
import time

from demo.scenario import Scenario
from demo.scenarios.outcomes import condition
from testbed.context import Context, Source, expect
from testbed.http_client import Document, shell
from testbed.waiting import wait_for


def lose_a_worker(context: Context) -> None:
    script = "echo starting a worker; tail /dev/zero; echo 'the worker is gone'; exit 7"
    view = context.until_finished(
        context.submit("vision", shell(script, resources={"cpu": "500m", "memory": "32Mi"}))["id"]
    )
    failure, pod = view["failure"] or {}, context.pod(view)
    ended = pod["status"]["containerStatuses"][0]["state"]["terminated"]
    context.show(Source.KUBERNETES, f"container terminated: exit code {ended['exitCode']}, reason {ended['reason']}")
    context.show(Source.RUNWAY, f"{view['state']}: {failure.get('code')}: {failure.get('message')}")
    context.show(Source.RUNWAY, f"hint: {failure.get('hint')}")
    # On cgroup v2 the kernel kills the whole cgroup, so the main process does not choose its exit code.
    expect(failure.get("code") in ("oom_child_suspected", "oom_killed"), f"the failure is {failure or view['state']}")
    expect("32Mi" in failure["message"], "the failure does not name the limit")
    kernel, uid = context.kernel, pod["metadata"]["uid"]
    if kernel is None:
        context.show(Source.LINUX, "not available: the jobs run on another machine")
        return
    for line in wait_for(lambda: kernel.oom_kill(uid), f"the kernel logs an OOM kill in pod {uid}"):
        context.show(Source.LINUX, line)


def be_evicted(context: Context) -> None:
    until = int(time.time()) + 60
    script = f"echo training; trap 'exit 143' TERM; while [ $(date +%s) -lt {until} ]; do sleep 1; done; echo done"
    view = context.submit("vision", shell(script, retries=0))
    context.until_log(view["id"], "training")
    pod = context.pod(view)["metadata"]
    eviction = {"apiVersion": "policy/v1", "kind": "Eviction", "metadata": {"name": pod["name"]}}
    path = f"/api/v1/namespaces/{pod['namespace']}/pods/{pod['name']}/eviction"
    context.kubernetes.run("create", f"--raw={path}", "--filename=-", stdin=json.dumps(eviction))
    context.show(Source.KUBERNETES, f"pod {pod['name']} is evicted, as a drain does; the job has no retries")

    view = context.until_finished(view["id"])
    for number, attempt in enumerate(view["attempts"], start=1):
        counted = "counts" if attempt["counted"] else "does not count"
        cause = attempt["cause"] or f"exit code {attempt['exit_code']}"
        context.show(Source.RUNWAY, f"attempt {number}: {attempt['state']}, {cause}, {counted}")
    expect(view["state"] == "succeeded", f"the job is {view['state']}: {view['failure']}")
    causes = [(attempt["cause"], attempt["counted"]) for attempt in view["attempts"]]
    expect(causes == [("drained", False), (None, False)], f"the attempts are {causes}")
    complete = condition(context.job(view), "Complete")
    context.show(Source.KUBERNETES, f"Job condition Complete={complete['status']}; the job is {view['state']}")
    expect(complete["status"] == "True", "the Job is not Complete")


def outlive_the_pod(context: Context) -> None:
    script = "echo epoch 1; sleep 3; echo 'loading the extension'; sh -c 'kill -SEGV $$'; exit $?"
    view = context.until_finished(context.submit("vision", shell(script))["id"])
    before = context.until(view["id"], lambda seen: seen["excerpt"] and seen["cost"]["actual"], "recorded")
    context.show(Source.RUNWAY, f"{before['state']}: {_summary(before)}")
    namespace, pod = view["kubernetes"]["namespace"], context.pod(view)["metadata"]["name"]
    context.kubernetes.run("delete", "pod", pod, f"--namespace={namespace}", "--wait=true")
    left = context.kubernetes.pods(namespace, view["id"])
    context.show(Source.KUBERNETES, f"pods left of the job: {len(left)}")
    expect(not left, f"{len(left)} pods are left")
    if context.server is not None:
        context.server.kill()
        context.show(Source.LINUX, "Runway is killed (SIGKILL) and restarted: its only source is Kubernetes")
        context.server.start()

    after = context.runway.job(view["id"])
    context.show(Source.RUNWAY, f"{after['state']}: {_summary(after)}")
    context.show(Source.RUNWAY, f"the end of its log: {after['excerpt']['text'].splitlines()}")
    expect(_summary(after) == _summary(before), "the job details have changed")
    expect((before["failure"] or {}).get("code") == "segmentation_fault", f"the failure is {before['failure']}")
    expect("loading the extension" in after["excerpt"]["text"], "the excerpt lacks the output of the job")
    gone = context.runway.log(view["id"])
    context.show(Source.RUNWAY, f"GET logs: {gone.status_code} {gone.json().get('code')}, with the same excerpt")
    expect(gone.status_code == 410, f"GET logs got {gone.status_code}")
    expect(gone.json()["excerpt"] == after["excerpt"]["text"], f"the excerpt differs: {gone.text}")


def _summary(view: Document) -> str:
    failure, attempt = view["failure"] or {}, view["attempts"][-1]
    return (
        f"{failure.get('code')}: {failure.get('message')}; on {attempt['node']} from {attempt['started_at']} to "
        f"{attempt['finished_at']}; it cost {view['cost']['actual']} USD"
    )


LOST_WORKER = Scenario(
    "A worker lost to the kernel",
    "A program exits with its own code after the kernel kills its worker for memory. Runway names the kernel's part.",
    lose_a_worker,
)
EVICTED = Scenario(
    "Evicted, and not held against the job",
    "Kubernetes replaces an evicted pod although the job has no retries, and the job view has both attempts.",
    be_evicted,
)
EVIDENCE = Scenario(
    "The story outlives the pod",
    "With its pod deleted and Runway killed, a failed job keeps its failure, times, cost and end of the log.",
    outlive_the_pod,
)
