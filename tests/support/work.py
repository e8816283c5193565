"""How much work Runway does for one request or one event, counted instead of timed: the same on every machine.

A unit of work is one call of a function, Python's or C's, made anywhere in the process: Runway, the framework, the
libraries. What the fake API server and the event loop itself do is left out.

Run as a program it prints the counts; `--write` makes them the budget of `tests/api/test_work_budget.py`. The test runs
it as a program too, since logging is set up here as a server does it, and counting begins where nothing else has run.
"""

from __future__ import annotations

import asyncio
import gc
import json
import sys
import tempfile
from collections.abc import Awaitable, Callable, Mapping
from contextlib import redirect_stdout
from pathlib import Path
from types import FrameType
from typing import Any, Final

from starlette.types import ASGIApp, Message

from runway.app import create_app
from runway.policy import Policy, load_policy
from runway.settings import Settings
from runway.telemetry.logging import configure
from tests.support import fake_cluster, virtual_time
from tests.support.fake_cluster import FakeKubernetes
from tests.support.virtual_time import VirtualLoop

ROOT: Final = Path(__file__).parents[2]
BUDGET: Final = ROOT / "tests" / "api" / "work_budget.json"
POLICY: Final = ROOT / "bench" / "policy.yaml"
FEW, MANY = 100, 1000
"""Jobs in the store while the work is counted."""
GROWING: Final = ("look for a state that no job has", "tell a tenant's quota and its holders")
"""What must look at each job there is, or tell of each; it has a budget all the same."""

_QUIET_TURNS: Final = 60
"""More turns of the loop than anything here needs until all of its work is done."""
_FAKE: Final = fake_cluster.__file__
_LOOP: Final = (asyncio.base_events.__file__, asyncio.events.__file__, virtual_time.__file__, __file__)
_SPEC: Final = {
    "name": "train-resnet",
    "image": "runway.local/busybox:1",
    "command": ["python", "train.py"],
    "env": {"EPOCHS": "3"},
    "resources": {"cpu": "100m", "memory": "64Mi"},
    "timeout_seconds": 600,
}


def measured() -> dict[str, dict[str, int]]:
    """Calls by what was done, with few jobs in the store and with many."""
    return {str(jobs): _with_jobs(jobs) for jobs in (FEW, MANY)}


class _Calls:
    """Counts the calls made while it is used as a context manager."""

    def __init__(self) -> None:
        self.number = 0

    def __enter__(self) -> _Calls:
        gc.collect()
        gc.disable()  # What it would call, and when, depends on everything that ran before.
        sys.setprofile(self._count)
        return self

    def __exit__(self, *_: object) -> None:
        sys.setprofile(None)
        gc.enable()

    def _count(self, frame: FrameType, event: str, _: object) -> None:
        if event in ("call", "c_call") and frame.f_code.co_filename not in _LOOP and not _in_the_fake(frame):
            self.number += 1


def _in_the_fake(frame: FrameType | None) -> bool:
    while frame is not None:
        if frame.f_code.co_filename == _FAKE:
            return True
        frame = frame.f_back
    return False


def _with_jobs(jobs: int) -> dict[str, int]:
    policy = load_policy(POLICY)
    kubernetes = FakeKubernetes({tenant.namespace for tenant in policy.tenants.values()})
    loop = VirtualLoop()
    try:
        with asyncio.Runner(loop_factory=lambda: loop):
            app = create_app(Settings(policy=POLICY), policy, kubernetes)
            lifespan = app.router.lifespan_context(app)
            loop.run_until_complete(lifespan.__aenter__())
            loop.turns(_QUIET_TURNS)
            try:
                return _Bench(loop, app, kubernetes, policy).run(jobs)
            finally:
                loop.run_until_complete(lifespan.__aexit__(None, None, None))
    finally:
        loop.close()


