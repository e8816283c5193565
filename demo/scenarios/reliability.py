"""Reliability: a crash, a retried submission, an unreachable Kubernetes."""

from __future__ import annotations

import time
import uuid
from concurrent.futures import ThreadPoolExecutor

import httpx2

from demo.scenario import Scenario
from localcluster import LocalCluster
from testbed.context import Context, Source, Unavailable, expect
from testbed.http_client import Document, document, shell
from testbed.waiting import wait_for

SLEEP = "trap 'exit 0' TERM; echo started; sleep 600 & wait"
ANSWER_SECONDS = 8.0
AT_ONCE = 20


def kill_runway(context: Context) -> None:
    if context.server is None:
        raise Unavailable("a Runway that the demo has started, so that it can kill it")
    context.require_gpus(4)
    spec = shell(SLEEP, resources={"cpu": "100m", "memory": "32Mi", "gpu": 3})
    view = context.submit("vision", spec)
    context.until_log(view["id"], "started")
    before, pid = context.runway.quota("vision")["used"], context.server.pid
    pod = context.pod(view)
    context.server.kill()
    context.show(Source.LINUX, f"Runway, pid {pid}, is killed with SIGKILL while the job uses 3 GPUs")

    started = time.monotonic()
    context.server.start()
    context.show(
        Source.RUNWAY, f"pid {context.server.pid} is the leader {time.monotonic() - started:.1f} s after its start"
    )
    after = context.runway.quota("vision")["used"]
    context.show(Source.RUNWAY, f"quota used before {before}, after {after}")
    expect(after == before, "the quota usage differs")
    again = context.runway.job(view["id"])
    expect(again["state"] == "running", f"the job is {again['state']}")
    refused = context.try_to_submit("vision", spec)
    expect(refused.status_code == 403, f"3 more GPUs got {refused.status_code}: {refused.text}")
    context.show(Source.RUNWAY, f"3 more GPUs: 403 {refused.json()['code']}, held_by {refused.json()['held_by']}")
    same = context.pod(view)
    expect(same["metadata"]["uid"] == pod["metadata"]["uid"], "the job runs in another pod")
    context.show(Source.KUBERNETES, f"pod {same['metadata']['name']} kept running: {same['status']['phase']}")


def replay(context: Context) -> None:
    key, spec = f"demo {uuid.uuid4()}", shell("true")
    with ThreadPoolExecutor(AT_ONCE) as pool:
        answers = list(pool.map(lambda _: context.runway.submit("vision", spec, key=key), range(AT_ONCE)))
    statuses = sorted(answer.status_code for answer in answers)
    ids = {document(answer)["id"] for answer in answers}
    for job_id in ids:
        context.track(job_id)
    context.show(
        Source.RUNWAY,
        f"{AT_ONCE} identical concurrent requests: {statuses.count(201)} x 201, {statuses.count(200)} x 200",
    )
    expect(statuses == [200] * (AT_ONCE - 1) + [201], f"the responses are {statuses}")
    expect(len(ids) == 1, f"they name {len(ids)} jobs")
    late = context.runway.submit("vision", spec, key=key)
    replayed = late.headers.get("Idempotent-Replay")
    context.show(Source.RUNWAY, f"repeated: {late.status_code}, Idempotent-Replay: {replayed}, id {late.json()['id']}")
    expect((late.status_code, replayed) == (200, "true"), "the response is not a replay of the first job")
    other = context.try_to_submit("vision", spec | {"timeout_seconds": 7}, key=key)
    context.show(Source.RUNWAY, f"another spec under the same key: {other.status_code} {other.json().get('code')}")
    expect(other.status_code == 409, "another spec under the same key is not a conflict")
    job = context.job(context.until_finished(ids.pop()))
    pods = context.kubernetes.pods(job["metadata"]["namespace"], job["metadata"]["name"])
    context.show(Source.KUBERNETES, f"one Job, {job['metadata']['name']}, and {len(pods)} pod of it")
    expect(len(pods) == 1, f"there are {len(pods)} pods")


def lose_kubernetes(context: Context) -> None:
    if context.kernel is None:
        raise Unavailable("the local cluster, whose API server the demo can freeze")
    api_server = LocalCluster.default().component("kube-apiserver")
    key, spec = f"demo {uuid.uuid4()}", shell("true")
    # Runway needs an open connection here: on a new one it would know that nothing was sent.
    document(context.runway.submit("vision", spec, dry_run=True))
    api_server.freeze()
    try:
        started = time.monotonic()
        lost = context.runway.submit("vision", spec, key=key)
        seconds = time.monotonic() - started
        context.show(Source.LINUX, f"kube-apiserver, pid {api_server.pid}, is stopped (SIGSTOP)")
        _expect_503(context, lost, seconds)
        reads = {
            path: context.runway.get(path).status_code for path in ("/v1/jobs", "/v1/quota", "/healthz", "/readyz")
        }
        context.show(
            Source.RUNWAY, f"during the outage: {', '.join(f'{path} {status}' for path, status in reads.items())}"
        )
        expect(list(reads.values()) == [200, 200, 200, 503], f"reads answer {reads}")
    finally:
        api_server.thaw()
    thawed = time.monotonic()
    wait_for(lambda: context.runway.get("/readyz").json().get("role") == "writer" or None, "ready again")
    context.show(Source.RUNWAY, f"ready again {time.monotonic() - thawed:.1f} s after SIGCONT")
    again = context.try_to_submit("vision", spec, key=key)
    expect(again.status_code in (200, 201), f"the same request again: {again.status_code} {again.text}")
    view: Document = context.until_finished(again.json()["id"])
    context.show(Source.RUNWAY, f"the same request again: {again.status_code}, job {view['id']}, {view['state']}")
    named = lost.json().get("id", view["id"])
    expect(named == view["id"], f"the first response has id {named}")
    pods = context.kubernetes.pods(view["kubernetes"]["namespace"], view["id"])
    context.show(Source.KUBERNETES, f"one Job of that name, and {len(pods)} pod of it")
    expect(len(pods) == 1, f"there are {len(pods)} pods")


def _expect_503(context: Context, answer: httpx2.Response, seconds: float) -> None:
    problem = answer.json()
    retry_after = answer.headers.get("Retry-After")
    context.show(
        Source.RUNWAY,
        f"a submission: {answer.status_code} {problem.get('code')} after {seconds:.1f} s, Retry-After {retry_after}, "
        f"id {problem.get('id')}",
    )
    expect(answer.status_code == 503, f"it got {answer.status_code}: {problem}")
    expect(seconds < ANSWER_SECONDS, f"it took {seconds:.1f} s")
    expect(retry_after is not None, "there is no Retry-After")


RESTART = Scenario(
    "Runway killed",
    "After SIGKILL, the next start knows every job and all usage before it admits anything.",
    kill_runway,
)
REPLAY = Scenario(
    "The same request again",
    f"{AT_ONCE} identical concurrent requests and a later one create one job. The key with another spec conflicts.",
    replay,
)
ABSENCE = Scenario(
    "Kubernetes does not answer",
    f"A submission gets a response within {ANSWER_SECONDS:g} s, reads work, and a later retry resolves the outcome.",
    lose_kubernetes,
)
