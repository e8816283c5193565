"""POST /v1/jobs: responses to the caller and requests to Kubernetes."""

from __future__ import annotations

import asyncio

import pytest
import structlog
from structlog.testing import capture_logs

from runway.errors import AmbiguousOutcome, NotExecuted
from runway.kube.transport import Response
from tests.api.conftest import Runway, serve
from tests.support.fake_cluster import FakeKubernetes


async def test_valid_job_is_created_and_its_view_returned(runway: Runway) -> None:
    answer = await runway.submit(name="train", resources={"gpu": 1}, timeout_seconds=3580, grace_period_seconds=20)
    assert answer.status_code == 201
    view = answer.json()
    assert answer.headers["location"] == f"/v1/jobs/{view['id']}"
    assert view["state"] == "pending"
    assert view["name"] == "train"
    assert view["spec"]["resources"] == {
        "cpu": "100m", "memory": "64Mi", "gpu": 1, "gpu_type": "a10g", "disk": "1Gi", "shared_memory": "32Mi",
    }  # fmt: skip
    assert (view["spec"]["user"], view["spec"]["working_dir"]) == (1000, None)
    assert view["cost"]["ceiling"] == view["cost"]["hourly"]
    assert view["kubernetes"] == {"namespace": "runway-vision", "job": view["id"]}
    assert runway.kubernetes.job(view["id"])["spec"]["activeDeadlineSeconds"] == 3580


async def test_accepted_submission_is_one_log_line_with_tenant_and_job(runway: Runway) -> None:
    with capture_logs(processors=[structlog.contextvars.merge_contextvars]) as lines:
        first = await runway.submit(headers={"Idempotency-Key": "one"})
        await runway.submit(headers={"Idempotency-Key": "one"})
        await runway.client.get("/v1/quota", headers={"X-Tenant-ID": "vision"})
    found = [
        (line["event"], line["status"], line.get("tenant"), line.get("decision"), line.get("job_id")) for line in lines
    ]
    job_id = first.json()["id"]
    assert found == [
        ("request", 201, "vision", "created", job_id),
        ("request", 200, "vision", "replayed", job_id),
        ("request", 200, None, None, None),
    ]


async def test_storage_user_and_working_directory_reach_the_pod(runway: Runway) -> None:
    answer = await runway.submit(
        working_dir="/scratch/$(HOME)", user=65_532, resources={"disk": "2Gi", "shared_memory": "64Mi"}
    )
    assert answer.status_code == 201
    view = answer.json()
    pod = runway.kubernetes.job(view["id"])["spec"]["template"]["spec"]
    (container,) = pod["containers"]
    assert (view["spec"]["working_dir"], container["workingDir"]) == ("/scratch/$(HOME)", "/scratch/$(HOME)")
    assert (view["spec"]["user"], pod["securityContext"]["runAsUser"]) == (65_532, 65_532)
    assert (view["spec"]["resources"]["disk"], container["resources"]["limits"]["ephemeral-storage"]) == ("2Gi", "2Gi")
    assert [volume["emptyDir"]["sizeLimit"] for volume in pod["volumes"]] == ["2Gi", "64Mi"]


async def test_submitted_job_is_visible_and_counts_at_once(runway: Runway) -> None:
    job_id = (await runway.submit(resources={"gpu": 3})).json()["id"]
    assert (await runway.view(job_id))["id"] == job_id
    quota = await runway.quota()
    assert (quota["used"]["gpu"], quota["reserved"]["gpu"]) == (3, 0)
    assert [holder["id"] for holder in quota["jobs"]] == [job_id]


async def test_job_over_quota_is_refused_with_the_jobs_that_use_it(runway: Runway) -> None:
    holder = (await runway.submit(name="train", resources={"gpu": 3})).json()["id"]
    answer = await runway.submit(resources={"gpu": 2})
    assert answer.status_code == 403
    problem = answer.json()
    assert problem["code"] == "quota_exceeded"
    assert (problem["held_by"], problem["held_by_names"]) == ([holder], {holder: "train"})
    assert [job["name"] for job in (await runway.quota())["jobs"]] == ["train"]
    assert problem["quota"]["used"]["gpu"] == 3
    assert problem["quota"]["requested"]["gpu"] == 2
    assert problem["violations"][0]["limit"] == "4"
    assert len(runway.kubernetes.objects["jobs"]) == 1


async def test_concurrent_submissions_never_exceed_the_quota(runway: Runway) -> None:
    answers = await asyncio.gather(*(runway.submit(resources={"gpu": 1}) for _ in range(20)))
    assert sorted(answer.status_code for answer in answers) == [201] * 4 + [403] * 16
    assert len(runway.kubernetes.objects["jobs"]) == 4


