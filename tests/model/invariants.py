"""The invariants of the model, checked at each send, write, response and turn.

Only an object that the admitting process had not observed, and could not foresee, excuses an excess over quota:

- an object created outside Runway;
- an object of which a watch lost an event, which no API server does;
- the Job of a create that the API server delayed until its sender gave up or died and another process took the Lease;
- the Job of a create that the API server delayed until a Job of the same name was created and deleted
  (docs/architecture.md, "Crash points"). If an earlier create of the name was open, this counts from the last look-up.

Such a delayed create does not count against quota either. A process that has observed its Job must count it. The same
applies to the pods of the Job.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from dataclasses import dataclass
from datetime import datetime, timedelta
from decimal import Decimal
from typing import Final

import msgspec

from runway.errors import PublicError
from runway.jobs.annotations import ANNOTATION_COST, ANNOTATION_RECORD, ANNOTATION_START_TIMEOUT, LABEL_NAME
from runway.jobs.record import record_of, uncharged_cost_of
from runway.jobs.resources import ZERO
from runway.jobs.start import FIRST_POD_SECONDS
from runway.kube.decode import decode_object
from runway.kube.objects import Job
from runway.kube.transport import Response as HttpAnswer
from runway.services.submit import Submission
from runway.state.job_store import JobKey
from tests.model.apiserver import START, ApiServer, Call
from tests.model.controllers import Controllers
from tests.model.faults import Calls
from tests.model.oracle import (
    NODE,
    TENANTS,
    Budget,
    Json,
    Usage,
    budget_of,
    cause_of,
    cost_of_attempts,
    has_started,
    is_finished,
    owner_uid,
    pods_of,
    requests_of,
    terminating,
    uid,
    usage_in,
    usage_of,
)
from tests.model.policy import POLICY, SKEW
from tests.model.process import Process

NOTHING_DONE: Final = frozenset(
    {"not_ready", "not_leader", "kubernetes_unavailable", "quota_exceeded", "rate_limited", "too_busy"}
)
"""Codes that promise that no job was made and none will be."""


@dataclass(slots=True, eq=False)
class Request:
    """One submission of a caller and its outcome."""

    tenant: str
    key: str | None
    document: Json
    process: Process
    started: float
    outcome: str | None = None
    """`created`, `replayed` or the code of the problem; None without a response."""
    refusal: PublicError | None = None
    landed: bool = False
    sent: int = -1
    """The `ApiServer.mark` of the send of its create."""
    looked: int | None = None
    """The newest version of the API server at this submission's first GET of its Job."""


