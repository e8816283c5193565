"""Volumes, Secrets and images that the policy gives to one tenant."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import pytest

from runway.policy import Policy, parse_policy
from tests.api.conftest import POLICY, Runway, serve
from tests.support.fake_cluster import FakeKubernetes

RATE = "rate: {per_minute: 600, burst: 100}"
OWN = """rate: {per_minute: 600, burst: 100},
    volumes: {datasets: {claim: datasets-v2, path: /data, read_only: true}},
    secrets: [huggingface], image_pull_secrets: [registry-credentials],
    service_account: {annotations: {"eks.amazonaws.com/role-arn": "arn:aws:iam::123456789012:role/vision"}},
    images: {allow: ["registry.example.com/vision/*"]}"""
IMAGE = "registry.example.com/vision/train:1"
TOKEN = {"HF_TOKEN": "huggingface/token"}


def own_policy() -> Policy:
    """Return the local policy, in which tenant vision has these volumes, Secrets and images, and no others."""
    lines = POLICY.read_text(encoding="utf-8").splitlines(keepends=True)
    at = next(number for number, line in enumerate(lines) if line.startswith("  vision:"))
    lines[at] = (
        '  vision: {namespace: runway-vision, quota: {gpu: 4, cpu: "32", memory: 128Gi, jobs: 100}, ' + OWN + "}\n"
    )
    return parse_policy("".join(lines))


@pytest.fixture
async def runway(kubernetes: FakeKubernetes) -> AsyncIterator[Runway]:
    async with serve(kubernetes, policy=own_policy()) as running:
        yield running


async def test_job_mounts_its_volumes_and_refers_to_its_secrets(runway: Runway) -> None:
    answer = await runway.submit(image=IMAGE, volumes=["datasets"], secrets=TOKEN)
    assert answer.status_code == 201
    spec = answer.json()["spec"]
    assert (spec["volumes"], spec["secrets"]) == (["datasets"], TOKEN)

    pod = runway.kubernetes.job(answer.json()["id"])["spec"]["template"]["spec"]
    (container,) = pod["containers"]
    assert {"name": "claim-datasets", "mountPath": "/data", "readOnly": True} in container["volumeMounts"]
    reference = {"secretKeyRef": {"name": "huggingface", "key": "token"}}
    assert {"name": "HF_TOKEN", "valueFrom": reference} in container["env"]
    assert pod["serviceAccountName"] == "runway-job"


async def test_names_of_another_tenant_and_credentials_are_refused_at_once(runway: Runway) -> None:
    answer = await runway.submit(
        "speech", image=IMAGE, volumes=["datasets"], secrets=TOKEN, env={"DB_PASSWORD": "..geheim.."}
    )
    assert answer.status_code == 422
    assert {(each["field"], each["code"]) for each in answer.json()["violations"]} == {
        ("image", "image_not_allowed"),
        ("volumes[0]", "unknown_volume"),
        ("secrets[HF_TOKEN]", "unknown_secret"),
        ("env[DB_PASSWORD]", "secret_in_env"),
    }
    assert "geheim" not in answer.text
    assert runway.kubernetes.objects["jobs"] == {}


async def test_dry_run_applies_the_same_rules(runway: Runway) -> None:
    body = {"image": IMAGE, "resources": {"cpu": "100m", "memory": "64Mi"}, "volumes": ["models"]}
    answer = await runway.client.post("/v1/jobs?dry_run=true", json=body, headers={"X-Tenant-ID": "vision"})
    assert [each["code"] for each in answer.json()["violations"]] == ["unknown_volume"]


async def read_policy(runway: Runway, **headers: str) -> Any:
    answer = await runway.client.get("/v1/policy", headers={name.replace("_", "-"): v for name, v in headers.items()})
    assert answer.status_code == 200
    return answer.json()


async def test_policy_shows_names_only_to_their_tenant(runway: Runway) -> None:
    tenants = (await read_policy(runway, X_Tenant_ID="vision"))["tenants"]
    assert tenants["vision"]["own"] == {
        "volumes": {"datasets": {"path": "/data", "read_only": True}},
        "secrets": ["huggingface"],
        "images": {"allow": ["registry.example.com/vision/*"]},
    }
    assert tenants["speech"]["own"] is None
    for headers in ({}, {"X_Tenant_ID": "speech"}):
        text = str((await read_policy(runway, **headers))["tenants"]["vision"])
        assert not [name for name in ("datasets", "huggingface", "registry") if name in text]


async def test_policy_shows_nobody_claims_roles_and_pull_secrets(runway: Runway) -> None:
    text = str(await read_policy(runway, X_Tenant_ID="vision"))
    assert not [name for name in ("datasets-v2", "123456789012", "registry-credentials") if name in text]


async def test_tenant_without_images_of_its_own_sees_the_common_ones(runway: Runway) -> None:
    policy = await read_policy(runway, X_Tenant_ID="speech")
    assert policy["tenants"]["speech"]["own"] == {"volumes": {}, "secrets": [], "images": policy["images"]}


@pytest.mark.parametrize(("tenant", "status"), [("nobody", 403), ("No Body", 400)])
async def test_policy_refuses_an_unknown_tenant(tenant: str, status: int, runway: Runway) -> None:
    assert (await runway.client.get("/v1/policy", headers={"X-Tenant-ID": tenant})).status_code == status


async def test_page_of_a_job_shows_volumes_and_references(runway: Runway) -> None:
    job_id = (await runway.submit(image=IMAGE, volumes=["datasets"], secrets=TOKEN)).json()["id"]
    page = (await runway.client.get(f"/jobs/{job_id}")).text
    assert "<code>datasets</code>" in page
    assert "<code>HF_TOKEN=huggingface/token</code>" in page


async def test_job_that_waits_for_its_secret_says_so(runway: Runway) -> None:
    job_id = (await runway.submit(image=IMAGE, secrets=TOKEN)).json()["id"]
    pod = runway.kubernetes.start_pod(job_id, running=False)
    waiting = {"reason": "CreateContainerConfigError", "message": 'secret "huggingface" not found'}
    status = {"phase": "Pending", "containerStatuses": [{"name": "job", "state": {"waiting": waiting}}]}
    runway.kubernetes.set_status(pod, status)

    async def waits_for_secret() -> Any:
        conditions = (await runway.view(job_id))["conditions"]
        return next((found for found in conditions if found["code"] == "secret_missing"), None)

    found = await runway.until(waits_for_secret)
    assert found["message"] == "Secret huggingface does not exist in namespace runway-vision"
