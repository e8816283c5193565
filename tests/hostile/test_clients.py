"""The mix of hostile clients against a real process: no wrong answer, no leak, flat memory.

The soak (`make soak`) plays the same mix on the real cluster. `HOSTILE_FULL=1` plays it for three minutes.
"""

from __future__ import annotations

import asyncio
import os
import random
from collections.abc import Iterator
from contextlib import ExitStack
from typing import NamedTuple
from urllib.parse import urlsplit

import httpx2
import pytest

from bench.findings import WrittenJob
from bench.hostile_clients import HostileClients
from testbed.nginx import nginx
from testbed.waiting import GUARD_SECONDS, wait_for
from tests.hostile.apiserver import CHUNK
from tests.hostile.serving import FULL, MIB, POLICY, Process, Runway, api_server, runway

SECONDS = 180.0 if FULL else 6.0
CLIENTS = 24
LINE = b"x" * 80 + b"\n"
PROXY = "client_max_body_size 32m;"
GROWTH_BYTES = 24 * MIB
"""Growth from the middle third to the last one. A short run still fills its pools."""


class Scene(NamedTuple):
    """A Runway behind two proxies, with jobs whose logs are known."""

    api: Process
    runway: Runway
    proxies: list[int]
    jobs: list[WrittenJob]


@pytest.fixture(scope="module")
def scene(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Scene]:
    scratch = tmp_path_factory.mktemp("clients")
    rate = "rate: {per_minute: 600, burst: 100"
    fast = "rate: {per_minute: 600000, burst: 100000, reads: {per_minute: 1000000, burst: 1000000}"
    (scratch / "policy.yaml").write_text(POLICY.read_text().replace(rate, fast))
    with ExitStack() as stack:
        api = stack.enter_context(api_server(scratch))
        process = stack.enter_context(runway(scratch, policy=scratch / "policy.yaml"))
        proxies = []
        for name, options in (("old", ""), ("new", "proxy_http_version 1.1;")):
            folder = scratch / name
            folder.mkdir()
            url = stack.enter_context(nginx(folder, process.url, options=f"{PROXY} {options}"))
            proxies.append(urlsplit(url).port or 0)
        yield Scene(api, process, proxies, _jobs(api, process))


def _jobs(api: Process, process: Runway) -> list[WrittenJob]:
    """Submit a job that runs and is silent, one with a short log, and two with longer ones; three of them end."""
    jobs = [WrittenJob(process.submit("quiet"), "vision", b"hello\n")]
    for kind, size in (("short", 0), ("flood", 2 * CHUNK), ("flood", 40 * CHUNK)):
        block = LINE * (CHUNK // (len(LINE) + 31))
        log = block * (size // ((len(LINE) + 31) * (CHUNK // (len(LINE) + 31)))) if size else b"hello\n"
        job = WrittenJob(process.submit(kind, str(size)), "vision", log)
        httpx2.post(f"{api.url}/finish/{job.id}", timeout=GUARD_SECONDS, trust_env=False).raise_for_status()
        jobs.append(job)
    return jobs


def test_hostile_clients_get_right_answers_and_leave_nothing_behind(scene: Scene) -> None:
    seed = int(os.environ.get("RUNWAY_FUZZ_SEED", random.randrange(2**32)))
    print(f"\nRUNWAY_FUZZ_SEED={seed}")
    clients = HostileClients(
        scene.runway.port,
        scene.proxies,
        ["vision", "speech"],
        lambda: scene.jobs,
        random.Random(seed),
        # Each takes 20 s until Runway closes its connection; test_bytes.py has shorter bounds for them.
        without=() if FULL else ("stops writing",),
    )
    before = scene.runway.descriptors(), scene.runway.metric("runway_tasks")
    memory: list[int] = []

    asyncio.run(_play(clients, scene.runway, memory))

    print(dict(clients.found.answers), [size // MIB for size in memory])
    assert clients.found.wrong == []
    assert scene.runway.faults() == []
    third = len(memory) // 3
    assert max(memory[2 * third :]) < max(memory[third : 2 * third]) + GROWTH_BYTES
    wait_for(lambda: scene.runway.metric("runway_open_streams") == 0 or None, "streams closed")
    wait_for(lambda: scene.runway.descriptors() <= before[0] + 4 or None, "descriptors returned")
    wait_for(lambda: scene.runway.metric("runway_tasks") <= before[1] + 2 or None, "tasks ended")


async def _play(clients: HostileClients, process: Process, memory: list[int]) -> None:
    """Be clients for a time. Those in the middle of something then vanish."""

    async def one_after_another() -> None:
        while True:
            await clients.act()

    async def observe() -> None:
        while True:
            memory.append(process.memory())
            await asyncio.sleep(SECONDS / 60)

    tasks = [asyncio.create_task(work()) for work in (observe, *[one_after_another] * CLIENTS)]
    done, _ = await asyncio.wait(tasks, timeout=SECONDS, return_when=asyncio.FIRST_EXCEPTION)
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
    for task in done:
        task.result()
