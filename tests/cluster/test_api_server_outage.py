"""Kubernetes stopped: submissions are answered in time, nothing is admitted twice or lost, and it recovers by itself.

The API server is frozen, then killed and started again with etcd's history compacted meanwhile. One run of events, in
`outages`, is what every test looks at.
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
from testbed.waiting import wait_for

pytestmark = [pytest.mark.cluster, pytest.mark.alone]

STAY = "trap 'exit 0' TERM; echo started; sleep 600 & wait"
ON_ONE_GPU = shell(STAY, resources={"cpu": "100m", "memory": "32Mi", "gpu": 1}, timeout_seconds=500)
ANSWER_SECONDS = 6.0
FROZEN_SECONDS = 20.0
RECOVERY_SECONDS = 20.0
SETTLE_SECONDS = 200.0
"""An unanswered create is read back 30 times, with pauses of at most 5 s, before its quota is given back."""


@dataclass(frozen=True, slots=True)
class Timed:
    """An answer, and how long it took in seconds."""

    answer: httpx2.Response
    seconds: float


@dataclass(frozen=True, slots=True)
class Outage:
    """What was seen while the API server did not answer, and of the recovery."""

    submissions: list[Timed]
    cancel: Timed
    statuses: dict[str, int]
    """Of reads, by path."""
    recovery_seconds: float
    """From when the API server was let go on until /readyz was 200."""
    submitted_after: int
    """The status of the first submission after that."""


@dataclass(frozen=True, slots=True)
class Outages:
    """What a frozen API server and then a killed one came to.

    `key` was submitted while it was frozen and again afterwards; `beyond_quota` is one more submission than the quota
    had room for, were the unanswered ones done. `ran_through` ran all the time, `ended_meanwhile` ended without an API
    server.
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
        # Jobs of the tests before may still be terminating, and hold GPUs until they have ended.
        wait_for(lambda: context.runway.quota("vision")["used"]["gpu"] == 0 or None, "no GPU in use", 60)
        # Two to cancel: a frozen API server may do the first cancel when it is let go on.
        lasting = context.submit("vision", ON_ONE_GPU)
        to_cancel, another = context.submit("vision", shell(STAY)), context.submit("vision", shell(STAY))
        for job in (lasting, to_cancel, another):
            context.until_log(job["id"], "started")

        # Requests on connections that are open already reach the frozen server, so whether they are done is not known.
        open_connections(context)
        api_server.freeze()
        frozen_at = time.monotonic()
        submissions = submit_at_once(context, ON_ONE_GPU, [key, None, None])
        beyond = context.runway.submit("vision", ON_ONE_GPU)
        frozen = observe(context, submissions, to_cancel, lambda: thaw_at(frozen_at + FROZEN_SECONDS, api_server))
        again = context.runway.submit("vision", ON_ONE_GPU, key=key)

        ending = context.submit("vision", shell("echo started; sleep 3"))
        context.until_log(ending["id"], "started")
        api_server.kill()
        wait_for(lambda: context.runway.get("/readyz").status_code == 503 or None, "not ready", 10)
        killed = observe(
            context, submit_at_once(context, shell("true"), [None] * 3), another, lambda: restart(api_server)
        )
        yield Outages(frozen, killed, key, again, beyond, lasting, ending)
    finally:
        # Whatever went wrong above, the cluster is whole again for what comes after.
        LocalCluster.default().up()
        context.cancel_jobs()


def test_submissions_are_answered_503_in_time_with_when_to_come_back(outages: Outages) -> None:
    for outage in outages.both:
        assert [timed.answer.status_code for timed in outage.submissions] == [503, 503, 503]
        assert max(timed.seconds for timed in outage.submissions) < ANSWER_SECONDS
        assert all(int(timed.answer.headers["Retry-After"]) > 0 for timed in outage.submissions)
    codes = [{timed.answer.json()["code"] for timed in outage.submissions} for outage in outages.both]
    # A frozen server may have taken the request; one that refuses the connection has not.
    assert codes == [{"outcome_unknown"}, {"kubernetes_unavailable"}]
    assert all(timed.answer.json()["id"].startswith("rw-") for timed in outages.frozen.submissions)


def test_a_cancel_is_answered_503_in_time(outages: Outages) -> None:
    for outage in outages.both:
        assert (outage.cancel.answer.status_code, outage.cancel.seconds < ANSWER_SECONDS) == (503, True)
    frozen, killed = (outage.cancel.answer.json()["code"] for outage in outages.both)
    # Certain that nothing was sent it is only where no connection was left open from before.
    assert frozen in ("outcome_unknown", "kubernetes_unavailable")
    assert killed == "kubernetes_unavailable"


def test_runway_is_alive_and_readable_but_not_ready(outages: Outages) -> None:
    for outage in outages.both:
        assert outage.statuses == {"/healthz": 200, "/readyz": 503, "/v1/jobs": 200, "/v1/quota": 200, "/metrics": 200}


