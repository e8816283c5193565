"""Replacement of Runway under load, as a Deployment with strategy Recreate does it, seen by its clients."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
import uuid
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack, suppress
from pathlib import Path

import httpx2
import pytest

from runway.policy import load_policy
from testbed.http_client import RunwayClient, shell
from testbed.kubectl import Kubectl
from testbed.server import Server
from testbed.waiting import GUARD_SECONDS, wait_for
from tests.support.tcp_proxy import TcpProxy

pytestmark = pytest.mark.cluster

RUNWAY = str(Path(sys.executable).with_name("runway"))
SMALL = ("--image=runway.local/busybox:1", "--cpu=100m", "--memory=32Mi", "--timeout=300")
COUNT = "i=0; while [ $i -lt 60 ]; do echo line $i; i=$((i + 1)); sleep 0.2; done"
LINES = [f"line {number}" for number in range(60)]
EACH = 2
"""Submissions of each client before the restart and after it, at least."""


class Service:
    """The address of the Service: it has one process behind it, or none."""

    def __init__(self, proxy: TcpProxy, generations: Sequence[Server]) -> None:
        self.url = f"http://127.0.0.1:{proxy.port}"
        self._proxy = proxy
        self._generations = generations

    def start(self, generation: int) -> None:
        server = self._generations[generation]
        server.start()
        url = httpx2.URL(server.url)
        self._proxy.forward_to(url.host, url.port or 0)

    def stop(self, generation: int) -> None:
        """Stop it with SIGTERM, as the kubelet does."""
        self._generations[generation].stop()


@pytest.fixture
def service(server: Server, settings: Mapping[str, str], tmp_path: Path) -> Iterator[Service]:
    """Two generations of Runway behind one address; no other process is the leader meanwhile."""
    server.stop()
    with ExitStack() as ends:
        proxy = ends.enter_context(TcpProxy("127.0.0.1", 1))
        generations = [
            ends.enter_context(
                Server(tmp_path / f"{name}.log", {**settings, "RUNWAY_INSTANCE": f"{name}-{proxy.port}"})
            )
            for name in ("first", "second")
        ]
        running = Service(proxy, generations)
        running.start(0)
        yield running
    server.start()


class Load:
    """Clients that submit one job after the other until the end. A context manager; `ids` are the accepted jobs."""

    def __init__(self, url: str) -> None:
        self._url = url
        self._stop = threading.Event()
        self._pool = ThreadPoolExecutor(max_workers=4)
        self._clients: list[Future[None]] = []
        self.ids: list[list[str]] = [[], [], []]

    def start(self) -> None:
        for ids, submit in zip(self.ids, (self._by_command, self._by_command, self._by_http), strict=True):
            self._clients.append(self._pool.submit(self._repeat, submit, ids))

    def submitted(self, at_least: list[int]) -> bool | None:
        """Return True once each client has this number of accepted jobs. Raises the exception of a failed client."""
        for client in self._clients:
            if client.done():
                client.result()
        return all(len(ids) >= number for ids, number in zip(self.ids, at_least, strict=True)) or None

    def stop(self) -> list[str]:
        """End the clients after their current submission, and return all ids."""
        self._stop.set()
        for client in self._clients:
            client.result(timeout=GUARD_SECONDS)
        self._pool.shutdown()
        return [job_id for ids in self.ids for job_id in ids]

    def _repeat(self, submit: Callable[[], str], ids: list[str]) -> None:
        while not self._stop.is_set():
            ids.append(submit())
            self._stop.wait(0.25)  # A fast machine would use up the tenant's quota and rate.

    def _by_command(self) -> str:
        return run(self._url, "submit", *SMALL, "-o", "name", "--", "true").strip()

    def _by_http(self) -> str:
        """Submit with an idempotency key, and repeat it until it is answered, as any client should."""
        key = f"test {uuid.uuid4()}"

        def attempt() -> str | None:
            with suppress(httpx2.TransportError), RunwayClient(self._url) as client:
                answer = client.submit("vision", shell("true"), key=key)
                assert answer.status_code in (200, 201, 503), answer.text
                return str(answer.json()["id"]) if answer.is_success else None
            return None

        return wait_for(attempt, "the submission is accepted")


def run(url: str, *arguments: str) -> str:
    """Return what the command prints. It must succeed."""
    environment = {**os.environ, "RUNWAY_URL": url, "RUNWAY_TENANT": "vision"}
    done = subprocess.run(
        [RUNWAY, *arguments], env=environment, capture_output=True, text=True, timeout=GUARD_SECONDS, check=False
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_replacement_of_runway_under_load_loses_and_repeats_nothing(
    service: Service, kubernetes: Kubectl, policy_file: Path
) -> None:
    """Clients submit with and without the command line, wait for a job, and follow a log, while Runway is replaced."""
    namespace = load_policy(policy_file).tenants["vision"].namespace
    before = names(kubernetes, namespace)
    load = Load(service.url)
    with ThreadPoolExecutor(max_workers=2) as others:
        watched = run(service.url, "submit", *SMALL, "-o", "name", "--", "sh", "-c", COUNT).strip()
        followed = others.submit(run, service.url, "logs", "-f", watched)
        waited = others.submit(run, service.url, "submit", "--wait", *SMALL, "--", "sh", "-c", "sleep 10; echo end")
        load.start()
        wait_for(lambda: load.submitted([EACH] * 3), "each client has submitted")
        service.stop(0)
        so_far = [len(ids) for ids in load.ids]
        service.start(1)
        wait_for(lambda: load.submitted([number + EACH for number in so_far]), "each client has submitted")
        ids = load.stop()
        assert followed.result().splitlines() == LINES
        assert "succeeded" in waited.result()
    with RunwayClient(service.url) as runway:
        wait_for(lambda: all(runway.job(each)["state"] == "succeeded" for each in ids) or None, "all succeeded")
        quota = runway.quota("vision")
    assert (quota["used"]["jobs"], quota["reserved"]["jobs"]) == (0, 0)
    assert len(set(ids)) == len(ids)
    # The job that the command waited for is the only other one.
    assert len(names(kubernetes, namespace) - before - set(ids) - {watched}) == 1


def names(kubernetes: Kubectl, namespace: str) -> set[str]:
    return {job["metadata"]["name"] for job in kubernetes.select("jobs", f"--namespace={namespace}")}
