"""Optional limits of a tenant: disk, GPU types, hourly price and budget, over HTTP and after a restart."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any

import pytest

from runway.policy import Policy, parse_policy
from tests.api.conftest import POLICY, Runway, job, serve
from tests.api.test_job_recorder import final_record, metric, until_metric
from tests.support.fake_cluster import FakeKubernetes


def policy_with(quota: str = "", budget: str = "") -> Policy:
    """Return the local policy with more limits of tenant vision."""
    known, rate = 'quota: {gpu: 4, cpu: "32", memory: 128Gi, jobs: 100}', "rate: {per_minute: 600, burst: 100}"
    text = POLICY.read_text()
    assert text.count(known) == text.count(rate) == 1
    text = text.replace(known, f"{known[:-1]}, {quota}}}" if quota else known)
    return parse_policy(text.replace(rate, f"budget: {budget}, {rate}" if budget else rate))


def text_of(moment: datetime) -> str:
    return moment.strftime("%Y-%m-%dT%H:%M:%SZ")


@pytest.fixture
def dated(kubernetes: FakeKubernetes) -> FakeKubernetes:
    """Return a cluster whose clock agrees with Runway's."""
    kubernetes.now = lambda: text_of(datetime.now(UTC))
    return kubernetes


async def budget_of(runway: Runway) -> dict[str, Any]:
    return dict((await runway.quota())["budget"])


async def finish(runway: Runway, job_id: str) -> None:
    """Let a job succeed, and wait for its record."""
    pod = runway.kubernetes.start_pod(job_id)
    await runway.until_state(job_id, "running")
    runway.kubernetes.end_pod(pod)
    runway.kubernetes.complete(job_id)
    await final_record(runway, job_id)


async def end_an_hour_late(runway: Runway, job_id: str) -> dict[str, Any]:
    """Let a job exceed its timeout and run for another hour, and return its record."""
    pod = runway.kubernetes.start_pod(job_id)
    ended = {"exitCode": 137, "reason": "Error", "startedAt": runway.kubernetes.now()}
    late = text_of(datetime.now(UTC) + timedelta(seconds=3600))
    state = {"terminated": ended | {"finishedAt": late}}
    status = runway.kubernetes.pod(pod)["status"]
    runway.kubernetes.set_status(
        pod, {**status, "phase": "Failed", "containerStatuses": [{"name": "job", "state": state}]}
    )
    runway.kubernetes.fail(job_id, "DeadlineExceeded")
    return await final_record(runway, job_id)


async def test_disk_of_jobs_and_of_pods_created_outside_runway_counts(kubernetes: FakeKubernetes) -> None:
    async with serve(kubernetes, policy=policy_with("disk: 3Gi")) as runway:
        assert (await runway.submit()).status_code == 201
        requests = {"cpu": "1", "memory": "1Gi", "ephemeral-storage": "1500Mi"}
        by_hand: dict[str, Any] = {
            "metadata": {"name": "by-hand", "namespace": "runway-vision"},
            "spec": {"containers": [{"name": "main", "resources": {"requests": requests}}]},
            "status": {"phase": "Running"},
        }
        kubernetes.add("pods", by_hand)

        async def counted() -> bool:
            return bool((await runway.quota())["used"]["disk"] == "2524Mi")

        await runway.until(counted)
        problem = (await runway.submit()).json()
        (violation,) = problem["violations"]
        assert (violation["field"], violation["observed"], violation["limit"]) == ("resources.disk", "1Gi", "3Gi")
        assert violation["message"] == "2524Mi of 3Gi are used or reserved, 548Mi free"
        assert {holder["id"]: holder["disk"] for holder in (await runway.quota())["jobs"]}["by-hand"] == "1500Mi"
        metrics = (await runway.client.get("/metrics")).text
        assert 'runway_quota_limit{resource="disk",tenant="vision"} 3.221225472e+09' in metrics
        assert 'runway_quota_used{resource="disk",tenant="vision"} 2.646605824e+09' in metrics
        assert 'runway_quota_limit{resource="disk",tenant="speech"}' not in metrics