def test_unanswered_creates_keep_their_quota(outages: Outages) -> None:
    problem = outages.beyond_quota.json()
    assert (outages.beyond_quota.status_code, problem["code"]) == (403, "quota_exceeded")
    assert (problem["quota"]["used"]["gpu"], problem["quota"]["reserved"]["gpu"]) == (1, 3)


def test_it_recovers_by_itself(outages: Outages) -> None:
    for outage in outages.both:
        assert outage.recovery_seconds < RECOVERY_SECONDS
        assert outage.submitted_after == 201


def test_the_same_request_again_settles_what_became_of_it(outages: Outages) -> None:
    assert outages.again.status_code in (200, 201)
    assert outages.again.json()["id"] == outages.frozen.submissions[0].answer.json()["id"]


def test_what_happened_to_jobs_meanwhile_is_seen(outages: Outages, context: Context) -> None:
    assert context.until_finished(outages.ended_meanwhile["id"])["state"] == "succeeded"
    through = context.runway.job(outages.ran_through["id"])
    assert (through["state"], len(through["attempts"])) == ("running", 1)


def test_in_the_end_quota_is_what_kubernetes_runs_and_nothing_ran_twice(
    outages: Outages, context: Context, kubernetes: Kubectl
) -> None:
    wait_for(lambda: context.runway.quota("vision")["reserved"]["jobs"] == 0 or None, "all settled", SETTLE_SECONDS)
    namespace = outages.ran_through["kubernetes"]["namespace"]
    unfinished = [job for job in kubernetes.select("jobs", f"--namespace={namespace}") if not finished(job)]

    quota = context.runway.quota("vision")
    assert {holder["id"] for holder in quota["jobs"]} == {job["metadata"]["name"] for job in unfinished}
    assert quota["used"]["gpu"] == sum(gpus(job) for job in unfinished) <= quota["limit"]["gpu"]
    pods = kubernetes.pods(namespace, outages.again.json()["id"])
    assert len(pods) == 1


def test_no_request_met_a_fault_of_runways_own(outages: Outages, server: Server) -> None:
    assert outages.killed.submissions
    said = server.log.read_text(encoding="utf-8")
    assert '"path": "/v1/jobs"' in said
    faults = [
        line for line in said.splitlines() if '"status": 500' in line or "Traceback" in line or "critical" in line
    ]
    assert faults == []


def thaw_at(moment: float, api_server: Component) -> None:
    """The length of the outage is what is tested here, so it is waited for."""
    time.sleep(max(0.0, moment - time.monotonic()))
    api_server.thaw()


def restart(api_server: Component) -> None:
    """Start it again without history: no version that was known before can be watched from any more."""
    url = f"https://{addresses.LOOPBACK}:{addresses.ETCD_CLIENT_PORT}/v3/kv"
    tls = ssl.create_default_context(cafile=str(pki.CA))
    tls.load_cert_chain(pki.certificate("etcd-client"), pki.key("etcd-client"))
    with httpx2.Client(verify=tls, trust_env=False, timeout=10) as etcd:
        found = etcd.post(f"{url}/range", json={"key": "AA==", "count_only": True, "range_end": "AA=="}).json()
        done = etcd.post(f"{url}/compaction", json={"revision": found["header"]["revision"], "physical": True})
        assert done.status_code == 200, done.text
    api_server.start()


def open_connections(context: Context) -> None:
    """Have Runway call Kubernetes so often at once that it is left with more connections than the test needs."""
    with ThreadPoolExecutor(16) as pool:
        answers = list(pool.map(lambda _: context.runway.submit("vision", ON_ONE_GPU, dry_run=True), range(16)))
    assert [answer.status_code for answer in answers] == [200] * 16


def submit_at_once(context: Context, spec: Document, keys: Sequence[str | None]) -> list[Timed]:
    """Submissions that may be done although they are not answered; those are ended with the module."""
    with ThreadPoolExecutor(len(keys)) as pool:
        found = list(pool.map(lambda key: timed(lambda: context.runway.submit("vision", spec, key=key)), keys))
    for each in found:
        if "id" in each.answer.json():
            context.track(each.answer.json()["id"])
    return found


def observe(context: Context, submissions: list[Timed], to_cancel: Document, end: Callable[[], None]) -> Outage:
    """Everything but submissions while the outage lasts, then end it and see how Runway recovers."""
    cancel = timed(lambda: context.runway.cancel(to_cancel["id"]))
    paths = ("/healthz", "/readyz", "/v1/jobs", "/v1/quota", "/metrics")
    statuses = {path: context.runway.get(path).status_code for path in paths}
    end()
    ended = time.monotonic()
    wait_for(
        lambda: context.runway.get("/readyz").json().get("role") == "writer" or None, "writes again", RECOVERY_SECONDS
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
