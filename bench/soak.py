"""`python -m bench.soak --minutes 30`: find leaks and wrong decisions under load.

It runs on the local cluster with its real kubelet. The load has valid and invalid submissions, repeated keys, reads,
aborted streams, cancels and the mix of `bench.hostile_clients`, half of it through nginx. The faults are a frozen API
server and deleted pods. Finished jobs live for a minute, so the number of jobs stays constant, and memory should too.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import random
import statistics
import sys
import tempfile
import time
import uuid
from collections import Counter, defaultdict
from collections.abc import Awaitable, Callable, Iterator, Set
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import aiohttp
import yaml

from bench import report
from bench.audit import Audit, audit
from bench.faults import delete_a_pod, freeze
from bench.findings import WrittenJob
from bench.hostile_clients import HostileClients
from bench.kubernetes import ApiServer, delete_namespace
from bench.process import ROOT, Process, render_tenants
from bench.soak_jobs import SCRIPT_WEIGHTS, SCRIPTS, spec_of
from localcluster.cluster import LocalCluster
from localcluster.packages import ensure_installed
from testbed.nginx import PACKAGES, nginx

POLICY = ROOT / "bench" / "soak.policy.yaml"
TENANTS: dict[str, dict[str, Any]] = yaml.safe_load(POLICY.read_text())["tenants"]
SUBMIT_SECONDS = 2.0
"""Mean pause of each of the three submitting clients: about the rate at which the local node finishes jobs."""
RELEASE_SECONDS = 180.0
GROWTH = 1.10
"""The allowed ratio of memory in the last quarter to memory in the second quarter."""

EXTRA_SECONDS = 180.0
"""How much longer the load may take until it has had the required responses: a slow node starts few jobs in 30 s."""

HOSTILE_LOOPS = 6
HOSTILE_SECONDS = 0.2
"""Mean pause between two clients of each loop."""
QUIET_SECONDS = 45.0
"""After the load: above the server's longest bound for a client that does nothing, 30 s."""
MORE = 10
"""The allowed number of tasks and open files at the end above that at the start."""
PROXIES = {"http-1.0": "client_max_body_size 32m;", "http-1.1": "client_max_body_size 32m; proxy_http_version 1.1;"}
"""The options of nginx, which buffers and speaks HTTP/1.0 to its upstream by default."""


@dataclass(frozen=True, slots=True)
class State:
    """Runway's own metrics and those of its process."""

    at: float
    resident_mb: float
    files: int
    tasks: int
    streams: int
    jobs: int