async def test_disk_is_not_limited_by_default(kubernetes: FakeKubernetes) -> None:
    async with serve(kubernetes) as runway:
        for _ in range(5):
            assert (await runway.submit()).status_code == 201
        quota = await runway.quota()
        assert (quota["limit"]["disk"], quota["used"]["disk"]) == (None, "5Gi")


async def test_gpu_types_are_limited_beside_all_gpus(kubernetes: FakeKubernetes) -> None:
    async with serve(kubernetes, policy=policy_with("gpu_types: {a10g: 1}")) as runway:
        assert (await runway.submit(resources={"gpu": 1})).status_code == 201
        problem = (await runway.submit(resources={"gpu": 1})).json()
        assert problem["detail"] == "tenant vision would exceed its quota of resources.gpu of type a10g"
        assert [found["message"] for found in problem["violations"]] == ["1 of 1 a10g are used or reserved, 0 free"]
        quota = await runway.quota()
        assert (quota["limit"]["gpu_types"], quota["used"]["gpu_types"]) == ({"a10g": 1}, {"a10g": 1})
        assert await metric(runway, 'runway_quota_used{resource="gpu_types.a10g",tenant="vision"') == 1
        policy = (await runway.client.get("/v1/policy")).json()
        assert policy["tenants"]["vision"]["quota"]["gpu_types"] == {"a10g": 1}


async def test_pod_of_deleted_job_keeps_its_gpu_type_and_price(kubernetes: FakeKubernetes) -> None:
    async with serve(kubernetes, policy=policy_with("gpu_types: {a10g: 1}")) as runway:
        job_id = (await runway.submit(resources={"gpu": 1})).json()["id"]
        pod = kubernetes.start_pod(job_id)
        used = (await runway.quota())["used"]
        kubernetes.delete_job(job_id)
        await asyncio.sleep(5)
        assert (await runway.quota())["used"] == used
        async with serve(kubernetes, policy=policy_with("gpu_types: {a10g: 1}"), until="reader") as other:
            assert (await other.quota())["used"] == used
        kubernetes.remove_pod(pod)

        async def free() -> bool:
            return bool((await runway.quota())["used"]["gpu_types"] == {})

        await runway.until(free)


async def test_hourly_prices_are_limited_for_jobs_of_runway_and_others(kubernetes: FakeKubernetes) -> None:
    async with serve(kubernetes, policy=policy_with('usd_per_hour: "2"')) as runway:
        view = (await runway.submit(resources={"gpu": 1})).json()
        assert (await runway.quota())["used"]["usd_per_hour"] == f"{Decimal(view['cost']['hourly']).normalize():f}"
        requests = {"cpu": "100m", "memory": "64Mi", "nvidia.com/gpu": "1"}
        template = {"spec": {"containers": [{"name": "main", "resources": {"requests": requests}}]}}
        by_hand = {"metadata": {"name": "by-hand", "namespace": "runway-vision"}, "status": {}}
        kubernetes.add("jobs", by_hand | {"spec": {"parallelism": 1, "template": template}})

        async def counted() -> bool:
            used: str = (await runway.quota())["used"]["usd_per_hour"]
            return Decimal(used) == 2 * Decimal(view["cost"]["hourly"])

        await runway.until(counted)
        (violation,) = (await runway.submit(resources={"gpu": 1})).json()["violations"]
        assert (violation["field"], violation["limit"]) == ("usd_per_hour", "2")


BUDGET = '{usd: "2", hours: 24}'
DEAR: dict[str, Any] = {"resources": {"gpu": 1}, "timeout_seconds": 3570, "grace_period_seconds": 30}
"""A job with a ceiling of 1.39 USD."""


