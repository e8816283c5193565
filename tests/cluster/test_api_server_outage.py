"""Outages of the API server: responses, quota and recovery.

The fixture `outages` freezes the API server, then kills it and restarts it with etcd's history compacted. All tests
assert on this one run.
"""

from __future__ import annotations

import ssl
import time
import uuid
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import httpx2
import pytest

from localcluster import LocalCluster, addresses, pki
from localcluster.component import Component
from testbed.context import Context, Tools
from testbed.http_client import Document, document, shell
from testbed.kubectl import Kubectl
from testbed.server import Server
from testbed.waiting import GUARD_SECONDS, wait_for

pytestmark = [pytest.mark.cluster, pytest.mark.alone]

SLEEP = "trap 'exit 0' TERM; echo started; sleep 600 & wait"
GPU_JOB = shell(SLEEP, resources={"cpu": "100m", "memory": "32Mi", "gpu": 1}, timeout_seconds=500)
ANSWER_SECONDS = 8.0
"""Runway waits 5 s for Kubernetes, and a busy machine adds to it. An unbounded wait would last the whole freeze."""
FROZEN_SECONDS = 20.0
RECOVERY_SECONDS = 20.0
RESOLVE_SECONDS = 200.0
"""Runway reads an ambiguous create back 30 times, with pauses of at most 5 s, before it releases the quota."""


@dataclass(frozen=True, slots=True)
class Timed:
    """A response and its duration in seconds."""

    answer: httpx2.Response
    seconds: float


@dataclass(frozen=True, slots=True)
class Outage:
    """Responses during an outage, and the recovery after it."""

    submissions: list[Timed]
    cancel: Timed
    statuses: dict[str, int]
    """Status of each read, by path."""
    recovery_seconds: float
    """From the end of the outage until Runway is the leader again."""
    submitted_after: int
    """The status of the first submission after the recovery."""


@dataclass(frozen=True, slots=True)
class Outages:
    """The results of a frozen and then a killed API server.

    - `key` was submitted during the freeze and again afterwards.
    - `beyond_quota` exceeds the quota if the ambiguous creates count.
    - `ran_through` ran all the time.
    - `ended_meanwhile` finished without an API server.
    """

    frozen: Outage
    killed: Outage
    key: str
    again: httpx2.Response
    beyond_quota: httpx2.Response
    ran_through: Document
    ended_meanwhile: Document

    @property
    def both(self) -> tuple[Outage, Outage]:
        return self.frozen, self.killed


@pytest.fixture(scope="module")
def outages(tools: Tools) -> Iterator[Outages]:
    context = Context(tools, show=lambda *_: None)
    api_server = LocalCluster.default().component("kube-apiserver")
    key = f"test {uuid.uuid4()}"
    try:
        # Pods of earlier tests may still be terminating and use GPUs.
        wait_for(lambda: context.runway.quota("vision")["used"]["gpu"] == 0 or None, "no GPU in use")
        # Two to cancel: the API server may execute the first cancel after the thaw.
        lasting = context.submit("vision", GPU_JOB)
        to_cancel, another = context.submit("vision", shell(SLEEP)), context.submit("vision", shell(SLEEP))
        for job in (lasting, to_cancel, another):
            context.until_log(job["id"], "started")

        # Requests on open connections reach the frozen server, so their outcome is ambiguous.
        open_connections(context)
        api_server.freeze()
        frozen_at = time.monotonic()
        submissions = submit_at_once(context, GPU_JOB, [key, None, None])
        beyond = context.runway.submit("vision", GPU_JOB)
        frozen = observe(context, submissions, to_cancel, lambda: thaw_at(frozen_at + FROZEN_SECONDS, api_server))
        again = context.runway.submit("vision", GPU_JOB, key=key)

        ending = context.submit("vision", shell("echo started; sleep 3"))
        context.until_log(ending["id"], "started")
        api_server.kill()
        wait_for(lambda: context.runway.get("/readyz").status_code == 503 or None, "not ready")
        killed = observe(
            context, submit_at_once(context, shell("true"), [None] * 3), another, lambda: restart(api_server)
        )
        yield Outages(frozen, killed, key, again, beyond, lasting, ending)
    finally:
        # Repair the cluster for the tests that follow, also after an error above.
        LocalCluster.default().up()
        context.cancel_jobs()


def test_submissions_get_503_with_retry_after_in_time(outages: Outages) -> None:
    for outage in outages.both:
        assert [timed.answer.status_code for timed in outage.submissions] == [503, 503, 503]
        assert max(timed.seconds for timed in outage.submissions) < ANSWER_SECONDS
        assert all(int(timed.answer.headers["Retry-After"]) > 0 for timed in outage.submissions)
    codes = [{timed.answer.json()["code"] for timed in outage.submissions} for outage in outages.both]
    # A frozen server may have received the request; a server that refuses the connection has not.
    assert codes == [{"outcome_unknown"}, {"kubernetes_unavailable"}]
    assert all(timed.answer.json()["id"].startswith("rw-") for timed in outages.frozen.submissions)


def test_cancel_gets_503_in_time(outages: Outages) -> None:
    for outage in outages.both:
        assert (outage.cancel.answer.status_code, outage.cancel.seconds < ANSWER_SECONDS) == (503, True)
    frozen, killed = (outage.cancel.answer.json()["code"] for outage in outages.both)
    # Only without an open connection is it certain that nothing was sent.
    assert frozen in ("outcome_unknown", "kubernetes_unavailable")
    assert killed == "kubernetes_unavailable"