@dataclass(slots=True)
class Soak:
    """The load and its observations. `wrong` lists every incorrect response."""

    url: str
    chance: random.Random
    due: list[str] = field(default_factory=list)
    """The kinds of submissions that are left of this round."""
    answers: Counter[str] = field(default_factory=Counter)
    wrong: list[str] = field(default_factory=list)
    jobs: dict[str, tuple[str, str | None, str]] = field(default_factory=dict)
    """By id: tenant, key and expected final state."""
    specs: dict[str, dict[str, Any]] = field(default_factory=dict)
    """The specifications of jobs as they were sent, by id."""
    logs: dict[str, bytes] = field(default_factory=dict)
    """The logs that jobs write, by id."""
    states: list[State] = field(default_factory=list)
    clients: Counter[str] = field(default_factory=Counter)
    """Hostile clients by kind, and their responses by status."""
    outcomes: dict[str, set[str]] = field(default_factory=lambda: defaultdict(set))
    """Finished jobs by failure code or state."""

    def check(self, right: bool, what: str) -> None:
        """Record an incorrect response unless `right`."""
        if not right:
            self.wrong.append(what)

    async def submit(self, session: aiohttp.ClientSession) -> None:
        """Send a submission of a random kind and check the response."""
        tenant = self.chance.choice(list(TENANTS))
        kind = self._next_kind()
        key = str(uuid.uuid4()) if self.chance.random() < 0.5 else None
        script = self.chance.choices(SCRIPTS, SCRIPT_WEIGHTS)[0]
        if kind == "again" and self.jobs:
            job = self.chance.choice(list(self.jobs)[-20:])
            owner, used, _ = self.jobs[job]
            if used is not None:
                await self._again(session, job, owner, used)
                return
        spec = spec_of(script, self.chance.choice((0, 0, 1, 2)))
        if kind == "bad":
            spec["resources"]["cpu"] = self.chance.choice(["NaN", "1 Gi", "-1", "٣", "1e400"])
        if kind == "huge":
            spec["resources"]["gpu"] = 3
        sender = "nobody" if kind == "stranger" else tenant
        status, body = await self._post(session, sender, spec, key)
        expected = {
            "bad": ("422 invalid_spec",),
            "stranger": ("403 unknown_tenant",),
            "huge": ("403 quota_exceeded",),
        }.get(kind, ("201", "403 quota_exceeded"))
        answer = str(status) if status < 400 else f"{status} {body.get('code')}"
        self.check(answer in expected or status in (429, 503), f"{kind} got {answer}")
        if status == 201:
            self.check(body["id"] not in self.jobs, f"{body['id']} was created twice")
            self.jobs[body["id"]], self.specs[body["id"]] = (tenant, key, script.end), spec
            self.logs[body["id"]] = script.log
            if self.chance.random() < 0.1:
                await self.cancel(session, body["id"])

    def _next_kind(self) -> str:
        """Return a random kind. Each round has all of them, so that a short run misses none."""
        if not self.due:
            self.due = ["good"] * 12 + ["again"] * 2 + ["bad"] * 2 + ["stranger", "huge"]
            self.chance.shuffle(self.due)
        return self.due.pop()

    async def _again(self, session: aiohttp.ClientSession, job: str, tenant: str, key: str) -> None:
        async with session.get(f"{self.url}/v1/jobs/{job}", headers={"X-Tenant-ID": tenant}) as answer:
            if answer.status != 200:
                return
        status, body = await self._post(session, tenant, self.specs[job], key)
        # The job may have expired in between, a minute after it finished; then the submission creates a new one.
        self.check(status in (200, 201, 429, 503), f"a repeated submission got {status} {body.get('code')}")
        self.check(status >= 400 or body["id"] == job, f"a repeated submission of {job} is {body.get('id')}")

    async def _post(
        self, session: aiohttp.ClientSession, tenant: str, spec: dict[str, Any], key: str | None
    ) -> tuple[int, dict[str, Any]]:
        headers = {"X-Tenant-ID": tenant} | ({"Idempotency-Key": key} if key else {})
        async with session.post(f"{self.url}/v1/jobs", json=spec, headers=headers) as answer:
            body: dict[str, Any] = await answer.json(content_type=None)
        self.answers[f"submit {answer.status}"] += 1
        return answer.status, body

    async def cancel(self, session: aiohttp.ClientSession, job: str) -> None:
        """Cancel a job after a random time."""
        await asyncio.sleep(self.chance.uniform(0, 4))
        tenant, key, _ = self.jobs[job]
        async with session.delete(f"{self.url}/v1/jobs/{job}", headers={"X-Tenant-ID": tenant}) as answer:
            self.answers[f"cancel {answer.status}"] += 1
            self.check(answer.status in (200, 202, 404, 503), f"a cancel got {answer.status}")
            maybe_done = answer.status < 500 or (await answer.json()).get("code") == "outcome_unknown"
        if maybe_done:
            self.jobs[job] = (tenant, key, "any")

    async def read(self, session: aiohttp.ClientSession) -> None:
        """Send a random read and check its status."""
        paths = ["/v1/jobs?limit=50", "/v1/quota", "/v1/policy", "/metrics", "/", "/jobs", "/readyz"]
        if self.jobs:
            job = self.chance.choice(list(self.jobs)[-50:])
            paths += [f"/v1/jobs/{job}", f"/v1/jobs/{job}/usage", f"/jobs/{job}", f"/v1/jobs/{job}/logs"]
        path = self.chance.choice(paths)
        async with session.get(f"{self.url}{path}") as answer:
            try:
                await answer.read()
            except aiohttp.ClientPayloadError:
                # Runway aborts a log response if its source fails, so that a partial log is not taken as complete.
                self.answers["read aborted"] += 1
                self.check(path.endswith("/logs"), f"GET {path} was aborted")
        self.answers[f"read {answer.status}"] += 1
        self.check(answer.status < 500 or answer.status == 503, f"GET {path} got {answer.status}")

    async def stream(self, session: aiohttp.ClientSession) -> None:
        """Follow a log or the events of a job for a while; half of the clients disconnect early."""
        if not self.jobs:
            return
        job = self.chance.choice(list(self.jobs)[-10:])
        path = self.chance.choice((f"/v1/jobs/{job}/events", f"/v1/jobs/{job}/logs?follow=true"))
        patience = self.chance.choice((0.5, 15.0))
        with contextlib.suppress(TimeoutError, aiohttp.ClientPayloadError):
            async with asyncio.timeout(patience), session.get(f"{self.url}{path}") as answer:
                self.answers[f"stream {answer.status}"] += 1
                self.check(answer.status < 500 or answer.status == 503, f"GET {path} got {answer.status}")
                async for _ in answer.content.iter_any():
                    pass

    def written_jobs(self) -> list[WrittenJob]:
        """Return the newest jobs with their logs."""
        return [WrittenJob(job, self.jobs[job][0], self.logs[job]) for job in list(self.jobs)[-15:]]

    async def compare(self, session: aiohttp.ClientSession) -> None:
        """Compare the outcomes of finished jobs with the expected ones."""
        async with session.get(f"{self.url}/v1/jobs?limit=200&state=succeeded&state=failed&state=cancelled") as answer:
            views = (await answer.json())["jobs"] if answer.status == 200 else []
        for view in views:
            _, _, end = self.jobs.get(view["id"], ("", None, "any"))
            code = view["failure"] and view["failure"]["code"]
            # A deleted pod fails its job, whatever its script does.
            right = end in ("any", view["state"]) or code == "pod_deleted"
            self.check(right, f"{view['id']} should be {end} and is {view['state']} ({code})")
            self.outcomes[str(code or view["state"])].add(view["id"])

    async def observe(self, session: aiohttp.ClientSession, process: Process, began: float) -> None:
        """Record Runway's metrics and the figures of its process."""
        async with session.get(f"{self.url}/metrics") as answer:
            lines = [line for line in (await answer.text()).splitlines() if not line.startswith("#")]
        values = {line.rpartition(" ")[0]: float(line.rpartition(" ")[2]) for line in lines}
        jobs = sum(value for name, value in values.items() if name.startswith("runway_jobs{"))
        self.check(values["runway_internal_errors_total"] == 0, "Runway raised an internal error")
        self.states.append(
            State(
                at=time.monotonic() - began,
                resident_mb=process.memory()[0],
                files=process.open_files(),
                tasks=int(values["runway_tasks"]),
                streams=int(values["runway_open_streams"]),
                jobs=int(jobs),
            )
        )


