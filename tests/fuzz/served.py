"""Runway on a fake cluster: `python -m tests.fuzz.served PORT [BOUNDS]`. Jobs run and end.

BOUNDS is a JSON object of fields of `runway.http_server.bounds.Bounds`, which override those of this module.
"""

from __future__ import annotations

import asyncio
import json
import sys
import time
from dataclasses import replace
from pathlib import Path
from typing import Any, cast

import uvicorn

from runway.app import create_app
from runway.http_server.bounds import Bounds
from runway.http_server.protocol import BoundedHttpProtocol
from runway.jobs.annotations import ANNOTATION_CANCELLED_AT
from runway.policy import Policy, Quota, TenantRate, load_policy
from runway.settings import Settings
from runway.telemetry import configure_logging
from tests.support.fake_cluster import FakeKubernetes, Json

POLICY = Path(__file__).parents[2] / "config" / "policy.local.yaml"
RUN_SECONDS = 0.15
BOUNDS = Bounds(
    head_seconds=2,
    request_seconds=5,
    idle_seconds=1,
    linger_seconds=5,
    discard_seconds=5,
    stalled_seconds=3,
    max_connections=200,
)
"""Short times and few connections."""


def permissive_policy() -> Policy:
    """Return the local policy with high quotas and rates, so that the fuzzer reaches the code behind them."""
    policy = load_policy(POLICY)
    quota = Quota.model_validate({"gpu": 100_000, "cpu": "1000000", "memory": "100Ti", "jobs": 100_000})
    fast = {"per_minute": 1_000_000, "burst": 1_000_000}
    rate = TenantRate.model_validate({**fast, "reads": fast, "streams": 1000})
    images = policy.images.model_copy(update={"allow": (*policy.images.allow, "registry.example.com/teams/*")})
    tenants = {name: one.model_copy(update={"quota": quota, "rate": rate}) for name, one in policy.tenants.items()}
    return policy.model_copy(update={"tenants": tenants, "images": images})


class Controllers:
    """Scheduler, kubelet and Job controller: each job starts, writes a line, and succeeds after `RUN_SECONDS`.

    A job with the command `sleep` runs until its cancellation.
    """

    def __init__(self, kubernetes: FakeKubernetes) -> None:
        self._kubernetes = kubernetes
        self._started: dict[str, tuple[str, float]] = {}
        self._finished: set[str] = set()

    async def run(self) -> None:
        """Advance every job until cancelled."""
        while True:
            for job in list(self._kubernetes.objects["jobs"].values()):
                if job["metadata"]["name"] not in self._finished:
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
        elif cancelled or (not _sleeps(job) and time.monotonic() - self._started[name][1] > RUN_SECONDS):
            self._kubernetes.end_pod(self._started[name][0], 143 if cancelled else 0)
        else:
            return
        self._finished.add(name)
        if cancelled:
            self._kubernetes.fail(name, "DeadlineExceeded")
        else:
            self._kubernetes.complete(name)


def _sleeps(job: Json) -> bool:
    command = job["spec"]["template"]["spec"]["containers"][0].get("command", [])
    return bool(command[:1] == ["sleep"])


async def main(port: int, changes: dict[str, Any]) -> None:
    """Serve until a signal."""

    class Protocol(BoundedHttpProtocol):
        bounds = replace(BOUNDS, **changes)

    configure_logging("INFO")
    kubernetes = FakeKubernetes({tenant.namespace for tenant in load_policy(POLICY).tenants.values()})
    app = create_app(Settings(policy=POLICY), permissive_policy(), kubernetes)
    config = uvicorn.Config(
        app,
        host="127.0.0.1",
        port=port,
        access_log=False,
        log_config=None,
        http=cast("Any", Protocol),
        ws="none",
    )
    server = uvicorn.Server(config)
    controllers = asyncio.create_task(Controllers(kubernetes).run())
    try:
        await server.serve()
    finally:
        controllers.cancel()


if __name__ == "__main__":
    # The event loop of the uvicorn command.
    with asyncio.Runner(loop_factory=uvicorn.Config("unused").get_loop_factory()) as runner:
        runner.run(main(int(sys.argv[1]), json.loads(sys.argv[2]) if len(sys.argv) > 2 else {}))
