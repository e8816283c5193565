"""The same request under the same key is answered with its job, whatever has changed since."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Mapping
from typing import Any

import httpx2
import pytest

from runway.errors import AmbiguousOutcome
from runway.jobs.annotations import ANNOTATION_REQUEST_HASH, ANNOTATION_SPEC
from runway.kube.transport import Response
from runway.policy import Policy, parse_policy
from tests.api.conftest import POLICY, Runway, job, serve
from tests.support.fake_cluster import FakeKubernetes
from tests.support.jobs_0_7 import JOBS, TENANT, JobOf07

KEY = {"Idempotency-Key": "run-42"}
REQUEST: dict[str, Any] = {"name": "train", "resources": {"gpu": 1}}


def policy(*edits: tuple[str, str]) -> Policy:
    """Return the local policy with each first text replaced by the second."""
    text = POLICY.read_text(encoding="utf-8")
    for old, new in edits:
        assert old in text, old
        text = text.replace(old, new, 1)
    return parse_policy(text)


NEW_DEFAULTS = ("default: 3600}", "default: 1800}"), ("default: 30}", "default: 60}")
IMAGE_NOT_ALLOWED = ('"runway.local/*"', '"elsewhere.example/*"')
SECOND_GPU_TYPE = (
    "tenants:",
    """  h100: {instance_type: p5.48xlarge, hourly_usd: "55.04", cpu: "192", memory: 2Ti, gpu: 8, gpu_type: h100}
