"""The recording of a demo for its report: claims, evidence, jobs, quota.

All times are seconds after the start of the demo by the wall clock, which makes them comparable with Kubernetes' times.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from types import TracebackType
from typing import Self

import httpx2

from demo.scenario import Outcome, Scenario
from testbed.context import Source
from testbed.http_client import Document

SAMPLE_SECONDS = 0.5
MAX_SAMPLES = 10_000
"""More than an hour; a longer demo keeps the first samples."""


@dataclass(frozen=True, slots=True)
class Evidence:
    """An observation with its time and source."""

    at: float
    source: Source
    text: str


@dataclass(frozen=True, slots=True)
class AttemptRecord:
    """A pod of a job. A time is None if it has not occurred."""

    created: float
    started: float | None
    finished: float | None
    state: str


@dataclass(frozen=True, slots=True)
class JobRecord:
    """A job of a scenario, as Runway reports it at the end of the scenario."""

    id: str
    tenant: str
    state: str
    verdict: str | None
    cost: str | None
    """USD; None if unknown."""
    created: float
    finished: float | None
    attempts: tuple[AttemptRecord, ...]


@dataclass(frozen=True, slots=True)
class ScenarioRun:
    """One run of a scenario."""

    number: int
    title: str
    claim: str
    began: float
    ended: float
    missing: str | None
    evidence: tuple[Evidence, ...]
    jobs: tuple[JobRecord, ...]
    needs: str | None = None

    @property
    def seconds(self) -> float:
        """The duration."""
        return self.ended - self.began


@dataclass(frozen=True, slots=True)
class TenantUsage:
    """The usage and the limits of a tenant."""

    gpu: int
    gpu_limit: int
    jobs: int
    jobs_limit: int


@dataclass(frozen=True, slots=True)
class Sample:
    """The usage of every tenant at a time; None if Runway did not answer."""

    at: float
    tenants: Mapping[str, TenantUsage] | None


@dataclass(frozen=True, slots=True)
class Recording:
    """The recording of a complete demo."""

    began: datetime
    seconds: float
    facts: tuple[tuple[str, str], ...]
    """The environment: names with values."""
    simulated_gpus: bool
    scenarios: tuple[ScenarioRun, ...]
    quota: tuple[Sample, ...]


class Recorder:
    """Record a demo while it runs."""

    def __init__(self, clock: Callable[[], float] = time.time) -> None:
        self._clock = clock
        self._began = clock()
        self._scenario_began = self._began
        self._evidence: list[Evidence] = []
        self._scenarios: list[ScenarioRun] = []

    @property
    def now(self) -> float:
        """Seconds since the start of the demo."""
        return self._clock() - self._began

    def begin(self) -> None:
        """Start recording a scenario."""
        self._scenario_began = self.now
        self._evidence = []

    def evidence(self, source: Source, text: str) -> None:
        """Record an observation."""
        self._evidence.append(Evidence(self.now, source, text))

    def end(self, outcome: Outcome, jobs: Sequence[Document]) -> None:
        """Finish recording a scenario; `jobs` are the views of its jobs."""
        scenario: Scenario = outcome.scenario
        self._scenarios.append(
            ScenarioRun(
                number=len(self._scenarios) + 1,
                title=scenario.title,
                claim=scenario.claim,
                began=self._scenario_began,
                ended=self.now,
                missing=outcome.missing,
                needs=outcome.needs,
                evidence=tuple(self._evidence),
                jobs=tuple(self._job(view) for view in jobs),
            )
        )

    def recording(
        self, facts: Sequence[tuple[str, str]], quota: Sequence[Sample], *, simulated_gpus: bool
    ) -> Recording:
        """Return the complete recording."""
        return Recording(
            began=datetime.fromtimestamp(self._began, UTC),
            seconds=self.now,
            facts=tuple(facts),
            simulated_gpus=simulated_gpus,
            scenarios=tuple(self._scenarios),
            quota=tuple(quota),
        )

    def _job(self, view: Document) -> JobRecord:
        attempts = (
            AttemptRecord(
                created=self._at(attempt["created_at"] or view["created_at"]) or 0.0,
                started=self._at(attempt["started_at"]),
                finished=self._at(attempt["finished_at"]),
                state=_state(attempt),
            )
            for attempt in view["attempts"]
        )
        return JobRecord(
            id=view["id"],
            tenant=view["tenant"],
            state=view["state"],
            verdict=view["failure"]["code"] if view["failure"] else None,
            cost=view["cost"]["actual"] if view["cost"] else None,
            created=self._at(view["created_at"]) or 0.0,
            finished=self._at(view["finished_at"]),
            attempts=tuple(attempts),
        )

    def _at(self, moment: str | None) -> float | None:
        return None if moment is None else datetime.fromisoformat(moment).timestamp() - self._began


class QuotaSampler:
    """Read all quotas twice a second during the demo. A context manager, which owns its thread."""

    def __init__(self, url: str, recorder: Recorder) -> None:
        self.samples: list[Sample] = []
        self._url = url
        self._recorder = recorder
        self._stopped = threading.Event()
        self._thread = threading.Thread(target=self._run, name="quota of the demo", daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stopped.set()
        self._thread.join(10)

    def _run(self) -> None:
        with httpx2.Client(base_url=self._url, timeout=2, trust_env=False) as client:
            while not self._stopped.wait(SAMPLE_SECONDS) and len(self.samples) < MAX_SAMPLES:
                self.samples.append(Sample(self._recorder.now, _read_usage(client)))


def _state(attempt: Document) -> str:
    """Return the state of an attempt: `disrupted` if it failed without counting as a retry."""
    return "disrupted" if attempt["state"] == "failed" and not attempt["counted"] else str(attempt["state"])


def _read_usage(client: httpx2.Client) -> dict[str, TenantUsage] | None:
    try:
        answer = client.get("/v1/quota")
    except httpx2.TransportError:
        return None
    if answer.status_code != 200:
        return None
    return {
        item["tenant"]: TenantUsage(
            gpu=item["used"]["gpu"] + item["reserved"]["gpu"],
            gpu_limit=item["limit"]["gpu"],
            jobs=item["used"]["jobs"] + item["reserved"]["jobs"],
            jobs_limit=item["limit"]["jobs"],
        )
        for item in answer.json()["tenants"]
    }
