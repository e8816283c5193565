"""Quota under concurrent submissions, under kills, and with a second process."""

from __future__ import annotations

import time
import uuid
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from decimal import Decimal
from pathlib import Path

import httpx2
import pytest
import yaml

from testbed.context import Context, Tools
from testbed.http_client import Document, RunwayClient, shell
from testbed.kubectl import Kubectl
from testbed.server import Server
from testbed.tenants import apply_tenants
from testbed.waiting import GUARD_SECONDS, wait_for

pytestmark = pytest.mark.cluster

SLEEP = "trap 'exit 0' TERM; sleep 600 & wait"
KILLS = 10


def gpu_job(gpus: int) -> Document:
    return shell(SLEEP, resources={"cpu": "100m", "memory": "32Mi", "gpu": gpus}, timeout_seconds=300)


def test_300_concurrent_submissions_fill_but_never_exceed_quota(context: Context, server: Server) -> None:
    quota = context.runway.quota("vision")
    assert quota["used"]["jobs"] == 0, quota["jobs"]
    answers = at_once(server, gpu_job(1), 300)
    created = [answer.json()["id"] for answer in answers if answer.is_success]
    for job_id in created:
        context.track(job_id)

    # The tenant's rate admits 100 at once and ten more each second; all others get 429.
    assert {201, 403} <= {answer.status_code for answer in answers} - {200} <= {201, 403, 429}
    assert {answer.json()["code"] for answer in answers if answer.status_code == 403} == {"quota_exceeded"}
    assert len(created) == quota["limit"]["gpu"] == 4
    assert context.runway.quota("vision")["used"]["gpu"] == 4
    assert sorted(unfinished(context)) == sorted(created)


def test_300_concurrent_submissions_at_the_edge_of_a_budget_never_exceed_it(
    context: Context, kubernetes: Kubectl, settings: Mapping[str, str], tmp_path: Path
) -> None:
    spec = shell(SLEEP, resources={"cpu": "100m", "memory": "32Mi"}, timeout_seconds=300)
    ceiling = Decimal(context.runway.submit("vision", spec, dry_run=True).json()["cost"]["ceiling"])
    with _runway_with_budget(kubernetes, settings, tmp_path, 7 * ceiling) as runway, RunwayClient(runway.url) as api:
        own = Context(Tools(api, kubernetes, None, runway), show=lambda *_: None)
        try:
            answers = at_once(runway, spec, 300)
            created = [answer.json()["id"] for answer in answers if answer.is_success]
            for job_id in created:
                own.track(job_id)
            refused = {answer.json()["violations"][0]["code"] for answer in answers if answer.status_code == 403}
            assert {answer.status_code for answer in answers} - {200} == {201, 403}
            assert refused == {"budget_exceeded"}
            assert len(created) == 7
            budget = api.quota("vision")["budget"]
            assert Decimal(budget["committed"]) == 7 * ceiling
            assert Decimal(budget["free"]) == 0
            assert sorted(unfinished(own)) == sorted(created)

            runway.kill()
            runway.start()
            after = api.quota("vision")["budget"]
            assert after == budget
            assert api.submit("vision", spec).status_code == 403
        finally:
            own.cancel_jobs()


@contextmanager
def _runway_with_budget(
    kubernetes: Kubectl, settings: Mapping[str, str], folder: Path, usd: Decimal
) -> Iterator[Server]:
    """Run a Runway with a budget of tenant vision, and without a limit of its rate that matters.

    The tenant has a namespace of its own. Earlier jobs would count with their ceilings until their costs are recorded,
    so the budget would change meanwhile.
    """
    policy = yaml.safe_load(Path(settings["RUNWAY_POLICY"]).read_text())
    vision = policy["tenants"]["vision"]
    namespace = f"{vision['namespace']}-budget-{uuid.uuid4().hex[:6]}"
    policy["tenants"] = {
        "vision": vision
        | {
            "namespace": namespace,
            "budget": {"usd": f"{usd:f}", "hours": 24},
            "rate": {"per_minute": 60_000, "burst": 1000},
        }
    }
    file = folder / "policy.yaml"
    file.write_text(yaml.safe_dump(policy))
    apply_tenants(kubernetes, file)
    try:
        own = {"RUNWAY_POLICY": str(file), "RUNWAY_LEASE_NAMESPACE": namespace}
        with Server(folder / "runway.log", {**settings, **own}) as runway:
            runway.start()
            yield runway
    finally:
        kubernetes.run("delete", "namespace", namespace, "--wait=false")


