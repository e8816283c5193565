"""The invariants of the model, checked at each send, write, response and turn.

Only an object that the admitting process had not observed, and could not foresee, excuses an excess over quota:

- an object created outside Runway;
- an object of which a watch lost an event, which no API server does;
- the Job of a create that the API server delayed until its sender gave up or died and another process took the Lease;
- the Job of a create that the API server delayed until a Job of the same name was created and deleted
  (docs/architecture.md, "Crash points"). If an earlier create of the name was open, this counts from the last look-up.

Such a delayed create does not count against quota either. A process that has observed its Job must count it.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from dataclasses import dataclass
from typing import Final

import msgspec

from runway.admission.quota import ZERO
from runway.errors import PublicError
from runway.jobs.identity import LABEL_NAME
from runway.kube.transport import Response as HttpAnswer
from runway.services.submit import Submission
from runway.state.job_store import JobKey
from tests.model.apiserver import ApiServer, Call
from tests.model.controllers import Controllers
from tests.model.faults import Calls
from tests.model.oracle import Held, Json, requests, terminating, uid, use
from tests.model.policy import POLICY, SKEW, TENANTS
from tests.model.process import Process

NOTHING_DONE: Final = frozenset(
    {"not_ready", "not_leader", "kubernetes_unavailable", "quota_exceeded", "rate_limited", "too_busy"}
)
"""Codes that promise that no job was made and none will be."""


@dataclass(slots=True, eq=False)
class Request:
    """One submission of a caller, and what became of it."""

    tenant: str
    key: str | None
    document: Json
    process: Process
    started: float
    outcome: str | None = None
    """`created`, `replayed` or the code of the problem; None where there is no answer, now or for ever."""
    refusal: PublicError | None = None
    landed: bool = False
    sent: int = -1
    """When its create was sent, as `ApiServer.mark`."""
    looked: int | None = None
    """What the API server had as its newest version when this submission first looked its Job up."""


class InvariantChecker:
    """Writes every breach into `faults`: most are found where nothing can be raised."""

    def __init__(self, api: ApiServer, controllers: Controllers, processes: list[Process]) -> None:
        self.faults: list[str] = []
        self._api = api
        self._server = api.server
        self._controllers = controllers
        self._processes = processes
        """Those that are alive."""
        self._holder: Process | None = None
        self._takings: list[tuple[int, Process]] = []
        self._late: set[str] = set()
        self._ids: dict[tuple[str, str], str] = {}
        self._made: Counter[JobKey] = Counter()
        self._announced: Counter[JobKey] = Counter()
        self._starts: defaultdict[str, list[tuple[float, str]]] = defaultdict(list)

    def broken(self, what: str) -> None:
        """Something that must hold does not."""
        self.faults.append(f"at {self._api.loop.time():.6f} s: {what}")

    # At each turn of the loop, and after each step

    def each_turn(self) -> None:
        """Never two writers."""
        if len(self._processes) > 1 and sum(process.writes for process in self._processes) > 1:
            self.broken("two processes may write at once")

    def each_step(self) -> None:
        """No process has fallen over; no key has two Jobs; each ledger's sums are those of its parts."""
        for process in self._processes:
            if process.observer.broken or (process.main.done() and not process.stopping):
                self.broken(f"process {process.identity} has failed: {process.observer.broken}")
            for tenant, account in process.observer.ledger.accounts.items():
                used = sum((booking.amounts for booking in account.bookings.values()), ZERO)
                reserved = sum(map(account.unobserved_reservation, account.reservations), ZERO)
                if (used, reserved) != (account.used, account.reserved):
                    self.broken(f"the sums of {tenant} are not those of its parts")
        keys = Counter(
            (space, job["metadata"]["labels"][LABEL_NAME])
            for (space, _), job in self._server.objects["jobs"].items()
            if LABEL_NAME in job["metadata"].get("labels", {})
        )
        for key, count in keys.items():
            if count > 1:
                self.broken(f"{count} Jobs at once under {key}")

    # At each send and each landing

    def sending(self, call: Call) -> None:
        """Only the holder of the Lease creates, and only what was listed after it became so counts as known."""
        process = self._sender(call)
        if isinstance(call.request, Request) and call.calls is Calls.READ and call.request.looked is None:
            call.request.looked = call.version
        if not call.creates or process is None:
            return
        assert isinstance(call.request, Request), "only submissions create Jobs"
        call.request.sent = call.mark
        if self._holder is not process or process.gained is None:
            self.broken(f"{process.identity} creates and does not hold the Lease")
        elif any(process.wire.told.lists_asked.get(kind, -1) < process.gained for kind in ("jobs", "pods")):
            self.broken(f"{process.identity} creates before it has listed what there is")

    def landed(self, call: Call, answer: HttpAnswer) -> None:
        """A call was carried out."""
        if answer.status >= 300:
            return
        if call.calls is Calls.LEASE and call.method != "GET":
            self._lease_written(call)
        if call.creates:
            self._job_made(call, msgspec.json.decode(answer.body))

    def _lease_written(self, call: Call) -> None:
        process = self._sender(call)
        if not self._server.lease["spec"]["holderIdentity"]:
            self._holder = None
        elif process is not None and process is not self._holder:
            self._holder, process.gained = process, self._api.mark()
            self._takings.append((process.gained, process))

    def _job_made(self, call: Call, job: Json) -> None:
        request = call.request
        assert isinstance(request, Request), "only submissions create Jobs"
        key = JobKey(job["metadata"]["namespace"], job["metadata"]["name"])
        request.landed = True
        self._made[key] += 1
        if request.outcome in NOTHING_DONE:
            self.broken(f"{key.name} was made after its caller had been told {request.outcome}")
        if self._too_late(call, request, key):
            self._late.add(uid(job))
            return
        if any(other.writes for other in self._processes if other is not request.process):
            self.broken(f"{key.name} lands while another process may write")
        self._within_quota(call, request, job)
        self._within_rate(request, job)

    def _too_late(self, call: Call, request: Request, key: JobKey) -> bool:
        given_up = self._api.loop.time() > call.sent + call.seconds or not request.process.alive
        taken_over = self._taken_over(request.process, since=call.mark)
        looked = call.version if request.looked is None else request.looked
        return (given_up and taken_over) or self._was_deleted(key, since=min(looked, call.version))

    def _within_quota(self, call: Call, request: Request, job: Json) -> None:
        told = request.process.wire.told
        excusable = self._controllers.foreign | self._late | told.lost
        hidden = {item for item in excusable if told.objects.get(item, call.mark + 1) > call.mark}
        asked = requests(job["spec"]["template"]["spec"])._replace(jobs=1)
        held, quota = use(self._server, job["metadata"]["namespace"], hidden), TENANTS[request.tenant]
        sums = zip(Held._fields, asked, held, quota, strict=True)
        if over := [name for name, part, everything, limit in sums if part and everything > limit]:
            self.broken(f"{request.tenant} is over its quota of {', '.join(over)}: {held} of {quota}")

    def _within_rate(self, request: Request, job: Json) -> None:
        """Jobs that still stand keep to the rate in every stretch of time, restarts or not."""
        made = self._starts[request.tenant]
        made.append((request.started, uid(job)))
        there = {uid(item) for item in self._server.objects["jobs"].values()}
        times = sorted(at for at, who in made if who in there)
        rate = POLICY.tenants[request.tenant].rate
        for first, start in enumerate(times):
            for last in range(first, len(times)):
                passed = (times[last] - start) * SKEW
                if last - first + 1 > rate.burst + passed * rate.per_minute / 60 + 1e-3:
                    self.broken(f"{request.tenant} has made {last - first + 1} jobs in {passed:g} s")
                    return

    # At each answer

    def answered(self, request: Request, submission: Submission) -> None:
        """What a caller is told of exists, unless someone has deleted it; a key has one id; a Job is new once.

        A process that was frozen in its create, for so long that another took over, may call a Job new that the other
        has called new too: after a create of its own that did not say what it did, the other has read the Job back, and
        nothing on it says whose create has made it (docs/architecture.md, I4).
        """
        key = JobKey(POLICY.tenants[request.tenant].namespace, submission.view.id)
        if not self._made[key]:
            self.broken(f"{key.name} was answered and never made")
        elif key not in self._server.objects["jobs"] and not self._was_deleted(key, since=0):
            self.broken(f"{key.name} was answered and is lost")
        if request.key is not None and self._ids.setdefault((request.tenant, request.key), key.name) != key.name:
            self.broken(f"the key {request.key} names two jobs")
        if not submission.replayed and not self._taken_over(request.process, since=request.sent):
            self._announced[key] += 1
            if self._announced[key] > self._made[key]:
                self.broken(f"{key.name} was answered as new more often than it was made")

    def refused(self, request: Request) -> None:
        """Who is told that nothing was done must be told the truth."""
        if request.outcome in NOTHING_DONE and request.landed:
            self.broken(f"a Job was made and its caller was told {request.outcome}")

    # At the end, when all is quiet

    def differences(self, process: Process) -> list[str]:
        """Where what a process has in mind is not what the API server has."""
        found = []
        for tenant, account in process.observer.ledger.accounts.items():
            namespace = POLICY.tenants[tenant].namespace
            used = account.used
            truth, ledger = use(self._server, namespace), Held(used.gpu, used.cpu, used.memory, used.jobs)
            if truth != ledger:
                found.append(f"{process.identity} has {tenant} at {ledger}, and it is {truth}")
            ending = terminating(self._server, namespace)[:3]
            if ending != (account.terminating.gpu, account.terminating.cpu, account.terminating.memory):
                found.append(
                    f"{process.identity} has {tenant}'s terminating pods at {account.terminating}, not {ending}"
                )
            if account.reservations:
                found.append(f"{process.identity} keeps reservations of {tenant}: {sorted(account.reservations)}")
        for (space, name), job in self._server.objects["jobs"].items():
            record = process.observer.store.get(JobKey(space, name))
            if record is None or record.job is None or record.job.metadata.uid != uid(job):
                found.append(f"{process.identity} does not know of {name}")
        if len(process.observer.store) != len(self._server.objects["jobs"]):
            found.append(f"{process.identity} knows of {len(process.observer.store)} Jobs")
        return found

    def _taken_over(self, process: Process, since: int) -> bool:
        """Whether another process has taken the Lease after a moment."""
        return any(at > since and who is not process for at, who in self._takings)

    def _was_deleted(self, key: JobKey, since: int) -> bool:
        """Whether a Job of this name was deleted after a version."""
        return any(
            version > since
            and type_ == "DELETED"
            and JobKey(item["metadata"]["namespace"], item["metadata"]["name"]) == key
            for version, type_, item in reversed(self._server.history["jobs"])
        )

    def _sender(self, call: Call) -> Process | None:
        return call.connection.owner if isinstance(call.connection.owner, Process) else None
