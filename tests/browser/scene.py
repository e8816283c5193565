"""A believable cluster for the console: jobs in every state, nodes, logs.

`python -m tests.browser.scene` saves screenshots of every page in `.local/screenshots`, without a cluster.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any, Final

from playwright.sync_api import Browser, expect

from tests.api.conftest import Runway
from tests.browser.conftest import Served
from tests.support.chromium import NARROW, SCREENSHOTS, WIDE, Watched, chromium
from tests.support.environment_fixtures import put_node
from tests.support.fake_logs import FakeLog

A10G: Final = {"runway.local/gpu-type": "a10g"}
TRAINING_LOG: Final = [f"epoch {n:>3}/90  loss {2.4 / (1 + n / 9):.4f}  312 images/s".encode() for n in range(1, 61)]


@dataclass(frozen=True)
class Scene:
    """The ids of jobs in different states."""

    succeeded: str
    failed: str
    running: str
    pending: str
    cancelled: str

    def pages(self) -> dict[str, str]:
        """Return the path of every kind of page by the name of its screenshot."""
        jobs = ("succeeded", "failed", "running", "pending", "cancelled")
        lists = {"overview": "/", "jobs": "/jobs", "capacity": "/capacity", "tenant": "/tenants/vision"}
        others = {"jobs-filtered": "/jobs?state=failed&q=train&sort=cost", "error": "/jobs/rw-aaaaaaaaaaaaaaaaaaaa"}
        return lists | others | {f"job-{name}": f"/jobs/{getattr(self, name)}" for name in jobs}


class Director:
    """Plays the controllers at chosen times: `at(40)` is forty minutes ago."""

    def __init__(self, runway: Runway) -> None:
        self.runway = runway
        self.kubernetes = runway.kubernetes

    def at(self, minutes_ago: float) -> str:
        """Set the clock of the cluster."""
        time = f"{datetime.now(UTC) - timedelta(minutes=minutes_ago):%Y-%m-%dT%H:%M:%SZ}"
        self.kubernetes.now = lambda: time
        return time

    async def submit(self, name: str, minutes_ago: float, tenant: str = "vision", **spec: Any) -> str:
        self.at(minutes_ago)
        answer = await self.runway.submit(tenant, name=name, **spec)
        assert answer.status_code == 201, answer.text
        return str(answer.json()["id"])

    def run(self, job_id: str, minutes_ago: float, lines: list[bytes], *, node: str = "cpu-1") -> str:
        """Start the next pod of a job at a time; its log has these lines."""
        started = self.at(minutes_ago)
        pod = self.kubernetes.start_pod(job_id, running=False, node=node)
        state = {"running": {"startedAt": started}}
        self.kubernetes.set_status(pod, {"phase": "Running", "containerStatuses": [{"name": "job", "state": state}]})
        log = FakeLog()
        log.write(*lines)
        self.kubernetes.logs[pod] = log
        return pod

    def end(self, pod: str, minutes_ago: float, exit_code: int = 0, reason: str | None = None) -> None:
        """End the container of a pod at a time."""
        ran = self.kubernetes.pod(pod)["status"]["containerStatuses"][0]["state"]["running"]
        ended = {
            **ran, "exitCode": exit_code, "finishedAt": self.at(minutes_ago),
            "reason": reason or ("Error" if exit_code else "Completed"),
        }  # fmt: skip
        status = [{"name": "job", "state": {"terminated": ended}}]
        self.kubernetes.set_status(pod, {"phase": "Failed" if exit_code else "Succeeded", "containerStatuses": status})
        log = self.kubernetes.logs[pod]
        assert isinstance(log, FakeLog)
        log.end()


async def play(runway: Runway) -> Scene:
    """Fill the cluster and return the jobs of the scene."""
    director, kubernetes = Director(runway), runway.kubernetes
    gpu_node = {"cpu": "4", "memory": "16Gi", "nvidia.com/gpu": "4"}
    put_node(kubernetes, "gpu-1", labels=A10G, allocatable=gpu_node)
    put_node(kubernetes, "cpu-1", allocatable={"cpu": "2", "memory": "4Gi", "nvidia.com/gpu": "0"})
    put_node(kubernetes, "cpu-2", ready=False)

    succeeded = await director.submit("prepare-data", 95)
    pod = director.run(succeeded, 94.5, [b"shard %d of 3 written" % n for n in (1, 2, 3)])
    director.end(pod, 80)
    kubernetes.complete(succeeded)

    cancelled = await director.submit("sweep-17", 64)
    pod = director.run(cancelled, 63.5, TRAINING_LOG[:9])
    await runway.until_state(cancelled, "running")
    director.at(50)
    await runway.cancel(cancelled)
    director.end(pod, 50, 143)
    kubernetes.remove_pod(pod)
    kubernetes.fail(cancelled, "DeadlineExceeded")

    failed = await director.submit("train-large-batch", 41, retries=1, command=["python", "train.py", "--batch", "512"])
    for start, end in ((40.5, 31), (30.5, 22)):
        pod = director.run(failed, start, [*TRAINING_LOG[:12], b"allocating 512 images"])
        director.end(pod, end, 137, "OOMKilled")
    kubernetes.fail(failed)
    broken = await director.submit("nightly-report", 12, "research")
    director.end(director.run(broken, 11.5, [b"KeyError: 'week'"]), 11, 1)
    kubernetes.fail(broken)

    running = await director.submit(
        "train-resnet", 34, resources={"gpu": 2, "memory": "62500Ki"}, command=["python", "train.py"],
        env={"SITE_TOKEN": "not-to-be-shown", "EPOCHS": "90"}, timeout_seconds=7200,
    )  # fmt: skip
    director.run(running, 33, TRAINING_LOG, node="gpu-1")
    other = await director.submit("transcribe", 8, "speech", resources={"gpu": 1, "cpu": "500m"})
    director.run(other, 7.5, TRAINING_LOG[:4], node="gpu-1")

    pending = await director.submit("evaluate", 5, resources={"cpu": "8"}, pool="large")
    pod = kubernetes.start_pod(pending, running=False, node=None)
    unschedulable = {
        "type": "PodScheduled", "status": "False", "reason": "Unschedulable",
        "message": "0/3 nodes are available: 3 Insufficient cpu.", "lastTransitionTime": director.at(5),
    }  # fmt: skip
    kubernetes.set_status(pod, {"phase": "Pending", "conditions": [unschedulable]})
    scene = Scene(succeeded, failed, running, pending, cancelled)
    for state in ("succeeded", "failed", "running", "pending", "cancelled"):
        await runway.until_state(getattr(scene, state), state)
    return scene


def shoot(browser: Browser, served: Served, scene: Scene) -> None:
    """Save a screenshot of every page in both widths and color schemes."""
    for scheme in ("light", "dark"):
        for width in (WIDE, NARROW):
            with Watched(browser, served.url, color_scheme=scheme, viewport={"width": width, "height": 800}) as seen:
                for name, path in scene.pages().items():
                    seen.page.goto(path)
                    expect(seen.page.get_by_role("heading", level=1)).to_be_visible()
                    seen.picture(f"{name}-{scheme}-{width}")


if __name__ == "__main__":
    with Served() as served, chromium() as browser:
        shoot(browser, served, served.run(play))
    print(SCREENSHOTS)