class InvariantChecker:
    """Collect violations in `faults`, because most checks run where an exception would be lost."""

    def __init__(self, api: ApiServer, controllers: Controllers, processes: list[Process]) -> None:
        self.faults: list[str] = []
        self._api = api
        self._server = api.server
        self._controllers = controllers
        self._processes = processes
        """The live processes."""
        self._holder: Process | None = None
        self._takings: list[tuple[int, Process]] = []
        self._late: set[str] = set()
        self._ids: dict[tuple[str, str], str] = {}
        self._made: Counter[JobKey] = Counter()
        self._announced: Counter[JobKey] = Counter()
        self._ends: dict[tuple[Process, str], float] = {}
        """When a process, even one that has exited, observed the end of a pod."""
        self.uncharged = Decimal()
        """USD that the recorded jobs cost beyond their ceilings."""
        self._read_pods: dict[tuple[Process, str], int] = {}
        """The newest version that a process's read of the pods of a Job has seen."""
        self._starts: defaultdict[str, list[tuple[float, str]]] = defaultdict(list)

    def broken(self, what: str) -> None:
        """Record a violation."""
        self.faults.append(f"at {self._api.loop.time():.6f} s: {what}")

    # At each turn of the loop, and after each step

    def each_turn(self) -> None:
        """Check that there are never two leaders."""
        if len(self._processes) > 1 and sum(process.is_leader for process in self._processes) > 1:
            self.broken("two processes are the leader")

    def each_step(self) -> None:
        """Check that no process has crashed, no key has two Jobs, and each ledger's sums match its parts."""
        for process in self._processes:
            if process.cluster.failure or (process.main.done() and not process.stopping):
                self.broken(f"process {process.identity} has failed: {process.cluster.failure}")
            for tenant, account in process.cluster.ledger.accounts.items():
                used = sum((usage.amounts for usage in account.observed.values()), ZERO)
                reserved = sum(map(account.unobserved_reservation, account.reservations), ZERO)
                if (used, reserved) != (account.used, account.reserved):
                    self.broken(f"the sums of {tenant} do not match its parts")
        keys = Counter(
            (space, job["metadata"]["labels"][LABEL_NAME])
            for (space, _), job in self._server.objects["jobs"].items()
            if LABEL_NAME in job["metadata"].get("labels", {})
        )
        for key, count in keys.items():
            if count > 1:
                self.broken(f"{count} concurrent Jobs under {key}")

    # At each send and each landing

    def sending(self, call: Call) -> None:
        """Check that only the holder of the Lease creates and ends jobs, and only after it has listed all objects."""
        process = self._sender(call)
        if call.calls is Calls.PATCH and process is not None:
            self._ending(call, process)
        if isinstance(call.request, Request) and call.calls is Calls.READ and call.request.looked is None:
            call.request.looked = call.version
        if not call.creates or process is None:
            return
        assert isinstance(call.request, Request), "only submissions create Jobs"
        call.request.sent = call.mark
        self._may_write(process, "creates")

    def _may_write(self, process: Process, what: str) -> None:
        if self._holder is not process or process.gained is None:
            self.broken(f"{process.identity} {what} without the Lease")
        elif any(process.wire.observed.lists_asked.get(kind, -1) < process.gained for kind in ("jobs", "pods")):
            self.broken(f"{process.identity} {what} before it has listed all objects")

    def _ending(self, call: Call, process: Process) -> None:
        """Check the patch of a start deadline: no container started, and the cause was the same for the whole time."""
        patch = msgspec.json.decode(call.body or b"{}")
        text = patch["metadata"].get("annotations", {}).get(ANNOTATION_START_TIMEOUT)
        if text is None:
            return
        self._may_write(process, "ends a job")
        timeout, name = msgspec.json.decode(text), call.path.rsplit("/", 1)[1]
        read = self._read_pods.get((process, name))
        if read is None:
            self.broken(f"{name} was ended, and its pods were not read")
            return
        job = self._server.objects["jobs"].get((call.path.split("/")[5], name))
        if job is None:
            return
        versions = [
            (version, pod)
            for version, _, pod in self._server.history["pods"]
            if version <= read and owner_uid(pod) == uid(job)
        ]
        known = process.wire.observed
        if any(has_started(pod) for _, pod in versions if uid(pod) in known.objects and uid(pod) not in known.lost):
            self.broken(f"{name} was ended for {timeout['cause']} although a container of it had started")
        now = self._api.loop.time()
        since = now - timeout["limit_seconds"] / SKEW
        if timeout["limit"] == "job":
            created = datetime.fromisoformat(job["metadata"]["creationTimestamp"])
            if (self._api.now() - created).total_seconds() < timeout["limit_seconds"] / SKEW:
                self.broken(f"{name} was ended before its own start timeout")
            return
        causes = {cause_of(pod) for pod in self._in_window(versions, since)}
        if causes != {timeout["cause"]} and not any(uid(pod) in known.gaps for _, pod in versions):
            self.broken(f"{name} was ended for {timeout['cause']}, but in that time the causes were {causes}")
        nodes = [(version, node) for version, _, node in self._server.history["nodes"] if uid(node) == f"uid-{NODE}"]
        if all(node["status"]["conditions"][0]["status"] != "True" for node in self._in_window(nodes, since)):
            self.broken(f"{name} was ended although its node did not respond in the whole time")

    def _recorded(self, process: Process, body: bytes) -> None:
        """Check a record: no attempt ends after its observed end, and the actual cost is exact up to the ceiling."""
        job = msgspec.json.decode(body)
        notes, name = job["metadata"]["annotations"], job["metadata"]["name"]
        record = msgspec.json.decode(notes[ANNOTATION_RECORD])
        attempts: list[Json] = record.get("attempts", [])
        for attempt in attempts:
            self._attempt_recorded(process, attempt)
        if "state" not in record or ANNOTATION_COST not in notes:
            return
        price, actual = msgspec.json.decode(notes[ANNOTATION_COST]), record.get("actual")
        exact = None if record.get("attempts_left_out") else cost_of_attempts(price["hourly"], attempts)
        if exact is None or actual is None:
            if exact != actual:
                self.broken(f"{name} was recorded with the cost {actual} instead of {exact}")
            return
        decoded = decode_object(body, Job)
        known = record_of(decoded)
        uncharged = Decimal() if known is None else uncharged_cost_of(decoded, known)
        if Decimal(actual) > Decimal(price["ceiling"]):
            self.broken(f"{name} was charged {actual}, more than its ceiling of {price['ceiling']}")
        if Decimal(actual) + uncharged != exact or (uncharged and Decimal(actual) != Decimal(price["ceiling"])):
            self.broken(f"{name} was charged {actual} with {uncharged} uncharged, but its attempts cost {exact}")
        self.uncharged += uncharged

    def _attempt_recorded(self, process: Process, attempt: Json) -> None:
        if attempt["finished_at"] is None:
            return
        self._ends.update({(process, pod): at for pod, at in process.wire.observed.ends.items()})
        observed = [at for (_, pod), at in self._ends.items() if pod == f"uid-{attempt['pod']}"]
        ended = datetime.fromisoformat(attempt["finished_at"])
        if ended > START + timedelta(seconds=max(observed, default=self._api.loop.time())):
            self.broken(f"the attempt {attempt['pod']} was recorded with an end after its observed end: {ended}")

    def _in_window(self, versions: list[tuple[int, Json]], since: float) -> list[Json]:
        """Return the newest version before a time, and all later ones."""
        later = [item for version, item in versions if self._api.written[version] > since]
        earlier = [item for version, item in versions if self._api.written[version] <= since]
        return earlier[-1:] + later

    def jobs_to_end(self) -> list[str]:
        """List the jobs whose only pod has a cause with a limit, and which are not ended yet."""
        found = []
        for (_, name), job in self._server.objects["jobs"].items():
            ever = {uid(pod) for _, _, pod in self._server.history["pods"] if owner_uid(pod) == uid(job)}
            pods = pods_of(self._server, job)
            if (
                is_finished(job)
                or job["status"].get("conditions")
                or job["spec"].get("activeDeadlineSeconds") in (0, None)
            ):
                continue
            if len(ever) == len(pods) == 1 and cause_of(pods[0]) is not None and _first_in_time(job, pods[0]):
                found.append(f"{name} waits for its image and is not ended")
        return found

    def landed(self, call: Call, answer: HttpAnswer) -> None:
        """Check an executed call."""
        if answer.status >= 300:
            return
        process = self._sender(call)
        if "labelSelector" in call.query and process is not None:
            self._read_pods[process, call.query["labelSelector"].rpartition("=")[2]] = self._server.version
        if call.calls is Calls.PATCH and process is not None and ANNOTATION_RECORD.encode() in (call.body or b""):
            self._recorded(process, answer.body)
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
            self.broken(f"{key.name} was created after its caller got {request.outcome}")
        if self._too_late(call, request, key):
            self._late.add(uid(job))
            return
        if any(other.is_leader for other in self._processes if other is not request.process):
            self.broken(f"{key.name} was created while another process is the leader")
        self._within_quota(call, request, job)
        self._within_rate(request, job)

    def _too_late(self, call: Call, request: Request, key: JobKey) -> bool:
        given_up = self._api.loop.time() > call.sent + call.seconds or not request.process.alive
        taken_over = self._taken_over(request.process, since=call.mark)
        looked = call.version if request.looked is None else request.looked
        return (given_up and taken_over) or self._was_deleted(key, since=min(looked, call.version))

    def _within_quota(self, call: Call, request: Request, job: Json) -> None:
        observed = request.process.wire.observed
        late_pods = {uid(pod) for pod in self._server.objects["pods"].values() if owner_uid(pod) in self._late}
        excusable = self._controllers.foreign | self._late | late_pods | observed.lost
        hidden = {item for item in excusable if observed.objects.get(item, call.mark + 1) > call.mark}
        requested = requests_of(job)._replace(jobs=1)
        usage, quota = usage_of(self._server, job["metadata"]["namespace"], hidden), TENANTS[request.tenant]
        sums = zip(Usage._fields, requested, usage, quota, strict=True)
        if exceeded := [name for name, part, total, limit in sums if part and total > limit]:
            self.broken(f"{request.tenant} exceeds its quota of {', '.join(exceeded)}: {usage} of {quota}")
        budget = POLICY.tenants[request.tenant].budget
        if budget is not None:
            parts = budget_of(self._server, job["metadata"]["namespace"], self._api.now(), budget.seconds, hidden)
            if sum(parts) > budget.usd:
                self.broken(f"{request.tenant} exceeds its budget of {budget.usd}: {parts}")

    def _within_rate(self, request: Request, job: Json) -> None:
        """Check that existing Jobs keep to the rate in every period, across restarts."""
        made = self._starts[request.tenant]
        made.append((request.started, uid(job)))
        there = {uid(item) for item in self._server.objects["jobs"].values()}
        times = sorted(at for at, who in made if who in there)
        rate = POLICY.tenants[request.tenant].rate
        for first, start in enumerate(times):
            for last in range(first, len(times)):
                passed = (times[last] - start) * SKEW
                if last - first + 1 > rate.burst + passed * rate.per_minute / 60 + 1e-3:
                    self.broken(f"{request.tenant} has created {last - first + 1} jobs in {passed:g} s")
                    return

    # At each response

    def answered(self, request: Request, submission: Submission) -> None:
        """Check that the job of a response exists or was deleted, that a key has one id, and that a Job is new once.

        One exception: a process is frozen in its create until another becomes the leader. Both may report the Job as
        created. The other has read it back after an ambiguous create, and the Job does not name its creator
        (docs/architecture.md, I4).
        """
        key = JobKey(POLICY.tenants[request.tenant].namespace, submission.view.id)
        if not self._made[key]:
            self.broken(f"{key.name} is in a response and was never created")
        elif key not in self._server.objects["jobs"] and not self._was_deleted(key, since=0):
            self.broken(f"{key.name} is in a response and is lost")
        if request.key is not None and self._ids.setdefault((request.tenant, request.key), key.name) != key.name:
            self.broken(f"the key {request.key} has two jobs")
        if not submission.replayed and not self._taken_over(request.process, since=request.sent):
            self._announced[key] += 1
            if self._announced[key] > self._made[key]:
                self.broken(f"{key.name} was reported as created more often than it was created")

    def refused(self, request: Request) -> None:
        """Check that a response which promises that nothing was created is true."""
        if request.outcome in NOTHING_DONE and request.landed:
            self.broken(f"a Job was created and its caller got {request.outcome}")

    # At the end, after all faults have stopped

    def differences(self, process: Process) -> list[str]:
        """List the differences between a process's state and the API server."""
        found = []
        for tenant, account in process.cluster.ledger.accounts.items():
            namespace = POLICY.tenants[tenant].namespace
            used = account.used
            truth = usage_of(self._server, namespace)
            ledger = usage_in(used)
            if truth != ledger:
                found.append(f"{process.identity} has {tenant} at {ledger}, expected {truth}")
            ending, ledgers = terminating(self._server, namespace), account.terminating
            if ending != usage_in(ledgers)._replace(jobs=0):
                found.append(f"{process.identity} has {tenant}'s terminating pods at {ledgers}, not {ending}")
            if (limit := POLICY.tenants[tenant].budget) is not None and account.budget is not None:
                now = self._api.now()
                budget = budget_of(self._server, namespace, now, limit.seconds)
                if budget != Budget(account.budget.spent(now), used.ceiling):
                    found.append(
                        f"{process.identity} has {tenant}'s budget at {account.budget_to_json(now)}, not {budget}"
                    )
            if account.reservations:
                found.append(f"{process.identity} keeps reservations of {tenant}: {sorted(account.reservations)}")
        for (space, name), job in self._server.objects["jobs"].items():
            record = process.cluster.store.get(JobKey(space, name))
            if record is None or record.job is None or record.job.metadata.uid != uid(job):
                found.append(f"{process.identity} does not know {name}")
        if len(process.cluster.store) != len(self._server.objects["jobs"]):
            found.append(f"{process.identity} knows {len(process.cluster.store)} Jobs")
        return found

    def _taken_over(self, process: Process, since: int) -> bool:
        """Whether another process has acquired the Lease after `since`."""
        return any(at > since and who is not process for at, who in self._takings)

    def _was_deleted(self, key: JobKey, since: int) -> bool:
        """Whether a Job of this name was deleted after version `since`."""
        return any(
            version > since
            and type_ == "DELETED"
            and JobKey(item["metadata"]["namespace"], item["metadata"]["name"]) == key
            for version, type_, item in reversed(self._server.history["jobs"])
        )

    def _sender(self, call: Call) -> Process | None:
        return call.connection.owner if isinstance(call.connection.owner, Process) else None


def _first_in_time(job: Json, pod: Json) -> bool:
    """Whether the pod followed its Job so closely that Runway has missed no earlier attempt."""
    created, first = (datetime.fromisoformat(item["metadata"]["creationTimestamp"]) for item in (job, pod))
    return (first - created).total_seconds() <= FIRST_POD_SECONDS
