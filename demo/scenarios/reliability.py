"""What can be relied on: a crash loses nothing, a retry is safe, and an absent Kubernetes is told in time."""

from __future__ import annotations

import time
import uuid
from concurrent.futures import ThreadPoolExecutor

import httpx2

from demo.scenario import NotSeen, Scenario, Source
from localcluster import LocalCluster
from testbed.context import Stage, expect
from testbed.http_client import Document, document, shell
from testbed.waiting import wait_for

STAY = "trap 'exit 0' TERM; echo started; sleep 600 & wait"
ANSWER_SECONDS = 6.0
AT_ONCE = 20


def kill_runway(stage: Stage) -> None:
    if stage.server is None:
        raise NotSeen("this Runway was not started by the demo, so it cannot be killed")
    spec = shell(STAY, resources={"cpu": "100m", "memory": "32Mi", "gpu": 3}, timeout_seconds=120)
    view = stage.submit("vision", spec)
    stage.until_log(view["id"], "started")
    before, pid = stage.runway.quota("vision")["used"], stage.server.pid
    pod = stage.pod(view)
    stage.server.kill()
    stage.saw(Source.LINUX, f"Runway, pid {pid}, was killed with SIGKILL while the job held 3 GPUs")

    started = time.monotonic()
    stage.server.start()
    stage.saw(Source.RUNWAY, f"pid {stage.server.pid} may write {time.monotonic() - started:.1f} s after its start")
    after = stage.runway.quota("vision")["used"]
    stage.saw(Source.RUNWAY, f"quota used before {before}, after {after}")
    expect(after == before, "the quota is not the same")
    again = stage.runway.job(view["id"])
    expect(again["state"] == "running", f"the job is {again['state']}")
    refused = stage.try_to_submit("vision", spec)
    expect(refused.status_code == 403, f"3 more GPUs were answered {refused.status_code}: {refused.text}")
    stage.saw(Source.RUNWAY, f"3 more GPUs: 403 {refused.json()['code']}, held by {refused.json()['held_by']}")
    same = stage.pod(view)
    expect(same["metadata"]["uid"] == pod["metadata"]["uid"], "the job runs in another pod")
    stage.saw(Source.KUBERNETES, f"pod {same['metadata']['name']} has run all the time: {same['status']['phase']}")


def replay(stage: Stage) -> None:
    key, spec = f"demo {uuid.uuid4()}", shell("true")
    with ThreadPoolExecutor(AT_ONCE) as pool:
        answers = list(pool.map(lambda _: stage.runway.submit("vision", spec, key=key), range(AT_ONCE)))
    statuses = sorted(answer.status_code for answer in answers)
    ids = {document(answer)["id"] for answer in answers}
    for job_id in ids:
        stage.adopt(job_id)
    stage.saw(
        Source.RUNWAY, f"{AT_ONCE} identical requests at once: {statuses.count(201)} x 201, {statuses.count(200)} x 200"
    )
    expect(statuses == [200] * (AT_ONCE - 1) + [201], f"the answers are {statuses}")
    expect(len(ids) == 1, f"they name {len(ids)} jobs")
    late = stage.runway.submit("vision", spec, key=key)
    replayed = late.headers.get("Idempotent-Replay")
    stage.saw(Source.RUNWAY, f"once more: {late.status_code}, Idempotent-Replay: {replayed}, id {late.json()['id']}")
    expect((late.status_code, replayed) == (200, "true"), "the first job was not answered again")
    other = stage.try_to_submit("vision", spec | {"timeout_seconds": 7}, key=key)
    stage.saw(Source.RUNWAY, f"another spec under the same key: {other.status_code} {other.json().get('code')}")
    expect(other.status_code == 409, "another spec under the same key is not a conflict")
    job = stage.job(stage.until_over(ids.pop()))
    pods = stage.kubernetes.pods(job["metadata"]["namespace"], job["metadata"]["name"])
    stage.saw(Source.KUBERNETES, f"one Job, {job['metadata']['name']}, and {len(pods)} pod of it")
    expect(len(pods) == 1, f"there are {len(pods)} pods")


def lose_kubernetes(stage: Stage) -> None:
    if stage.kernel is None:
        raise NotSeen("only the local cluster's API server can be frozen")
    api_server = LocalCluster.default().component("kube-apiserver")
    key, spec = f"demo {uuid.uuid4()}", shell("true")
    # So that Runway has a connection open: on a new one it would know that nothing was sent.
    document(stage.runway.submit("vision", spec, dry_run=True))
    api_server.freeze()
    try:
        started = time.monotonic()
        lost = stage.runway.submit("vision", spec, key=key)
        seconds = time.monotonic() - started
        stage.saw(Source.LINUX, f"kube-apiserver, pid {api_server.pid}, is stopped (SIGSTOP)")
        _tell(stage, lost, seconds)
        reads = {path: stage.runway.get(path).status_code for path in ("/v1/jobs", "/v1/quota", "/healthz", "/readyz")}
        stage.saw(Source.RUNWAY, f"meanwhile: {', '.join(f'{path} {status}' for path, status in reads.items())}")
        expect(list(reads.values()) == [200, 200, 200, 503], f"reads answer {reads}")
    finally:
        api_server.thaw()
    thawed = time.monotonic()
    wait_for(lambda: stage.runway.get("/readyz").json().get("role") == "writer" or None, "ready again", 30)
    stage.saw(Source.RUNWAY, f"ready again by itself {time.monotonic() - thawed:.1f} s after SIGCONT")
    again = stage.try_to_submit("vision", spec, key=key)
    expect(again.status_code in (200, 201), f"the same request again: {again.status_code} {again.text}")
    view: Document = stage.until_over(again.json()["id"])
    stage.saw(Source.RUNWAY, f"the same request again: {again.status_code}, job {view['id']}, {view['state']}")
    named = lost.json().get("id", view["id"])
    expect(named == view["id"], f"the first answer named {named}")
    pods = stage.kubernetes.pods(view["kubernetes"]["namespace"], view["id"])
    stage.saw(Source.KUBERNETES, f"one Job of that name, and {len(pods)} pod of it")
    expect(len(pods) == 1, f"there are {len(pods)} pods")


def _tell(stage: Stage, answer: httpx2.Response, seconds: float) -> None:
    problem = answer.json()
    retry_after = answer.headers.get("Retry-After")
    stage.saw(
        Source.RUNWAY,
        f"a submission: {answer.status_code} {problem.get('code')} after {seconds:.1f} s, Retry-After {retry_after}, "
        f"id {problem.get('id')}",
    )
    expect(answer.status_code == 503, f"it was answered {answer.status_code}: {problem}")
    expect(seconds < ANSWER_SECONDS, f"it took {seconds:.1f} s")
    expect(retry_after is not None, "there is no Retry-After")


RESTART = Scenario(
    "Runway killed",
    "SIGKILL in the middle of everything: the next start knows every job and all quota before it lets anything in.",
    kill_runway,
)
REPLAY = Scenario(
    "The same request again",
    f"{AT_ONCE} identical requests at once, and one later, make one job; the key with another spec is a conflict.",
    replay,
)
ABSENCE = Scenario(
    "Kubernetes does not answer",
    f"A submission is answered within {ANSWER_SECONDS:g} s, reads go on, and the same request afterwards settles it.",
    lose_kubernetes,
)
