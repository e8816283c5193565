"""What became of a job, told truly: a worker lost to the kernel, a pod taken by the cluster, evidence without a pod."""

from __future__ import annotations

import json
import time

from demo.scenario import Scenario, Source
from demo.scenarios.outcomes import condition
from testbed.context import Stage, expect
from testbed.http_client import Document, shell
from testbed.waiting import wait_for


def lose_a_worker(stage: Stage) -> None:
    script = "echo starting a worker; tail /dev/zero; echo 'the worker is gone'; exit 7"
    view = stage.until_over(stage.submit("vision", shell(script, resources={"cpu": "500m", "memory": "32Mi"}))["id"])
    failure, pod = view["failure"] or {}, stage.pod(view)
    ended = pod["status"]["containerStatuses"][0]["state"]["terminated"]
    stage.saw(Source.KUBERNETES, f"container terminated: exit code {ended['exitCode']}, reason {ended['reason']}")
    stage.saw(Source.RUNWAY, f"{view['state']}: {failure.get('code')}: {failure.get('message')}")
    stage.saw(Source.RUNWAY, f"hint: {failure.get('hint')}")
    # Where the kernel ends the whole cgroup at once (cgroup v2), the main process has no say in its exit code.
    expect(failure.get("code") in ("oom_child_suspected", "oom_killed"), f"the verdict is {failure or view['state']}")
    expect("32Mi" in failure["message"], "the verdict does not name the limit")
    kernel, uid = stage.kernel, pod["metadata"]["uid"]
    if kernel is None:
        stage.saw(Source.LINUX, "not available here: the jobs run on another machine than this one")
        return
    for line in wait_for(lambda: kernel.oom_kill(uid), f"the kernel logs an OOM kill in pod {uid}", 5):
        stage.saw(Source.LINUX, line)


def be_evicted(stage: Stage) -> None:
    until = int(time.time()) + 20
    script = f"echo training; trap 'exit 143' TERM; while [ $(date +%s) -lt {until} ]; do sleep 1; done; echo done"
    view = stage.submit("vision", shell(script, retries=0, timeout_seconds=120))
    stage.until_log(view["id"], "training")
    pod = stage.pod(view)["metadata"]
    eviction = {"apiVersion": "policy/v1", "kind": "Eviction", "metadata": {"name": pod["name"]}}
    path = f"/api/v1/namespaces/{pod['namespace']}/pods/{pod['name']}/eviction"
    stage.kubernetes.run("create", f"--raw={path}", "--filename=-", stdin=json.dumps(eviction))
    stage.saw(Source.KUBERNETES, f"pod {pod['name']} is evicted, as a drain does; the job has no retries")

    view = stage.until_over(view["id"], 90)
    for number, attempt in enumerate(view["attempts"], start=1):
        counted = "counts" if attempt["counted"] else "does not count"
        said = attempt["cause"] or f"exit code {attempt['exit_code']}"
        stage.saw(Source.RUNWAY, f"attempt {number}: {attempt['state']}, {said}, {counted}")
    expect(view["state"] == "succeeded", f"the job is {view['state']}: {view['failure']}")
    causes = [(attempt["cause"], attempt["counted"]) for attempt in view["attempts"]]
    expect(causes == [("drained", False), (None, False)], f"the attempts are {causes}")
    complete = condition(stage.job(view), "Complete")
    stage.saw(Source.KUBERNETES, f"Job condition Complete={complete['status']}; the job is {view['state']}")
    expect(complete["status"] == "True", "the Job is not complete")


def outlive_the_pod(stage: Stage) -> None:
    script = "echo epoch 1; sleep 3; echo 'loading the extension'; sh -c 'kill -SEGV $$'; exit $?"
    view = stage.until_over(stage.submit("vision", shell(script))["id"])
    before = stage.until(view["id"], lambda seen: seen["excerpt"] and seen["cost"]["actual"], "its record is kept", 20)
    stage.saw(Source.RUNWAY, f"{before['state']}: {_story(before)}")
    namespace, pod = view["kubernetes"]["namespace"], stage.pod(view)["metadata"]["name"]
    stage.kubernetes.run("delete", "pod", pod, f"--namespace={namespace}", "--wait=true", timeout=60)
    left = stage.kubernetes.pods(namespace, view["id"])
    stage.saw(Source.KUBERNETES, f"pods left of the job: {len(left)}")
    expect(not left, f"{len(left)} pods are left")
    if stage.server is not None:
        stage.server.kill()
        stage.saw(Source.LINUX, "Runway is killed (SIGKILL) and started again: it knows what Kubernetes knows")
        stage.server.start()

    after = stage.runway.job(view["id"])
    stage.saw(Source.RUNWAY, f"{after['state']}: {_story(after)}")
    stage.saw(Source.RUNWAY, f"the end of its log: {after['excerpt']['text'].splitlines()}")
    expect(_story(after) == _story(before), "the story has changed")
    expect((before["failure"] or {}).get("code") == "segmentation_fault", f"the verdict is {before['failure']}")
    expect("loading the extension" in after["excerpt"]["text"], "the excerpt does not hold what the job said")
    gone = stage.runway.log(view["id"])
    stage.saw(Source.RUNWAY, f"GET logs: {gone.status_code} {gone.json().get('code')}, with the same excerpt")
    expect(gone.status_code == 410, f"the log is answered {gone.status_code}")
    expect(gone.json()["excerpt"] == after["excerpt"]["text"], f"another excerpt is given: {gone.text}")


def _story(view: Document) -> str:
    failure, attempt = view["failure"] or {}, view["attempts"][-1]
    return (
        f"{failure.get('code')}: {failure.get('message')}; on {attempt['node']} from {attempt['started_at']} to "
        f"{attempt['finished_at']}; it cost {view['cost']['actual']} USD"
    )


LOST_WORKER = Scenario(
    "A worker lost to the kernel",
    "A program whose worker runs out of memory ends with a code of its own; Runway names the kernel's part in it.",
    lose_a_worker,
)
EVICTED = Scenario(
    "Evicted, and not held against the job",
    "A pod that the cluster takes away is replaced, though the job has no retries, and both attempts are told.",
    be_evicted,
)
EVIDENCE = Scenario(
    "The story outlives the pod",
    "With its pod deleted and Runway killed, a crashed job is told as before: verdict, times, cost, end of the log.",
    outlive_the_pod,
)