tenants:""",
)
SMALLER_LIMITS = ("gpu: {max: 4}", "gpu: {max: 0}"), ('cpu: {min: 100m, max: "16"}', 'cpu: {min: "1", max: "16"}')
NO_FREE_QUOTA = ("quota: {gpu: 4,", "quota: {gpu: 0,")
EVERYTHING = (*NEW_DEFAULTS, IMAGE_NOT_ALLOWED, SECOND_GPU_TYPE, *SMALLER_LIMITS, NO_FREE_QUOTA)


@pytest.fixture
async def before(kubernetes: FakeKubernetes) -> str:
    """Return a job that an earlier process admitted under `KEY`."""
    async with serve(kubernetes, instance="one") as earlier:
        return str((await earlier.submit(headers=KEY, **REQUEST)).json()["id"])


def assert_replayed(answer: httpx2.Response, job_id: str) -> None:
    assert (answer.status_code, answer.json()["id"]) == (200, job_id), answer.text
    assert answer.headers["idempotent-replay"] == "true"
    assert answer.headers["location"] == f"/v1/jobs/{job_id}"


@pytest.mark.parametrize(
    "edits",
    [NEW_DEFAULTS, (IMAGE_NOT_ALLOWED,), (SECOND_GPU_TYPE,), SMALLER_LIMITS, (NO_FREE_QUOTA,), EVERYTHING],
    ids=["default", "image", "pool", "limits", "quota", "everything"],
)
async def test_repetition_after_a_policy_change_gets_the_first_job(
    kubernetes: FakeKubernetes, before: str, edits: tuple[tuple[str, str], ...]
) -> None:
    async with serve(kubernetes, instance="two", policy=policy(*edits)) as runway:
        assert_replayed(await runway.submit(headers=KEY, **REQUEST), before)
        different = await runway.submit(headers=KEY, **{**REQUEST, "name": "other"})
        assert (different.status_code, different.json()["code"]) == (409, "idempotency_conflict")
    assert len(kubernetes.objects["jobs"]) == 1


async def test_repetition_is_answered_during_a_stop_though_its_image_is_no_longer_allowed(
    kubernetes: FakeKubernetes, before: str
) -> None:
    kubernetes.annotate_lease(submissions_stopped="maintenance")
    async with serve(kubernetes, instance="two", policy=policy(IMAGE_NOT_ALLOWED)) as runway:
        assert_replayed(await runway.submit(headers=KEY, **REQUEST), before)
        assert (await runway.submit(**REQUEST)).json()["code"] == "invalid_spec"


async def test_finished_job_is_the_answer_until_kubernetes_deletes_it(kubernetes: FakeKubernetes, before: str) -> None:
    kubernetes.complete(before)
    async with serve(kubernetes, instance="two", policy=policy(IMAGE_NOT_ALLOWED)) as runway:
        assert_replayed(await runway.submit(headers=KEY, **REQUEST), before)
        kubernetes.delete_job(before)

        async def gone() -> bool:
            return bool((await runway.client.get(f"/v1/jobs/{before}")).status_code == 404)

        await runway.until(gone)
        assert (await runway.submit(headers=KEY, **REQUEST)).json()["code"] == "invalid_spec"


async def test_same_request_in_another_notation_gets_the_first_job(runway: Runway) -> None:
    first = await runway.client.post(
        "/v1/jobs",
        json=job(max_cost_usd="2.5", name=None, resources={"cpu": "1", "memory": "1Gi"}),
        headers={"X-Tenant-ID": "vision", **KEY},
    )
    body = """{ "resources": {"gpu_type": null, "memory": "1024Mi", "cpu": "1000m"},
      "max_cost_usd": "2.50", "command": ["\\u0074rue"], "image": "runway.local/busybox:1" }"""
    headers = {"X-Tenant-ID": "vision", "Content-Type": "application/json", **KEY}
    assert_replayed(await runway.client.post("/v1/jobs", content=body, headers=headers), first.json()["id"])


@pytest.mark.parametrize(
    "change",
    [
        {"command": ["false"]}, {"args": []}, {"retries": 0}, {"timeout_seconds": 3600}, {"resources": {"cpu": "101m"}},
        {"image": "Not An Image"}, {"a_later_field": 1}, {"timeout_seconds": -1}, {"timeout_seconds": 1e999},
        {"name": "\ud800"}, {"env": {"A": None}}, {"resources": None}, {"resources": [[]]},
    ],
    ids=repr,
)  # fmt: skip
async def test_another_request_under_the_key_is_a_conflict_valid_or_not(runway: Runway, change: dict[str, Any]) -> None:
    headers = {"X-Tenant-ID": "vision", "Content-Type": "application/json", **KEY}
    assert (await runway.client.post("/v1/jobs", json=job(), headers=headers)).status_code == 201
    content = json.dumps({**job(), **change}).replace("Infinity", "1e999")
    answer = await runway.client.post("/v1/jobs", content=content, headers=headers)
    assert (answer.status_code, answer.json()["code"]) == (409, "idempotency_conflict")
    assert answer.json()["hint"]


async def test_document_at_the_nesting_limit_is_a_conflict_and_never_a_500(runway: Runway) -> None:
    headers = {"X-Tenant-ID": "vision", "Content-Type": "application/json", **KEY}
    assert (await runway.client.post("/v1/jobs", json=job(), headers=headers)).status_code == 201
    for depth in range(600, 1001, 4):
        content = '{"image": ' + "[" * depth + "]" * depth + "}"
        answer = await runway.client.post("/v1/jobs", content=content, headers=headers)
        assert answer.status_code in (409, 422), (depth, answer.text)


async def test_concurrent_different_requests_under_one_key_create_one_job(runway: Runway) -> None:
    answers = await asyncio.gather(*(runway.submit(headers=KEY, name=f"job-{number % 2}") for number in range(20)))
    assert sorted(answer.status_code for answer in answers) == [200] * 9 + [201] + [409] * 10
    assert len(runway.kubernetes.objects["jobs"]) == 1


async def test_repetition_counts_against_the_rate_as_before(runway: Runway) -> None:
    answers = [await runway.submit("speech", headers=KEY) for _ in range(6)]
    assert [answer.status_code for answer in answers] == [201] + [200] * 4 + [429]


class UnreadableJobs(FakeKubernetes):
    """A read of a Job fails while `unreadable`."""

    unreadable = True

    async def request(
        self, method: str, path: str, *, query: Mapping[str, str], body: bytes | None, content_type: str, seconds: float
    ) -> Response:
        if self.unreadable and method == "GET" and "/jobs/" in path:
            return Response(504, b"{}")
        return await super().request(method, path, query=query, body=body, content_type=content_type, seconds=seconds)


@pytest.mark.parametrize("created", [True, False])
async def test_unknown_outcome_is_resolved_by_a_repetition_during_a_stop(created: bool) -> None:
    def time_out() -> Response:
        raise AmbiguousOutcome("no answer within 2.5 s")

    kubernetes = UnreadableJobs({"runway-vision", "runway-speech", "runway-research"})
    async with serve(kubernetes) as runway:
        kubernetes.mute = True
        (kubernetes.after_create if created else kubernetes.before_create).append(time_out)
        first = await runway.submit(headers=KEY, **REQUEST)
        assert (first.status_code, first.json()["code"]) == (503, "outcome_unknown")
        kubernetes.annotate_lease(submissions_stopped="maintenance")

        async def stopped() -> bool:
            return bool((await runway.client.get("/readyz")).json()["submissions"] == "stopped")

        await runway.until(stopped)
        assert (await runway.submit(headers=KEY, **REQUEST)).json()["code"] == "outcome_unknown"
        kubernetes.unreadable = False
        again = await runway.submit(headers=KEY, **REQUEST)
        if created:
            assert_replayed(again, first.json()["id"])
        else:
            assert again.json()["code"] == "submissions_stopped"


# Jobs of version 0.7


@pytest.fixture
async def upgraded(kubernetes: FakeKubernetes) -> AsyncIterator[Runway]:
    """Start on a cluster with the Jobs of 0.7. Defaults, images and pools have changed since."""
    for old in JOBS.values():
        kubernetes.put("jobs", old.manifest, "ADDED")
    async with serve(kubernetes, policy=policy(*EVERYTHING)) as running:
        yield running


async def _repeat(runway: Runway, old: JobOf07, **change: Any) -> httpx2.Response:
    headers = {"X-Tenant-ID": TENANT, "Idempotency-Key": old.key}
    return await runway.client.post("/v1/jobs", json={**old.request, **change}, headers=headers)


@pytest.mark.parametrize("old", JOBS.values(), ids=lambda old: old.key)
async def test_repetition_of_a_submission_to_0_7_gets_its_job(upgraded: Runway, old: JobOf07) -> None:
    assert_replayed(await _repeat(upgraded, old), old.name)
    for change in ({"image": "docker.io/library/other:1"}, {"user": 1000}, {"timeout_seconds": 1801}):
        assert (await _repeat(upgraded, old, **change)).json()["code"] == "idempotency_conflict"
    assert len(upgraded.kubernetes.objects["jobs"]) == len(JOBS)


@pytest.mark.parametrize("stored", ["", "{", '{"resources": []}', "[" * 10_000])
async def test_damaged_job_of_0_7_is_a_conflict_for_its_key_alone(kubernetes: FakeKubernetes, stored: str) -> None:
    damaged, intact = JOBS["minimal"], JOBS["money"]
    manifest = damaged.manifest
    manifest["metadata"]["annotations"] = {**damaged.annotations, ANNOTATION_SPEC: stored}
    kubernetes.put("jobs", manifest, "ADDED")
    kubernetes.put("jobs", intact.manifest, "ADDED")
    async with serve(kubernetes) as runway:
        assert (await _repeat(runway, damaged)).json()["code"] == "idempotency_conflict"
        assert_replayed(await _repeat(runway, intact), intact.name)


async def test_job_of_a_later_version_is_answered_after_a_roll_back(kubernetes: FakeKubernetes, before: str) -> None:
    """A later version stores fields that this one does not know. They are in the request, too."""
    later = kubernetes.job(before)
    notes = later["metadata"]["annotations"]
    notes[ANNOTATION_SPEC] = json.dumps({**json.loads(notes[ANNOTATION_SPEC]), "a_later_field": {"of": ["1"]}})
    kubernetes.put("jobs", later, "MODIFIED")
    assert len(notes[ANNOTATION_REQUEST_HASH]) == 64
    async with serve(kubernetes, instance="two") as runway:
        assert_replayed(await runway.submit(headers=KEY, **REQUEST), before)
        answer = await runway.submit(headers=KEY, **REQUEST, a_later_field={"of": ["1"]})
        assert answer.json()["code"] == "idempotency_conflict"
