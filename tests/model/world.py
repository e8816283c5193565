"""A cluster, its Runway processes, their callers, and their invariants."""

from __future__ import annotations

from collections.abc import Coroutine
from typing import Any, Final

from runway.errors import PublicError
from runway.state.job_store import JobKey
from tests.model.apiserver import ApiServer
from tests.model.controllers import Controllers
from tests.model.invariants import InvariantChecker, Request
from tests.model.oracle import Held, Json, use
from tests.model.policy import POLICY, SKEW, TENANTS, document
from tests.model.process import RESYNC_SECONDS, Process, owned_task
from tests.model.wire import REQUEST
from tests.support.virtual_time import VirtualLoop

QUIET_SECONDS: Final = 300.0
"""In this time everything must have come right once all faults have stopped: a create that may still land (60 s), the
reads that settle it (150 s at most), the idle time of a watch (90 s) and the Lease of a process that is gone (15 s)."""
GRACE_SECONDS: Final = 30.0
"""`terminationGracePeriodSeconds` as Kubernetes has it where nobody says otherwise."""


class Broken(AssertionError):
    """Something that must hold does not."""


class World:
    """Everything of one history. Times are seconds of its loop's clock."""

    def __init__(self) -> None:
        self.processes: list[Process] = []
        self.loop = VirtualLoop(lambda: self.invariants.each_turn())
        self.loop.set_task_factory(owned_task)  # type: ignore[arg-type]
        self.api = ApiServer(self.loop, {tenant.namespace for tenant in POLICY.tenants.values()})
        self.controllers = Controllers(self.api.server)
        self.invariants = InvariantChecker(self.api, self.controllers, self.processes)
        self.api.sending = self.invariants.sending
        self.api.landed = self.invariants.landed
        self.requests: list[Request] = []

    def start(self, identity: str, seed: int, skew: float = 1.0) -> Process:
        """Start a process; no two that are alive may have one identity."""
        process = Process(self.api, POLICY, identity, seed, skew)
        self.api.connections.append(process.wire)
        self.processes.append(process)
        return process

    def submit(self, process: Process, tenant: str, key: str | None, spec: Json) -> Request:
        """A caller submits."""
        request = Request(tenant, key, spec, process, self.loop.time())
        self.requests.append(request)
        process.serve(lambda: self._submit(request))
        return request

    def cancel(self, process: Process, key: JobKey) -> None:
        """A caller cancels a job."""
        process.serve(lambda: self._quietly(process.cancel_job(key, self.api.now())))

    def dry_run(self, process: Process, tenant: str, spec: Json) -> None:
        """A caller only asks."""
        process.serve(lambda: self._quietly(process.submitter.dry_run(tenant, spec)))

    def kill(self, process: Process) -> None:
        """kill -9."""
        self.processes.remove(process)
        process.kill()

    def stop(self, process: Process) -> None:
        """SIGTERM. Takes at most the time-outs of what is in progress.

        A process that is frozen does not hear it, and is killed when its time to end is over.
        """
        if process.frozen:
            self.loop.wait(GRACE_SECONDS)
            self.kill(process)
        else:
            self.loop.run_until_complete(process.stop())
            self.processes.remove(process)

    def check(self) -> None:
        """Raise Broken where the referee has found anything."""
        self.invariants.each_step()
        if self.invariants.faults:
            raise Broken("\n".join(self.invariants.faults))

    def end(self) -> None:
        """All faults stop; then everything comes right by itself, and there is room for what fits."""
        self.check()
        self._end_faults()
        # What a mute watch has kept back comes first: before it is told, all may look settled that is not.
        self.loop.wait(1.0)
        quiet = self.loop.time() + QUIET_SECONDS + (RESYNC_SECONDS if self.api.lost_events else 0)
        while unsettled := self._unsettled():
            if self.loop.time() > quiet:
                raise Broken(f"after {QUIET_SECONDS:g} s of quiet:\n" + "\n".join(unsettled))
            self.loop.wait(1.0)
            self.controllers.catch_up()
            self.check()
        for tenant in POLICY.tenants:
            self._fill(tenant)
        self.check()

    def close(self) -> None:
        """Every process is killed and the loop closed."""
        for process in list(self.processes):
            self.kill(process)
        self.loop.close()

    def _end_faults(self) -> None:
        self.api.network.clear()
        self.api.server.come_back()
        self.api.resume()
        for process in self.processes:
            process.wire.heal()
        self.api.wake()
        if not self.processes:
            self.start("one", seed=0)

    def _unsettled(self) -> list[str]:
        if self.api.in_flight:
            return [f"{len(self.api.in_flight)} calls are in flight"]
        if sum(process.writes for process in self.processes) != 1:
            return ["nobody writes"]
        if any(process.serving for process in self.processes):
            return ["submissions are in progress"]
        if any(watch.disconnect_reason for process in self.processes for watch in process.observer.watches.values()):
            return ["contact is lost"]
        return [difference for process in self.processes for difference in self.invariants.differences(process)]

    def _fill(self, tenant: str) -> None:
        """What is free is given, to the last GPU and byte, and nothing beyond it."""
        quota, held = TENANTS[tenant], use(self.api.server, POLICY.tenants[tenant].namespace)
        free = Held(*(limit - part for limit, part in zip(quota, held, strict=True)))
        limits = POLICY.limits
        if free.gpu < 0 or free.jobs < 1 or free.cpu < limits.cpu.min or free.memory < limits.memory.min:
            return
        resources = {"gpu": free.gpu, "cpu": f"{free.cpu}m", "memory": str(free.memory)}
        if (outcome := self._outcome(tenant, resources)) != "created":
            raise Broken(f"{tenant} has {free} free and was told {outcome}")
        if (outcome := self._outcome(tenant, {"cpu": "100m", "memory": "32Mi"})) != "quota_exceeded":
            raise Broken(f"{tenant} has nothing free and was told {outcome}")

    def _outcome(self, tenant: str, resources: Json) -> str | None:
        """What a caller gets who comes back when told to, once."""
        writer = next(process for process in self.processes if process.writes)
        for _ in range(2):
            request = self.submit(writer, tenant, None, document(resources, None))
            self.loop.turns(10)
            if request.outcome != "rate_limited" or request.refusal is None:
                break
            # The writer's clock may be slow, and what it promises is told by its clock.
            self.loop.wait(float(request.refusal.retry_after or 0) * SKEW)
        return request.outcome

    async def _quietly(self, work: Coroutine[Any, Any, object]) -> None:
        """What has no outcome of interest, but must not fail in any way that a caller cannot be told."""
        try:
            await work
        except PublicError:
            pass
        except Exception as error:  # noqa: BLE001
            self.invariants.broken(f"a request failed with {error!r}")

    async def _submit(self, request: Request) -> None:
        REQUEST.set(request)
        request.started = self.loop.time()
        try:
            submission = await request.process.submitter.submit(request.tenant, request.document, request.key)
        except PublicError as error:
            request.outcome, request.refusal = error.code, error
            self.invariants.refused(request)
        except Exception as error:  # noqa: BLE001 (whatever it is, a caller would have got a 500)
            request.outcome = "500"
            self.invariants.broken(f"a submission failed with {error!r}")
        else:
            request.outcome = "replayed" if submission.replayed else "created"
            self.invariants.answered(request, submission)
