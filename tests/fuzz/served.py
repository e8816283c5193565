"""`python -m tests.fuzz.served PORT`: Runway on a fake cluster. The jobs live and end by themselves."""

from __future__ import annotations

import asyncio
import sys
import time
from pathlib import Path

import uvicorn

from runway.app import create_app
from runway.http.malformed import guard_server
from runway.jobs.identity import ANNOTATION_CANCELLED_AT
from runway.policy import Policy, Quota, TenantRate, load_policy
from runway.settings import Settings
from runway.telemetry.logs import configure
from tests.support.fake_cluster import FakeKubernetes, Json

POLICY = Path(__file__).parents[2] / "config" / "policy.local.yaml"
RUN_SECONDS = 0.15
HEAD_SECONDS = 2.0
"""How long the head of a request may take here."""


def roomy() -> Policy:
    """The local policy, with room for whatever a fuzzer submits: what is looked for is behind quota and rate."""
    policy = load_policy(POLICY)
    room = Quota.model_validate({"gpu": 100_000, "cpu": "1000000", "memory": "100Ti", "jobs": 100_000})
    fast = {"per_minute": 1_000_000, "burst": 1_000_000}
    rate = TenantRate.model_validate({**fast, "reads": fast, "streams": 1000})
    images = policy.images.model_copy(update={"allow": (*policy.images.allow, "registry.example.com/teams/*")})
    tenants = {name: one.model_copy(update={"quota": room, "rate": rate}) for name, one in policy.tenants.items()}
    return policy.model_copy(update={"tenants": tenants, "images": images})


class Controllers:
    """Scheduler, kubelet and Job controller in one: each job starts, writes a line, and ends after a moment."""

    def __init__(self, kubernetes: FakeKubernetes) -> None:
        self._kubernetes = kubernetes
        self._started: dict[str, tuple[str, float]] = {}
        self._over: set[str] = set()

    async def run(self) -> None:
        """Look at every job again and again, until cancelled."""
        while True:
            for job in list(self._kubernetes.objects["jobs"].values()):
                if job["metadata"]["name"] not in self._over:
                    self._step(job)
            await asyncio.sleep(0.02)

    def _step(self, job: Json) -> None:
        name = job["metadata"]["name"]
        cancelled = ANNOTATION_CANCELLED_AT in job["metadata"]["annotations"]
        if name not in self._started:
            if not cancelled:
                pod = self._kubernetes.start_pod(name)
                self._kubernetes.logs[pod] = b"2026-11-24T08:00:00.000000000Z hello\n"
                self._started[name] = pod, time.monotonic()
                return
        elif cancelled or time.monotonic() - self._started[name][1] > RUN_SECONDS:
            self._kubernetes.end_pod(self._started[name][0], 143 if cancelled else 0)
        else:
            return
        self._over.add(name)
        if cancelled:
            self._kubernetes.fail(name, "DeadlineExceeded")
        else:
            self._kubernetes.complete(name)


async def main(port: int) -> None:
    """Serve until told to end."""
    configure("INFO")
    guard_server(seconds=HEAD_SECONDS)
    kubernetes = FakeKubernetes({tenant.namespace for tenant in load_policy(POLICY).tenants.values()})
    app = create_app(Settings(policy=POLICY, drain_seconds=0), roomy(), kubernetes)
    server = uvicorn.Server(uvicorn.Config(app, host="127.0.0.1", port=port, access_log=False, log_config=None))
    controllers = asyncio.create_task(Controllers(kubernetes).run())
    try:
        await server.serve()
    finally:
        controllers.cancel()


if __name__ == "__main__":
    asyncio.run(main(int(sys.argv[1])))