class _Bench:
    """What is done, on one app."""

    def __init__(self, loop: VirtualLoop, app: ASGIApp, kubernetes: FakeKubernetes, policy: Policy) -> None:
        self._loop = loop
        self._app = app
        self._kubernetes = kubernetes
        self._tenant = next(iter(policy.tenants))
        self._submitted = 0

    def run(self, jobs: int) -> dict[str, int]:
        ids = [self._submit()["id"] for _ in range(jobs)]
        pods = [self._kubernetes.start_pod(job, running=False) for job in ids]
        self._loop.turns(_QUIET_TURNS + 2 * jobs)  # The keeper looks at one job a turn.
        running = {"phase": "Running", "containerStatuses": [{"name": "job", "state": {"running": {}}}]}
        # Each is done once before it counts: what is made at the first use, and kept, is not work of each use.
        return {
            "submit": self._twice(lambda _: self._post()),
            "read one job": self._twice(lambda _: self._get(f"/v1/jobs/{ids[0]}")),
            "list 50 jobs": self._twice(lambda _: self._get("/v1/jobs?limit=50")),
            "look for a state that no job has": self._twice(lambda _: self._get("/v1/jobs?state=cancelled")),
            "tell a tenant's quota and its holders": self._twice(lambda _: self._get("/v1/quota")),
            "scrape the metrics": self._twice(lambda _: self._get("/metrics")),
            "take in that a pod runs": self._twice(lambda turn: self._kubernetes.set_status(pods[turn], running)),
            "take in that a job ended": self._twice(lambda turn: self._kubernetes.complete(ids[turn])),
            "open the overview": self._twice(lambda _: self._get("/")),
            "open the page of jobs": self._twice(lambda _: self._get("/jobs")),
            "open the page of one job": self._twice(lambda _: self._get(f"/jobs/{ids[0]}?log=false")),
        }

    def _twice(self, act: Callable[[int], Awaitable[object] | object]) -> int:
        calls = 0
        for turn in range(2):
            with _Calls() as counted:
                done = act(turn)
                if isinstance(done, Awaitable):
                    self._loop.run_until_complete(done)
                self._loop.turns(_QUIET_TURNS)
            calls = counted.number
        return calls

    def _submit(self) -> Mapping[str, Any]:
        return json.loads(self._loop.run_until_complete(self._post()))  # type: ignore[no-any-return]

    async def _post(self) -> bytes:
        self._submitted += 1
        headers = {
            "content-type": "application/json",
            "x-tenant-id": self._tenant,
            "idempotency-key": f"number {self._submitted}",
        }
        return await _ask(self._app, "POST", "/v1/jobs", headers, json.dumps(_SPEC).encode())

    async def _get(self, path: str) -> bytes:
        return await _ask(self._app, "GET", path, {"x-tenant-id": self._tenant}, b"")


async def _ask(app: ASGIApp, method: str, path: str, headers: Mapping[str, str], body: bytes) -> bytes:
    """The body of an answer that must be a success."""
    path, _, query = path.partition("?")
    scope = {
        "type": "http",
        "asgi": {"version": "3.0", "spec_version": "2.3"},
        "http_version": "1.1",
        "method": method,
        "scheme": "http",
        "path": path,
        "raw_path": path.encode(),
        "query_string": query.encode(),
        "headers": [(name.encode(), text.encode()) for name, text in headers.items()],
        "client": ("127.0.0.1", 1),
        "server": ("127.0.0.1", 80),
    }
    sent: list[Message] = []

    async def receive() -> Message:
        return {"type": "http.request", "body": body, "more_body": False}

    async def send(message: Message) -> None:
        sent.append(message)

    await app(scope, receive, send)
    answer = b"".join(message.get("body", b"") for message in sent)
    if sent[0]["status"] not in (200, 201):
        raise AssertionError(f"{method} {path} answered {sent[0]['status']}: {answer[:300]!r}")
    return answer


def main() -> None:
    with tempfile.TemporaryFile("w") as nowhere, redirect_stdout(nowhere):
        configure("info")
        calls = measured()
    text = json.dumps({"python": f"{sys.version_info.major}.{sys.version_info.minor}", "calls": calls}, indent=2) + "\n"
    if "--write" in sys.argv[1:]:
        BUDGET.write_text(text)
    sys.stdout.write(text)


if __name__ == "__main__":
    main()