async def soak(
    cluster: LocalCluster,
    process: Process,
    proxies: list[int],
    seconds: float,
    seed: int,
    submit_seconds: float,
    required: Set[str],
) -> tuple[Soak, Audit]:
    """Run the load for `seconds`, then wait until all quota is released and all clients are gone.

    The load continues until it has had all `required` responses, for at most EXTRA_SECONDS more.
    """
    found = Soak(process.url, random.Random(seed))  # noqa: S311 (reproducible by its seed)
    clients = HostileClients(_port(process.url), proxies, ("red", "green"), found.written_jobs, found.chance)
    api, began = ApiServer.from_kubeconfig(cluster.kubeconfig), time.monotonic()
    over = asyncio.Event()
    timeout, connector = aiohttp.ClientTimeout(total=30), aiohttp.TCPConnector(limit=0)
    async with aiohttp.ClientSession(timeout=timeout, connector=connector) as session, audit(api) as record:

        async def repeat(call: Callable[[], Awaitable[None]], pause: float) -> None:
            while not over.is_set():
                await call()
                with contextlib.suppress(TimeoutError):
                    await asyncio.wait_for(over.wait(), found.chance.uniform(0.5, 1.5) * pause)

        async def end() -> None:
            await asyncio.sleep(seconds)
            latest = time.monotonic() + EXTRA_SECONDS
            while required - found.answers.keys() - clients.found.answers.keys() and time.monotonic() < latest:  # noqa: ASYNC110
                await asyncio.sleep(0.5)
            over.set()
            for loop in hostile:
                loop.cancel()  # A client that is not done at the end vanishes.

        async with asyncio.TaskGroup() as tasks:
            for _ in range(3):
                tasks.create_task(repeat(lambda: found.submit(session), submit_seconds))
                tasks.create_task(repeat(lambda: found.stream(session), 0.5))
                tasks.create_task(repeat(lambda: found.read(session), 0.1))
            hostile = [tasks.create_task(repeat(clients.act, HOSTILE_SECONDS)) for _ in range(HOSTILE_LOOPS)]
            tasks.create_task(end())
            tasks.create_task(repeat(lambda: found.observe(session, process, began), 2.0))
            tasks.create_task(repeat(lambda: found.compare(session), 5.0))
            tasks.create_task(repeat(lambda: freeze(cluster), 40.0))
            tasks.create_task(repeat(lambda: delete_a_pod(cluster), 20.0))
        await _wait_for_release(found, session)
        await _wait_until_clients_are_gone(found, session, process, began)
    found.wrong += clients.found.wrong
    found.clients = clients.found.answers
    return found, record


