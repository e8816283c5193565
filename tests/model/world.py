"""A cluster, its Runway processes, their callers, and their invariants."""

from __future__ import annotations

from collections.abc import Coroutine
from typing import Any, Final

from runway.admission.validation import validate
from runway.errors import PublicError
from runway.jobs.models import CostView
from runway.jobs.spec import read_draft
from runway.quantity import micro_usd
from runway.services.dry_run import dry_run
from runway.state.job_store import JobKey
from tests.model.apiserver import ApiServer
from tests.model.controllers import GRACE_SECONDS, Controllers
from tests.model.invariants import InvariantChecker, Request
from tests.model.oracle import TENANTS, Json, Usage, budget_of, usage_of
from tests.model.policy import POLICY, SKEW, document
from tests.model.process import RESYNC_SECONDS, Process, owned_task, uncharged_usd
from tests.model.wire import REQUEST
from tests.support.virtual_time import VirtualLoop

QUIET_SECONDS: Final = 300.0
"""The system must converge in this time after all faults have stopped.

It covers a delayed create (60 s) and the reads that resolve it (150 s at most). It also covers the idle timeout of a
watch (90 s) and the Lease of a killed process (15 s).
"""


class Broken(AssertionError):
    """An invariant does not hold."""


class World:
    """The state of one history. Times are seconds of its loop's clock."""

    def __init__(self) -> None:
        self.processes: list[Process] = []
        self.loop = VirtualLoop(lambda: self.invariants.each_turn())
        self.loop.set_task_factory(owned_task)  # type: ignore[arg-type]
        self.api = ApiServer(self.loop, {tenant.namespace for tenant in POLICY.tenants.values()})
        self.controllers = Controllers(self.api.server)
        self.controllers.set_node(ready=True)
        self.invariants = InvariantChecker(self.api, self.controllers, self.processes)
        self.api.sending = self.invariants.sending
        self.api.landed = self.invariants.landed
        self.requests: list[Request] = []
        self._uncharged_before = sum(uncharged_usd().values())

    def start(self, identity: str, seed: int, skew: float = 1.0) -> Process:
        """Start a process. Two live processes must not have the same identity."""
        process = Process(self.api, POLICY, identity, seed, skew)
        self.api.connections.append(process.wire)
        self.processes.append(process)
        return process

    def submit(self, process: Process, tenant: str, key: str | None, spec: Json) -> Request:
        """Submit a job as a caller."""
        request = Request(tenant, key, spec, process, self.loop.time())
        self.requests.append(request)
        process.serve(lambda: self._submit(request))
        return request

    def cancel(self, process: Process, key: JobKey) -> None:
        """Cancel a job as a caller."""
        process.serve(lambda: self._quietly(process.cancel_job(key, self.api.now())))

    def dry_run(self, process: Process, tenant: str, spec: Json) -> None:
        """Send a dry run as a caller."""
        process.serve(lambda: self._quietly(dry_run(process.submitter, tenant, spec)))

    def kill(self, process: Process) -> None:
        """Kill a process, as SIGKILL does."""
        self.processes.remove(process)
        process.kill()

    def stop(self, process: Process) -> None:
        """Stop a process, as SIGTERM does. Takes at most the timeouts of the requests in progress.

        A frozen process ignores the signal and is killed after its grace period.
        """
        if process.frozen:
            self.loop.wait(GRACE_SECONDS)
            self.kill(process)
        else:
            self.loop.run_until_complete(process.stop())
            self.processes.remove(process)

    def check(self) -> None:
        """Raise Broken if the checker has found a violation."""
        self.invariants.each_step()
        if self.invariants.faults:
            raise Broken("\n".join(self.invariants.faults))

    def end(self) -> None:
        """Stop all faults, check that the system converges, and that each tenant can use its whole quota."""
        self.check()
        self._end_faults()
        # A stalled watch must deliver its events first: before that, the state may only look converged.
        self.loop.wait(1.0)
        quiet = self.loop.time() + QUIET_SECONDS + (RESYNC_SECONDS if self.api.lost_events else 0)
        while differences := self._differences():
            if self.loop.time() > quiet:
                raise Broken(f"not converged {QUIET_SECONDS:g} s after the last fault:\n" + "\n".join(differences))
            self.loop.wait(1.0)
            self.controllers.catch_up()
            self.check()
        counted = sum(uncharged_usd().values()) - self._uncharged_before
        if counted > float(self.invariants.uncharged) + 1e-6:
            raise Broken(f"the metric of uncharged cost has {counted}, more than {self.invariants.uncharged}")
        for tenant in POLICY.tenants:
            self._fill(tenant)
        self.check()

    def close(self) -> None:
        """Kill every process and close the loop."""
        for process in list(self.processes):
            self.kill(process)
        self.loop.close()

    def _end_faults(self) -> None:
        self.api.network.clear()
        self.api.server.come_back()
        self.api.resume()
        self.controllers.set_node(ready=True)
        for process in self.processes:
            process.wire.heal()
        self.api.wake()
        if not self.processes:
            self.start("one", seed=0)

    def _differences(self) -> list[str]:
        if self.api.in_flight:
            return [f"{len(self.api.in_flight)} calls are in flight"]
        if sum(process.is_leader for process in self.processes) != 1:
            return ["there is not exactly one leader"]
        if any(process.serving for process in self.processes):
            return ["submissions are in progress"]
        if any(watch.disconnect_reason for process in self.processes for watch in process.cluster.watches.values()):
            return ["a watch is disconnected"]
        found = [difference for process in self.processes for difference in self.invariants.differences(process)]
        return found + self.invariants.jobs_to_end()

    def _fill(self, tenant: str) -> None:
        """Check that Runway admits exactly the free quota, to the last GPU and byte."""
        quota, usage = TENANTS[tenant], usage_of(self.api.server, POLICY.tenants[tenant].namespace)
        free = Usage(*(limit - part for limit, part in zip(quota, usage, strict=True)))
        limits = POLICY.limits
        disk, gpu = min(free.disk, limits.disk.max), min(free.gpu, limits.gpu.max)
        gpu_type, of_type = max((("a10g", free.a10g), ("h100", free.h100)), key=lambda entry: entry[1])
        gpu = min(gpu, of_type)
        if gpu < 0 or free.jobs < 1 or free.cpu < limits.cpu.min or free.memory < limits.memory.min:
            return
        if disk < limits.disk.min:
            return
        resources = {"gpu": gpu, "cpu": f"{free.cpu}m", "memory": str(free.memory), "disk": str(disk)}
        spec = document(resources | ({"gpu_type": gpu_type} if gpu else {}), None)
        fits = self._fits_prices(tenant, free, validate(read_draft(spec), POLICY, tenant).price)
        if (outcome := self._outcome(tenant, spec)) != ("created" if fits else "quota_exceeded"):
            raise Broken(f"{tenant} has {free} free and got {outcome}")
        if not fits:
            return
        small = document({"cpu": "100m", "memory": "32Mi", "disk": "100Mi"}, None)
        if (outcome := self._outcome(tenant, small)) != "quota_exceeded":
            raise Broken(f"{tenant} has no free quota and got {outcome}")

    def _fits_prices(self, tenant: str, free: Usage, price: CostView) -> bool:
        """Return whether a job of this price fits the free hourly price and the free budget."""
        limits = POLICY.tenants[tenant]
        if micro_usd(price.hourly) > free.usd:
            return False
        if limits.budget is None:
            return True
        parts = budget_of(self.api.server, limits.namespace, self.api.now(), limits.budget.seconds)
        return sum(parts) + micro_usd(price.ceiling) <= limits.budget.usd

    def _outcome(self, tenant: str, spec: Json) -> str | None:
        """Submit, retry once after Retry-After, and return the outcome."""
        writer = next(process for process in self.processes if process.is_leader)
        for _ in range(2):
            request = self.submit(writer, tenant, None, spec)
            self.loop.turns(10)
            if request.outcome != "rate_limited" or request.refusal is None:
                break
            # The leader's clock may be slow, and Retry-After refers to its clock.
            self.loop.wait(float(request.refusal.retry_after or 0) * SKEW)
        return request.outcome

    async def _quietly(self, work: Coroutine[Any, Any, object]) -> None:
        """Run a request whose outcome does not matter; any error but a PublicError is a violation."""
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
        except Exception as error:  # noqa: BLE001 (a caller would get a 500)
            request.outcome = "500"
            self.invariants.broken(f"a submission failed with {error!r}")
        else:
            request.outcome = "replayed" if submission.replayed else "created"
            self.invariants.answered(request, submission)