async def test_all_violations_come_at_once_and_nothing_is_created(runway: Runway) -> None:
    answer = await runway.submit(
        name="bad\nname", image="evil.example/x", timeout_seconds=0, surprise=1, resources={"cpu": "1_000", "gpu": 9}
    )
    assert answer.status_code == 422
    assert answer.headers["content-type"] == "application/problem+json"
    problem = answer.json()
    assert problem["code"] == "invalid_spec"
    assert {item["field"] for item in problem["violations"]} == {
        "name", "image", "timeout_seconds", "surprise", "resources.cpu", "resources.gpu",
    }  # fmt: skip
    assert ("POST", "/apis/batch/v1/namespaces/runway-vision/jobs") not in runway.kubernetes.calls


async def test_rate_limited_tenant_gets_retry_after(runway: Runway) -> None:
    answers = [await runway.submit("speech") for _ in range(6)]
    assert [answer.status_code for answer in answers] == [201] * 5 + [429]
    assert answers[-1].json()["code"] == "rate_limited"
    assert 1 <= int(answers[-1].headers["retry-after"]) <= 10
    assert (await runway.submit("vision")).status_code == 201


async def test_invalid_spec_does_not_count_against_the_rate(runway: Runway) -> None:
    for _ in range(10):
        assert (await runway.submit("speech", image="Not An Image")).status_code == 422
    assert (await runway.submit("speech")).status_code == 201


async def test_same_key_and_spec_is_answered_with_the_first_job(runway: Runway) -> None:
    key = {"Idempotency-Key": "run-42"}
    first = await runway.submit(headers=key)
    again = await runway.submit(headers=key)
    assert (first.status_code, again.status_code) == (201, 200)
    assert again.headers["idempotent-replay"] == "true"
    assert again.json()["id"] == first.json()["id"]


async def test_same_key_with_another_spec_is_a_conflict(runway: Runway) -> None:
    key = {"Idempotency-Key": "run-42"}
    await runway.submit(headers=key)
    answer = await runway.submit(headers=key, timeout_seconds=7)
    assert (answer.status_code, answer.json()["code"]) == (409, "idempotency_conflict")


async def test_same_key_of_another_tenant_is_another_job(runway: Runway) -> None:
    key = {"Idempotency-Key": "run-42"}
    one, other = await runway.submit(headers=key), await runway.submit("research", headers=key)
    assert one.json()["id"] != other.json()["id"]


async def test_concurrent_identical_requests_create_one_job(runway: Runway) -> None:
    answers = await asyncio.gather(
        *(runway.submit(headers={"Idempotency-Key": "k"}, resources={"gpu": 1}) for _ in range(50))
    )
    assert sorted({answer.status_code for answer in answers}) == [200, 201]
    assert sum(answer.status_code == 201 for answer in answers) == 1
    assert len({answer.json()["id"] for answer in answers}) == 1
    assert (await runway.quota())["used"]["gpu"] == 1


async def test_create_that_was_not_sent_releases_the_reservation(runway: Runway) -> None:
    def refuse() -> Response:
        raise NotExecuted("no connection")

    runway.kubernetes.before_create.append(refuse)
    answer = await runway.submit(resources={"gpu": 1})
    assert (answer.status_code, answer.json()["code"]) == (503, "kubernetes_unavailable")
    assert int(answer.headers["retry-after"]) > 0
    assert (await runway.quota())["reserved"]["gpu"] == 0


async def test_conflict_on_create_releases_the_reservation(runway: Runway) -> None:
    """A changed ResourceQuota makes the API server answer a create with 409 Conflict: there is no Job."""
    status = b'{"kind": "Status", "code": 409, "reason": "Conflict", "message": "the object has been modified"}'
    runway.kubernetes.before_create.append(lambda: Response(409, status))
    answer = await runway.submit(resources={"gpu": 3})
    assert (answer.status_code, answer.json()["code"]) == (503, "kubernetes_unavailable")
    assert (await runway.quota())["reserved"]["gpu"] == 0
    assert (await runway.submit(resources={"gpu": 3})).status_code == 201


async def test_create_of_an_existing_job_is_answered_as_a_replay(runway: Runway) -> None:
    """Another process created the job, and the watch has not reported it yet."""
    key = {"Idempotency-Key": "k"}
    first = (await runway.submit(headers=key, resources={"gpu": 1})).json()
    job = runway.kubernetes.job(first["id"])
    runway.kubernetes.delete_job(first["id"])
    await runway.until(lambda: _uses_no_gpu(runway))

    def create_elsewhere() -> None:
        runway.kubernetes.put("jobs", job, "ADDED")

    runway.kubernetes.before_create.append(create_elsewhere)
    answer = await runway.submit(headers=key, resources={"gpu": 1})
    assert (answer.status_code, answer.headers["idempotent-replay"]) == (200, "true")
    assert answer.json()["id"] == first["id"]
    quota = await runway.quota()
    assert (quota["used"]["gpu"], quota["reserved"]["gpu"]) == (1, 0)