def _port(url: str) -> int:
    return urlsplit(url).port or 80


async def _wait_for_release(found: Soak, session: aiohttp.ClientSession) -> None:
    """Wait until no quota is used or reserved; after the timeout, record the rest as wrong."""
    deadline, in_use = time.monotonic() + RELEASE_SECONDS, "unknown"
    while time.monotonic() < deadline:
        async with session.get(f"{found.url}/v1/quota") as answer:
            tenants = (await answer.json())["tenants"] if answer.status == 200 else None
        if tenants is not None:
            in_use = ", ".join(
                f"{tenant['tenant']} {kind} {tenant[kind]}"
                for tenant in tenants
                for kind in ("used", "reserved")
                if tenant[kind]["jobs"] or tenant[kind]["gpu"]
            )
            if not in_use:
                return
        await asyncio.sleep(1)
    found.wrong.append(f"still in use {RELEASE_SECONDS:.0f} s after the last submission: {in_use}")


async def _wait_until_clients_are_gone(
    found: Soak, session: aiohttp.ClientSession, process: Process, began: float
) -> None:
    """Observe until the process holds as little as at the start, or until the timeout; `judge` compares them."""
    deadline, first = time.monotonic() + QUIET_SECONDS, found.states[0]
    while True:
        await found.observe(session, process, began)
        last = found.states[-1]
        is_quiet = not last.streams and last.files <= first.files + MORE and last.tasks <= first.tasks + MORE
        if is_quiet or time.monotonic() > deadline:
            return
        del found.states[-1]
        await asyncio.sleep(1)


def judge(found: Soak, record: Audit, growth: float = GROWTH) -> list[str]:
    """List everything wrong. A short run still fills its pools and needs a larger `growth`."""
    wrong = [*found.wrong]
    peaks = record.peak_usage()
    for tenant, policy in TENANTS.items():  # Jobs of other tenants may be left in the cluster.
        peak, limit = peaks.get(tenant, 0), policy["quota"]["gpu"]
        if peak > limit:
            wrong.append(f"tenant {tenant} used {peak} GPUs of {limit}")
    first, last = found.states[0], found.states[-1]
    if last.streams:
        wrong.append(f"{last.streams} streams are open at the end")
    if last.tasks > first.tasks + MORE:
        wrong.append(f"{last.tasks} tasks at the end, {first.tasks} at the start")
    if last.files > first.files + MORE:
        wrong.append(f"{last.files} files are open at the end, {first.files} at the start")
    before, after = memory(found)
    if after > before * growth:
        wrong.append(f"memory grew from {before:.0f} to {after:.0f} MB")
    return wrong