async def test_budget_holds_ceilings_then_actual_cost(dated: FakeKubernetes) -> None:
    async with serve(dated, policy=policy_with(budget=BUDGET)) as runway:
        view = (await runway.submit(**DEAR)).json()
        ceiling = f"{Decimal(view['cost']['ceiling']).normalize():f}"
        problem = (await runway.submit(**DEAR)).json()
        assert problem["code"] == "quota_exceeded"
        (violation,) = problem["violations"]
        assert (violation["field"], violation["code"], violation["limit"]) == ("budget", "budget_exceeded", "2")
        assert problem["quota"]["budget"] == await budget_of(runway)  # No finished job can leave enough.
        assert (problem["held_by"], (await budget_of(runway))["committed"]) == ([view["id"]], ceiling)
        assert await metric(runway, 'runway_quota_used{resource="budget",tenant="vision"') == float(ceiling)

        await finish(runway, view["id"])

        async def charged() -> bool:
            budget = await budget_of(runway)
            return bool(budget["committed"] == "0" and Decimal(budget["spent"]) < Decimal(ceiling) / 100)

        await runway.until(charged)
        assert (await runway.submit(**DEAR)).status_code == 201


async def test_refusal_says_when_finished_jobs_leave_enough_of_the_budget(dated: FakeKubernetes) -> None:
    async with serve(dated, policy=policy_with(budget=BUDGET)) as runway:
        job_id = (await runway.submit(**DEAR)).json()["id"]
        await end_an_hour_late(runway, job_id)
        finished = datetime.fromisoformat((await runway.view(job_id))["finished_at"])
        problem = (await runway.submit(**DEAR)).json()
        budget = problem["quota"]["budget"]
        assert (problem["code"], budget["committed"]) == ("quota_exceeded", "0")
        assert datetime.fromisoformat(budget["available_at"]) == finished + timedelta(hours=24)
        (violation,) = problem["violations"]
        assert f"submit again at {budget['available_at']}" in violation["hint"]


async def test_policy_compares_quotas_with_what_the_pools_hold(kubernetes: FakeKubernetes) -> None:
    bounded = POLICY.read_text().replace("gpu_type: a10g,", "gpu_type: a10g, max_nodes: 1,")
    async with serve(kubernetes, policy=parse_policy(bounded)) as runway:
        gpu, cpu, _ = (await runway.client.get("/v1/policy")).json()["capacity"]
    assert gpu == {"resource": "gpu", "gpu_type": "a10g", "quotas": "6", "pools": "4", "sufficient": False}
    assert cpu == {"resource": "cpu", "gpu_type": None, "quotas": "56", "pools": None, "sufficient": None}


async def test_budget_is_rebuilt_from_jobs_after_a_crash(dated: FakeKubernetes) -> None:
    """One job is unfinished, one finished with a record, one finished without, and one finished before the window."""
    policy = policy_with(budget='{usd: "100", hours: 1}')
    async with serve(dated, policy=policy) as runway:
        jobs = [(await runway.submit(**DEAR)).json()["id"] for _ in range(4)]
        await finish(runway, jobs[0])
        await finish(runway, jobs[3])
        before = await budget_of(runway)
    dated.complete(jobs[1])
    early = text_of(datetime.now(UTC) - timedelta(hours=1))
    item = dated.job(jobs[3])
    (condition,) = item["status"]["conditions"]
    dated.put("jobs", item | {"status": {"conditions": [condition | {"lastTransitionTime": early}]}}, "MODIFIED")
    async with serve(dated, policy=policy) as after:
        budget = await budget_of(after)
        one = Decimal((await after.view(jobs[2]))["cost"]["ceiling"])
        assert Decimal(before["committed"]) == 2 * one
        assert (Decimal(budget["committed"]), Decimal(budget["spent"])) == (one, one + Decimal(before["spent"]) / 2)


async def test_deleted_job_leaves_the_budget_and_keeps_quota_for_its_pod(dated: FakeKubernetes) -> None:
    async with serve(dated, policy=policy_with(budget=BUDGET)) as runway:
        job_id = (await runway.submit(**DEAR)).json()["id"]
        dated.start_pod(job_id)
        assert (await runway.submit(**DEAR)).status_code == 403
        dated.delete_job(job_id)

        async def left() -> bool:
            return bool((await budget_of(runway))["committed"] == "0")

        await runway.until(left)
        assert (await runway.quota())["used"]["gpu"] == 1
        assert (await runway.submit(**DEAR)).status_code == 201