async def _uses_no_gpu(runway: Runway) -> bool:
    return bool((await runway.quota())["used"]["gpu"] == 0)


async def test_ambiguous_create_that_happened_is_read_back(runway: Runway) -> None:
    def time_out() -> Response:
        raise AmbiguousOutcome("no answer within 2.5 s")

    runway.kubernetes.after_create.append(time_out)
    answer = await runway.submit(resources={"gpu": 2})
    assert answer.status_code == 201
    quota = await runway.quota()
    assert (quota["used"]["gpu"], quota["reserved"]["gpu"]) == (2, 0)


async def test_unknown_outcome_keeps_the_reservation_and_names_the_id(runway: Runway) -> None:
    def vanish() -> Response:
        runway.kubernetes.go_down()
        raise AmbiguousOutcome("no answer within 2.5 s")

    runway.kubernetes.before_create.append(vanish)
    answer = await runway.submit(resources={"gpu": 3}, headers={"Idempotency-Key": "k"})
    problem = answer.json()
    assert (answer.status_code, problem["code"]) == (503, "outcome_unknown")
    quota = await runway.quota()
    assert (quota["used"]["gpu"], quota["reserved"]["gpu"]) == (0, 3)
    runway.kubernetes.come_back()
    assert (await runway.submit(resources={"gpu": 3})).json()["code"] == "quota_exceeded"
    retried = await runway.submit(resources={"gpu": 3}, headers={"Idempotency-Key": "k"})
    assert (retried.status_code, retried.json()["id"]) == (201, problem["id"])
    quota = await runway.quota()
    assert (quota["used"]["gpu"], quota["reserved"]["gpu"]) == (3, 0)


async def test_missing_tenant_namespace_is_named(kubernetes: FakeKubernetes) -> None:
    kubernetes.namespaces.discard("runway-vision")
    async with serve(kubernetes) as runway:
        answer = await runway.submit()
    assert answer.status_code == 503
    assert "runway-vision does not exist" in answer.json()["detail"]


async def test_api_server_error_is_never_a_500(runway: Runway) -> None:
    for status in (400, 401, 403, 422, 429, 500, 502, 504):
        runway.kubernetes.before_create.append(lambda status=status: Response(status, b"<html>not json</html>"))  # type: ignore[misc]
        answer = await runway.submit()
        assert answer.status_code == 503, status
        assert answer.headers["retry-after"]


@pytest.mark.parametrize(("characters", "status"), [(35_000, 201), (36_000, 422), (43_000, 422)])
async def test_spec_that_fits_its_annotation_is_created_and_a_larger_one_is_invalid(
    runway: Runway, characters: int, status: int
) -> None:
    """Control characters have six bytes in JSON, and Kubernetes limits all annotations to 256 KiB."""
    texts = ["\x01" * (characters // 2)]
    answer = await runway.submit(command=texts, args=texts)
    assert answer.status_code == status
    if status == 422:
        [violation] = answer.json()["violations"]
        assert (violation["field"], violation["code"]) == ("body", "too_large")
        assert violation["limit"] == "212992 bytes"


async def test_dry_run_decides_and_prices_without_creating(runway: Runway) -> None:
    answer = await runway.client.post(
        "/v1/jobs?dry_run=true",
        json={"image": "runway.local/busybox:1", "resources": {"cpu": "500m", "memory": "1Gi", "gpu": 1}},
        headers={"X-Tenant-ID": "vision"},
    )
    document = answer.json()
    assert answer.status_code == 200
    assert (document["decision"], document["violations"]) == ("admitted", [])
    assert document["cost"]["rate_card"].startswith("a10g/")
    assert document["manifest"]["kind"] == "Job"
    assert document["warnings"] == ['299 - "a warning of the API server"']
    assert runway.kubernetes.objects["jobs"] == {}
    assert (await runway.quota())["reserved"]["gpu"] == 0


async def test_dry_run_of_invalid_spec_lists_violations(runway: Runway) -> None:
    answer = await runway.client.post(
        "/v1/jobs?dry_run=true", json={"image": "evil.example/x"}, headers={"X-Tenant-ID": "vision"}
    )
    assert (answer.status_code, answer.json()["decision"]) == (200, "refused")
    assert {item["field"] for item in answer.json()["violations"]} == {"image", "resources.cpu", "resources.memory"}