def memory(found: Soak) -> tuple[float, float]:
    """Return the median resident memory of the second and of the last quarter, in MB."""
    quarter = len(found.states) // 4
    second, last = found.states[quarter : 2 * quarter], found.states[3 * quarter :]
    return statistics.median(one.resident_mb for one in second), statistics.median(one.resident_mb for one in last)


def run(
    minutes: float,
    seed: int,
    growth: float = GROWTH,
    submit_seconds: float = SUBMIT_SECONDS,
    required: Set[str] = frozenset(),
) -> tuple[Soak, list[str]]:
    """Start Runway on the local cluster, run the soak, and delete its namespaces."""
    cluster = LocalCluster.default()
    render_tenants(cluster, POLICY)
    try:
        with Process(cluster.kubeconfig, "soak", policy=POLICY) as process, _proxies(process.url) as proxies:
            process.wait_for("writer")
            found, record = asyncio.run(soak(cluster, process, proxies, minutes * 60, seed, submit_seconds, required))
    finally:
        asyncio.run(_remove(ApiServer.from_kubeconfig(cluster.kubeconfig)))
    return found, judge(found, record, growth)


@contextlib.contextmanager
def _proxies(url: str) -> Iterator[list[int]]:
    """Run nginx in front of Runway, once for each of PROXIES, and yield the ports."""
    with tempfile.TemporaryDirectory() as scratch, contextlib.ExitStack() as stack:
        ports = []
        for name, options in PROXIES.items():
            folder = Path(scratch) / name
            folder.mkdir()
            ports.append(_port(stack.enter_context(nginx(folder, url, options=options))))
        yield ports


async def _remove(api: ApiServer) -> None:
    await asyncio.gather(*(delete_namespace(api, tenant["namespace"]) for tenant in TENANTS.values()))


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m bench.soak", description=__doc__)
    parser.add_argument("--minutes", type=float, default=30)
    parser.add_argument("--seed", type=int, default=random.randrange(2**32))  # noqa: S311 (any seed will do)
    parser.add_argument("--no-write", action="store_true", help="do not change docs/performance.md")
    asked = parser.parse_args()
    print(f"soak: {asked.minutes:g} minutes, seed {asked.seed}", flush=True)
    ensure_installed(PACKAGES)
    found, wrong = run(asked.minutes, asked.seed)
    text = _text(found, asked.minutes, wrong)
    print(text, *wrong, sep="\n")
    if wrong:
        sys.exit(1)
    if not asked.no_write:
        version = json.loads(LocalCluster.default().kubectl("version", "-o", "json"))["serverVersion"]["gitVersion"]
        report.write({"soak": text}, f"Kubernetes {version}")


def _text(found: Soak, minutes: float, wrong: list[str]) -> str:
    before, after = memory(found)
    first, last = found.states[0], found.states[-1]
    answers = ", ".join(f"{name}: {number}" for name, number in sorted(found.answers.items()))
    outcomes = ", ".join(f"{name}: {len(ids)}" for name, ids in sorted(found.outcomes.items()))
    clients = ", ".join(f"{name}: {number}" for name, number in sorted(found.clients.items()) if not name[-1].isdigit())
    return (
        f"{minutes:g} minutes: {len(found.jobs)} jobs. Responses: {answers}. Outcomes: {outcomes}. "
        f"Hostile clients: {clients}. "
        f"Wrong: {len(wrong)}.\n\n"
        "| | at the start | at the end |\n| --- | ---: | ---: |\n"
        f"| resident MB, median of the second and the last quarter | {before:.0f} | {after:.0f} |\n"
        f"| tasks | {first.tasks} | {last.tasks} |\n"
        f"| open files | {first.files} | {last.files} |\n"
        f"| open streams | {first.streams} | {last.streams} |"
    )


if __name__ == "__main__":
    main()
