"""The context of a scenario: submit jobs, wait for them, show the evidence."""

from __future__ import annotations

import uuid
from collections.abc import Callable
from dataclasses import dataclass
from enum import StrEnum
from typing import Protocol

import httpx2

from testbed.http_client import FINISHED, Document, RunwayClient, document
from testbed.kernel_log import Kernel
from testbed.kubectl import Kubectl
from testbed.waiting import GUARD_SECONDS, TimedOut, wait_for


class Source(StrEnum):
    """The source of a piece of evidence."""

    RUNWAY = "Runway"
    KUBERNETES = "Kubernetes"
    LINUX = "Linux"
    JOB = "the job"


class NotSeen(Exception):
    """The claim did not hold; the message gives the observed value."""


class Unavailable(Exception):
    """This cluster lacks what a claim needs; the message names it. The claim is neither verified nor refuted."""


class Process(Protocol):
    """A Runway that a test can kill and start: on this machine or in a pod of the local cluster."""

    @property
    def lease(self) -> tuple[str, str]:
        """Name and namespace of its Lease."""

    @property
    def pid(self) -> int | None:
        """The process ID on this machine; None while it does not run."""

    def kill(self) -> None:
        """SIGKILL, as a crash would."""

    def start(self) -> None:
        """Start it and wait until it is the leader."""


@dataclass(frozen=True, slots=True)
class Tools:
    """The sources of evidence.

    `kernel` is None if the jobs run on another machine. `server` is None if the caller did not start Runway.
    """

    runway: RunwayClient
    kubernetes: Kubectl
    kernel: Kernel | None
    server: Process | None = None


class Context:
    """Submit the jobs of one scenario and wait for them. `show` receives each piece of evidence."""

    def __init__(self, tools: Tools, show: Callable[[Source, str], None]) -> None:
        self.runway = tools.runway
        self.kubernetes = tools.kubernetes
        self.kernel = tools.kernel
        self.server = tools.server
        self.show = show
        self.submitted: list[str] = []
        """Every job of the scenario, finished or not."""
        self._jobs: list[str] = []

    def submit(self, tenant: str, spec: Document) -> Document:
        """Submit a job that Runway must accept, and return its view. Raises NotSeen."""
        return self.accepted(self.respond(tenant, spec))

    def respond(self, tenant: str, spec: Document) -> httpx2.Response:
        """Submit a job, and again while Kubernetes does not answer in time, as a client should. Return the response."""
        key = f"testbed {uuid.uuid4()}"

        def attempt() -> httpx2.Response | None:
            answer = self.runway.submit(tenant, spec, key=key)
            return None if is_kubernetes_late(answer) else answer

        return wait_for(attempt, "a response of Kubernetes to a submission")

    def try_to_submit(self, tenant: str, spec: Document, *, key: str | None = None) -> httpx2.Response:
        """Submit a job that Runway may refuse. `cancel_jobs` cancels an accepted job."""
        answer = self.runway.submit(tenant, spec, key=key)
        if answer.status_code == 201:
            self.accepted(answer)
        return answer

    def accepted(self, response: httpx2.Response) -> Document:
        """Return the view of a job that Runway must have accepted, and track the job. Raises NotSeen."""
        if response.status_code not in (200, 201):
            raise NotSeen(f"expected an accepted job, not {response.status_code}: {response.text[:1000]}")
        view = document(response)
        self.track(view["id"])
        return view

    def track(self, job_id: str) -> None:
        """Have `cancel_jobs` cancel a job that was submitted in another way. The job need not exist."""
        self._jobs.append(job_id)
        self.submitted.append(job_id)

    def until(
        self, job_id: str, done: Callable[[Document], bool], what: str, seconds: float = GUARD_SECONDS
    ) -> Document:
        """Return the view of a job as soon as `done` holds for it. Raises NotSeen with the last view."""
        last: Document = {}

        def probe() -> Document | None:
            last.update(self.runway.job(job_id))
            return last if done(last) else None

        try:
            return wait_for(probe, what, seconds)
        except TimedOut as error:
            conditions = [f"{item['code']}: {item['message']}" for item in last["conditions"]]
            raise NotSeen(f"job {job_id} {error}; it is {last['state']} {conditions or ''}".rstrip()) from error

    def until_finished(self, job_id: str, seconds: float = GUARD_SECONDS) -> Document:
        """Return the view of a job as soon as it is finished. Raises NotSeen."""
        return self.until(job_id, lambda view: view["state"] in FINISHED, "finished", seconds)

    def until_log(self, job_id: str, words: str) -> str:
        """Return the log of a job as soon as it contains these words. Raises TimedOut."""

        def probe() -> str | None:
            answer = self.runway.log(job_id)
            return answer.text if answer.is_success and words in answer.text else None

        return wait_for(probe, f"job {job_id} writes {words!r}")

    def pod(self, view: Document) -> Document:
        """Return the only pod of a job from Kubernetes. Raises NotSeen if there are none or several."""
        pods = self.kubernetes.pods(view["kubernetes"]["namespace"], view["id"])
        if len(pods) != 1:
            raise NotSeen(f"job {view['id']} has {len(pods)} pods in Kubernetes, not one")
        return pods[0]

    def job(self, view: Document) -> Document:
        """Return the Job from Kubernetes. Raises NotSeen if there is none."""
        found = self.kubernetes.get("job", view["id"], view["kubernetes"]["namespace"])
        if found is None:
            raise NotSeen(f"Kubernetes has no Job {view['id']}")
        return found

    def require_gpus(self, count: int) -> None:
        """Check that tenant vision may use this many GPUs, and that a pool of the policy has some. Raises Unavailable.

        Nodes are not checked: a pool may start from zero.
        """
        policy = self.runway.policy()
        has_pool = any(pool["node"]["gpu"] for pool in policy["pools"].values())
        if not has_pool or policy["tenants"]["vision"]["quota"]["gpu"] < count:
            raise Unavailable(f"a pool with GPUs in the policy, and a quota of {count} GPUs or more for tenant vision")

    def cancel_jobs(self) -> None:
        """Cancel the unfinished jobs of this scenario and wait until they are finished."""
        answers = {job_id: self._cancel(job_id) for job_id in self._jobs}
        self._jobs.clear()
        for job_id, answer in answers.items():
            if answer.status_code != 404:
                self.until_finished(job_id)

    def _cancel(self, job_id: str) -> httpx2.Response:
        def attempt() -> httpx2.Response | None:
            answer = self.runway.cancel(job_id)
            return None if is_kubernetes_late(answer) else answer

        return wait_for(attempt, f"a response of Kubernetes to the cancellation of {job_id}")


def is_kubernetes_late(response: httpx2.Response) -> bool:
    """Return whether Kubernetes did not answer in time. The same request may be sent again."""
    return response.status_code == 503 and response.json()["code"] in ("kubernetes_unavailable", "outcome_unknown")


def expect(holds: bool, instead: str) -> None:
    """Raise NotSeen with the observed value `instead`, unless `holds`."""
    if not holds:
        raise NotSeen(instead)
