"""One Runway on a fake API server for each test, driven over HTTP in process."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import httpx2
import pytest
from fastapi import FastAPI

from runway.app import create_app
from runway.policy import Policy, load_policy
from runway.settings import Settings
from testbed.waiting import GUARD_SECONDS
from tests.support.fake_cluster import FakeKubernetes
from tests.support.streaming_client import StreamingClient
from tests.support.virtual_time import VirtualLoop

POLICY = Path(__file__).parents[2] / "config" / "policy.local.yaml"
LOCAL = load_policy(POLICY)
"""Read once: it is frozen, and every test asks for it."""


class Runway:
    """A running app and the fake cluster under it."""

    def __init__(self, app: FastAPI, client: httpx2.AsyncClient, kubernetes: FakeKubernetes) -> None:
        self.app = app
        self.client = client
        self.kubernetes = kubernetes

    async def submit(
        self, tenant: str = "vision", headers: dict[str, str] | None = None, **spec: Any
    ) -> httpx2.Response:
        """POST a small valid job, changed by `spec`."""
        return await self.client.post("/v1/jobs", json=job(**spec), headers={"X-Tenant-ID": tenant, **(headers or {})})

    async def cancel(self, job_id: str, tenant: str = "vision") -> httpx2.Response:
        """DELETE a job as this tenant."""
        return await self.client.delete(f"/v1/jobs/{job_id}", headers={"X-Tenant-ID": tenant})

    def stream(self, path: str, **headers: str) -> StreamingClient:
        """GET a path, and read the answer as it comes."""
        return StreamingClient(self.app, path, headers)

    async def until_state(self, job_id: str, state: str) -> dict[str, Any]:
        """Return the view of a job once it is in this state."""

        async def reached() -> dict[str, Any] | None:
            view = await self.view(job_id)
            return view if view["state"] == state else None

        return dict(await self.until(reached))

    async def view(self, job_id: str) -> dict[str, Any]:
        """Return the view of a job."""
        return dict((await self.client.get(f"/v1/jobs/{job_id}")).json())

    async def quota(self, tenant: str = "vision") -> dict[str, Any]:
        """Return a tenant's quota."""
        answer = await self.client.get("/v1/quota", headers={"X-Tenant-ID": tenant})
        return dict(answer.json()["tenants"][0])

    async def until(self, condition: Callable[[], Any]) -> Any:
        """Wait until an async condition is true; the events of the fake need a few turns of the loop to arrive."""
        async with asyncio.timeout(GUARD_SECONDS):
            while not (result := await condition()):  # noqa: ASYNC110 (what is waited for is seen over HTTP)
                await asyncio.sleep(0.02)
        return result


def job(**changes: Any) -> dict[str, Any]:
    """Return a small valid spec."""
    resources = {"cpu": "100m", "memory": "64Mi", **changes.pop("resources", {})}
    return {"image": "runway.local/busybox:1", "command": ["true"], "resources": resources, **changes}


@asynccontextmanager
async def serve(
    kubernetes: FakeKubernetes,
    *,
    until: str | None = "writer",
    policy: Policy | None = None,
    **settings: Any,
) -> AsyncIterator[Runway]:
    """Runway on this API server, once it is ready in this role; at once with None."""
    clock = asyncio.get_running_loop().time
    app = create_app(Settings(policy=POLICY, **settings), policy or LOCAL, kubernetes, clock=clock)
    async with app.router.lifespan_context(app):
        transport = httpx2.ASGITransport(app=app, raise_app_exceptions=False)
        async with httpx2.AsyncClient(transport=transport, base_url="http://runway") as client:
            runway = Runway(app, client, kubernetes)

            async def ready() -> bool:
                return bool((await client.get("/readyz")).json().get("role") == until)

            if until:
                await runway.until(ready)
            yield runway


@pytest.fixture(scope="module")
def anyio_backend() -> tuple[str, dict[str, Any]]:
    """Use a loop in virtual time, so that pauses take no real time."""
    return "asyncio", {"loop_factory": VirtualLoop}


@pytest.fixture
def kubernetes() -> FakeKubernetes:
    return FakeKubernetes({tenant.namespace for tenant in LOCAL.tenants.values()})


@pytest.fixture
async def runway(kubernetes: FakeKubernetes) -> AsyncIterator[Runway]:
    async with serve(kubernetes) as running:
        yield running