async def test_jobs_created_outside_runway_do_not_count_in_the_budget(dated: FakeKubernetes) -> None:
    async with serve(dated, policy=policy_with(budget=BUDGET)) as runway:
        job_id = (await runway.submit(**DEAR)).json()["id"]
        copied = dated.job(job_id) | {"status": {}}
        meta = copied["metadata"] | {"name": "by-hand", "uid": "uid-by-hand"}
        labels = {name: value for name, value in meta["labels"].items() if name != "app.kubernetes.io/managed-by"}
        dated.add("jobs", copied | {"metadata": meta | {"labels": labels}})

        async def counted() -> bool:
            return bool((await runway.quota())["used"]["jobs"] == 2)

        await runway.until(counted)
        assert Decimal((await budget_of(runway))["committed"]) < 2


async def test_concurrent_submissions_never_exceed_the_budget(dated: FakeKubernetes) -> None:
    async with serve(dated, policy=policy_with(budget='{usd: "4.5", hours: 1}')) as runway:
        answers = await asyncio.gather(*(runway.submit(**DEAR) for _ in range(30)))
        assert sorted(answer.status_code for answer in answers) == [201] * 3 + [403] * 27
        assert Decimal((await budget_of(runway))["committed"]) <= Decimal("4.5")


async def test_cost_beyond_the_ceiling_is_a_metric_and_no_charge(dated: FakeKubernetes) -> None:
    async with serve(dated) as runway:
        view = (await runway.submit(resources={"gpu": 1}, timeout_seconds=10, grace_period_seconds=10)).json()
        record = await end_an_hour_late(runway, view["id"])
        assert record["actual"] == view["cost"]["ceiling"]
        beyond = 3600 * Decimal(view["cost"]["hourly"]) / 3600 - Decimal(view["cost"]["ceiling"])
        name = 'runway_uncharged_cost_usd_total{reason="late_end",tenant="vision"'

        async def counted() -> bool:
            return abs(await metric(runway, name) - float(beyond)) < 0.001

        await runway.until(counted)
        await until_metric(runway, name.replace("late_end", "node_lost"), 0)


async def test_cost_of_a_lost_node_beyond_the_ceiling_is_a_metric_and_no_charge(dated: FakeKubernetes) -> None:
    async with serve(dated) as runway:
        view = (await runway.submit(resources={"gpu": 1}, timeout_seconds=10, grace_period_seconds=10)).json()
        pod = dated.start_pod(view["id"])
        gone = {"type": "DisruptionTarget", "status": "True", "reason": "DeletionByPodGC"}
        gone["lastTransitionTime"] = text_of(datetime.now(UTC) + timedelta(seconds=3600))
        known = dated.pod(pod)["status"]
        dated.set_status(pod, {**known, "phase": "Failed", "conditions": [*known["conditions"], gone]})
        dated.fail(view["id"], "DeadlineExceeded")
        assert (await final_record(runway, view["id"]))["actual"] == view["cost"]["ceiling"]
        beyond = float(Decimal(view["cost"]["hourly"]) - Decimal(view["cost"]["ceiling"]))
        assert beyond > 0
        name = 'runway_uncharged_cost_usd_total{reason="node_lost",tenant="vision"'

        async def counted() -> bool:
            return abs(await metric(runway, name) - beyond) < 0.001

        await runway.until(counted)
        await until_metric(runway, name.replace("node_lost", "late_end"), 0)


async def test_console_and_dry_run_show_the_limits(dated: FakeKubernetes) -> None:
    policy = policy_with('gpu_types: {a10g: 2}, usd_per_hour: "20"', '{usd: "300", hours: 24}')
    async with serve(dated, policy=policy) as runway:
        await runway.submit(**DEAR)
        for path in ("/", "/tenants/vision"):
            html = (await runway.client.get(path)).text
            for name in ("GPU a10g", "USD an hour", "USD in 24 h"):
                assert f'<span class="name">{name}</span>' in html
        assert "300.00 USD in 24 h: 0.00 spent, 1.3" in html
        answer = await runway.client.post("/v1/jobs?dry_run=true", json=job(**DEAR), headers={"X-Tenant-ID": "vision"})
        plan = answer.json()
        assert plan["quota"]["requested"]["gpu_types"] == {"a10g": 1}
        assert plan["quota"]["budget"] == await budget_of(runway)