def test_reads_and_liveness_work_while_not_ready(outages: Outages) -> None:
    for outage in outages.both:
        assert outage.statuses == {"/healthz": 200, "/readyz": 503, "/v1/jobs": 200, "/v1/quota": 200, "/metrics": 200}


def test_ambiguous_creates_keep_their_quota(outages: Outages) -> None:
    problem = outages.beyond_quota.json()
    assert (outages.beyond_quota.status_code, problem["code"]) == (403, "quota_exceeded")
    assert (problem["quota"]["used"]["gpu"], problem["quota"]["reserved"]["gpu"]) == (1, 3)


def test_runway_recovers_without_restart(outages: Outages) -> None:
    for outage in outages.both:
        assert outage.recovery_seconds < RECOVERY_SECONDS
        assert outage.submitted_after == 201


def test_repeated_submission_resolves_ambiguous_create(outages: Outages) -> None:
    assert outages.again.status_code in (200, 201)
    assert outages.again.json()["id"] == outages.frozen.submissions[0].answer.json()["id"]


def test_job_changes_during_outage_are_observed(outages: Outages, context: Context) -> None:
    assert context.until_finished(outages.ended_meanwhile["id"])["state"] == "succeeded"
    through = context.runway.job(outages.ran_through["id"])
    assert (through["state"], len(through["attempts"])) == ("running", 1)


def test_quota_matches_kubernetes_after_outage_and_no_job_ran_twice(
    outages: Outages, context: Context, kubernetes: Kubectl
) -> None:
    wait_for(lambda: context.runway.quota("vision")["reserved"]["jobs"] == 0 or None, "all resolved", RESOLVE_SECONDS)
    namespace = outages.ran_through["kubernetes"]["namespace"]
    unfinished = [job for job in kubernetes.select("jobs", f"--namespace={namespace}") if not finished(job)]

    quota = context.runway.quota("vision")
    assert {holder["id"] for holder in quota["jobs"]} == {job["metadata"]["name"] for job in unfinished}
    assert quota["used"]["gpu"] == sum(gpus(job) for job in unfinished) <= quota["limit"]["gpu"]
    pods = kubernetes.pods(namespace, outages.again.json()["id"])
    assert len(pods) == 1


def test_outage_causes_no_internal_errors(outages: Outages, server: Server) -> None:
    assert outages.killed.submissions
    log = server.log.read_text(encoding="utf-8")
    assert '"path": "/v1/jobs"' in log
    errors = [line for line in log.splitlines() if '"status": 500' in line or "Traceback" in line or "critical" in line]
    assert errors == []


def thaw_at(moment: float, api_server: Component) -> None:
    """End the outage at a fixed time. Its length is under test, so no condition replaces the sleep."""
    time.sleep(max(0.0, moment - time.monotonic()))
    api_server.thaw()


def restart(api_server: Component) -> None:
    """Compact etcd's history and start the API server: no earlier resourceVersion can be watched."""
    url = f"https://{addresses.LOOPBACK}:{addresses.ETCD_CLIENT_PORT}/v3/kv"
    tls = ssl.create_default_context(cafile=str(pki.CA))
    tls.load_cert_chain(pki.certificate("etcd-client"), pki.key("etcd-client"))
    with httpx2.Client(verify=tls, trust_env=False, timeout=GUARD_SECONDS) as etcd:
        found = etcd.post(f"{url}/range", json={"key": "AA==", "count_only": True, "range_end": "AA=="}).json()
        done = etcd.post(f"{url}/compaction", json={"revision": found["header"]["revision"], "physical": True})
        assert done.status_code == 200, done.text
    api_server.start()


def open_connections(context: Context) -> None:
    """Have Runway open more connections to Kubernetes than the test needs."""
    with ThreadPoolExecutor(16) as pool:
        answers = list(pool.map(lambda _: context.runway.submit("vision", GPU_JOB, dry_run=True), range(16)))
    assert [answer.status_code for answer in answers] == [200] * 16


def submit_at_once(context: Context, spec: Document, keys: Sequence[str | None]) -> list[Timed]:
    """Submit concurrently. Track ids in error responses too, because those creates may have succeeded."""
    with ThreadPoolExecutor(len(keys)) as pool:
        found = list(pool.map(lambda key: timed(lambda: context.runway.submit("vision", spec, key=key)), keys))
    for each in found:
        if "id" in each.answer.json():
            context.track(each.answer.json()["id"])
    return found


def observe(context: Context, submissions: list[Timed], to_cancel: Document, end: Callable[[], None]) -> Outage:
    """Cancel and read during the outage, end it, and measure the recovery."""
    cancel = timed(lambda: context.runway.cancel(to_cancel["id"]))
    paths = ("/healthz", "/readyz", "/v1/jobs", "/v1/quota", "/metrics")
    statuses = {path: context.runway.get(path).status_code for path in paths}
    end()
    ended = time.monotonic()
    wait_for(
        lambda: context.runway.get("/readyz").json().get("role") == "writer" or None, "leader again", RECOVERY_SECONDS
    )
    recovery = time.monotonic() - ended
    after = context.runway.submit("research", shell("true"))
    if after.status_code == 201:
        context.track(document(after)["id"])
    return Outage(submissions, cancel, statuses, recovery, after.status_code)


def timed(call: Callable[[], httpx2.Response]) -> Timed:
    started = time.monotonic()
    answer = call()
    return Timed(answer, time.monotonic() - started)


def finished(job: Document) -> bool:
    conditions = job["status"].get("conditions", [])
    return any(item["type"] in ("Complete", "Failed") and item["status"] == "True" for item in conditions)


def gpus(job: Document) -> int:
    return int(job["spec"]["template"]["spec"]["containers"][0]["resources"]["limits"].get("nvidia.com/gpu", 0))
