"""What a scenario may do: submit jobs, wait for what becomes of them, and put down what it saw."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

import httpx2

from demo.scenario import NotSeen, Source
from testbed.http_client import OVER, Api, Document, document
from testbed.kernel_log import Kernel
from testbed.kubectl import Kubectl
from testbed.waiting import TimedOut, wait_for

START_SECONDS = 30.0
"""From accepted to running, on a busy machine; a job usually takes 2 s."""
END_SECONDS = 45.0


class Process(Protocol):
    """A Runway that can be killed and comes back: a process of this machine, or one in a pod of the local cluster."""

    @property
    def lease(self) -> tuple[str, str]:
        """Name and namespace of the Lease that makes it the writer."""

    @property
    def pid(self) -> int | None:
        """As this machine numbers it; None where it does not run."""

    def kill(self) -> None:
        """SIGKILL, as a crash would."""

    def start(self) -> None:
        """Come back, and wait until it is the writer."""


@dataclass(frozen=True, slots=True)
class Tools:
    """The witnesses. `kernel` is None where the jobs do not run on this machine, so that its kernel knows nothing.

    `server` is the Runway that the demo has started, where it did.
    """

    runway: Api
    kubernetes: Kubectl
    kernel: Kernel | None
    server: Process | None = None


class Stage:
    """One scenario's hands and notebook. `show` is called with each piece of evidence as it is found."""

    def __init__(self, tools: Tools, show: Callable[[Source, str], None]) -> None:
        self.runway = tools.runway
        self.kubernetes = tools.kubernetes
        self.kernel = tools.kernel
        self.server = tools.server
        self.saw = show
        self.submitted: list[str] = []
        """Every job of the scenario, ended or not."""
        self._jobs: list[str] = []

    def submit(self, tenant: str, spec: Document) -> Document:
        """Submit a job that must be let in, and return its view."""
        return self.accepted(self.runway.submit(tenant, spec))

    def try_to_submit(self, tenant: str, spec: Document, *, key: str | None = None) -> httpx2.Response:
        """Submit a job that may be refused. If it is let in, it is ended with the scenario."""
        answer = self.runway.submit(tenant, spec, key=key)
        if answer.status_code == 201:
            self.accepted(answer)
        return answer

    def accepted(self, response: httpx2.Response) -> Document:
        """The view of a job that must have been let in; it is ended with the scenario."""
        if response.status_code != 201:
            raise NotSeen(f"a job that should be let in was answered {response.status_code}: {response.text[:1000]}")
        view = document(response)
        self.adopt(view["id"])
        return view

    def adopt(self, job_id: str) -> None:
        """Have a job that was submitted in another way, and may not exist, ended with the scenario."""
        self._jobs.append(job_id)
        self.submitted.append(job_id)

    def until(self, job_id: str, done: Callable[[Document], bool], what: str, seconds: float = END_SECONDS) -> Document:
        """The view of a job as soon as `done` holds for it. Raises NotSeen with the view as it was instead."""
        last: Document = {}

        def probe() -> Document | None:
            last.update(self.runway.job(job_id))
            return last if done(last) else None

        try:
            return wait_for(probe, what, seconds)
        except TimedOut as error:
            conditions = [f"{item['code']}: {item['message']}" for item in last["conditions"]]
            raise NotSeen(f"job {job_id} {error}; it is {last['state']} {conditions or ''}".rstrip()) from error

    def until_over(self, job_id: str, seconds: float = END_SECONDS) -> Document:
        """The view of a job that has ended, well or not."""
        return self.until(job_id, lambda view: view["state"] in OVER, "over", seconds)

    def until_log(self, job_id: str, words: str, seconds: float = START_SECONDS) -> str:
        """The log of a job as soon as it holds these words."""

        def probe() -> str | None:
            answer = self.runway.log(job_id)
            return answer.text if answer.is_success and words in answer.text else None

        return wait_for(probe, f"job {job_id} writes {words!r}", seconds)

    def pod(self, view: Document) -> Document:
        """The one pod of a job as Kubernetes has it. Raises NotSeen where it has none or more."""
        pods = self.kubernetes.pods(view["kubernetes"]["namespace"], view["id"])
        if len(pods) != 1:
            raise NotSeen(f"job {view['id']} has {len(pods)} pods in Kubernetes, not one")
        return pods[0]

    def job(self, view: Document) -> Document:
        """The Job as Kubernetes has it. Raises NotSeen where it has none."""
        found = self.kubernetes.get("job", view["id"], view["kubernetes"]["namespace"])
        if found is None:
            raise NotSeen(f"Kubernetes has no Job {view['id']}")
        return found

    def end_jobs(self) -> None:
        """Cancel whatever of this scenario still runs, and wait until it has let go of its quota."""
        answers = {job_id: self.runway.cancel(job_id) for job_id in self._jobs}
        self._jobs.clear()
        for job_id, answer in answers.items():
            if answer.status_code != 404:
                self.until_over(job_id)


def expect(holds: bool, instead: str) -> None:
    """Raise NotSeen with what was seen `instead`, unless it holds."""
    if not holds:
        raise NotSeen(instead)