@pytest.mark.long
def test_ten_kills_under_load_exceed_no_quota_and_lose_no_job(context: Context, server: Server) -> None:
    """Every 201 has a Job, and the Jobs never use more GPUs than the quota."""
    limit = context.runway.quota("vision")["limit"]["gpu"]
    accepted: set[str] = set()
    for number in range(KILLS):
        with ThreadPoolExecutor(16) as pool:
            storm = [pool.submit(submit_quietly, server, gpu_job(1), f"storm {uuid.uuid4()}") for _ in range(16)]
            time.sleep(0.01 * number)  # The kill hits a different moment of the load each time.
            server.kill()
            answers = [answer for each in storm if (answer := each.result()) is not None]
        accepted |= {answer.json()["id"] for answer in answers if answer.status_code == 201}
        server.start()
        names = unfinished(context)
        for job_id in names:
            context.track(job_id)
        assert len(names) <= limit, f"kill {number}: {len(names)} GPUs in use, the limit is {limit}"
        assert accepted <= set(names), f"kill {number}: a 201 named a job that does not exist"
        assert context.runway.quota("vision")["used"]["gpu"] == len(names)
        if number % 3 == 2:
            context.cancel_jobs()
            accepted.clear()


@pytest.fixture
def second(server: Server, settings: Mapping[str, str], tmp_path: Path) -> Iterator[Server]:
    """Run a second Runway on the same cluster."""
    with Server(tmp_path / "second.log", settings) as running:
        running.launch()
        wait_for(lambda: reachable_role(running) == "reader" or None, "second Runway ready as a reader")
        yield running
    # The first is the leader again, for the tests that follow.
    wait_for(lambda: reachable_role(server) == "writer" or None, "the first Runway is the leader")


@pytest.mark.long
def test_second_process_serves_reads_and_takes_over_leadership(
    context: Context, server: Server, second: Server, record_property: Callable[[str, object], None]
) -> None:
    running = context.submit("vision", gpu_job(3))
    with httpx2.Client(base_url=second.url, trust_env=False, timeout=GUARD_SECONDS) as other:

        def submit() -> httpx2.Response:
            return other.post("/v1/jobs", json=gpu_job(2), headers={"X-Tenant-ID": "vision"})

        wait_for(lambda: other.get(f"/v1/jobs/{running['id']}").status_code == 200 or None, "the reader sees the job")
        refused = submit()
        assert (refused.status_code, refused.json()["code"]) == (503, "not_leader")
        cancel = other.delete(f"/v1/jobs/{running['id']}", headers={"X-Tenant-ID": "vision"})
        assert cancel.json()["code"] == "not_leader"

        server.kill()
        killed = time.monotonic()
        wait_for(lambda: reachable_role(second) == "writer" or None, "the second Runway takes over")
        record_property("takeover_seconds", round(time.monotonic() - killed, 1))
        refused = submit()
        assert (refused.status_code, refused.json()["code"]) == (403, "quota_exceeded")
        assert refused.json()["held_by"] == [running["id"]]

        server.launch()
        wait_for(lambda: reachable_role(server) == "reader" or None, "the first Runway comes back as a reader")


def at_once(server: Server, spec: Document, count: int) -> list[httpx2.Response]:
    """Submit `count` jobs concurrently. Repeat each under its key while it gets 503, which a busy machine can cause."""

    def submit(key: str) -> httpx2.Response:
        def attempt() -> httpx2.Response | None:
            answer = post(client, spec, key)
            return None if answer.status_code == 503 else answer

        return wait_for(attempt, "an answer other than 503")

    with (
        httpx2.Client(base_url=server.url, trust_env=False, timeout=GUARD_SECONDS) as client,
        ThreadPoolExecutor(50) as pool,
    ):
        return list(pool.map(submit, [f"storm {uuid.uuid4()}" for _ in range(count)]))


def submit_quietly(server: Server, spec: Document, key: str) -> httpx2.Response | None:
    """Return the response, or None if the server was killed during the request."""
    with httpx2.Client(base_url=server.url, trust_env=False, timeout=GUARD_SECONDS) as client:
        try:
            return post(client, spec, key)
        except httpx2.TransportError:
            return None


def post(client: httpx2.Client, spec: Document, key: str | None) -> httpx2.Response:
    headers = {"X-Tenant-ID": "vision"} | ({"Idempotency-Key": key} if key else {})
    return client.post("/v1/jobs", json=spec, headers=headers)


def reachable_role(server: Server) -> str | None:
    try:
        return server.role()
    except httpx2.TransportError:
        return None


def unfinished(context: Context) -> list[str]:
    """Return the unfinished Jobs of tenant vision in Kubernetes."""
    namespace = context.runway.policy()["tenants"]["vision"]["namespace"]
    jobs = context.kubernetes.select("jobs", f"--namespace={namespace}")
    return [job["metadata"]["name"] for job in jobs if not finished(job)]


def finished(job: Document) -> bool:
    conditions = job["status"].get("conditions", [])
    return any(item["type"] in ("Complete", "Failed") and item["status"] == "True" for item in conditions)
