"""2,000 submissions a second of one tenant, while another reads and holds streams.

With its rate limit Runway rejects nearly all; without, Runway and the API server are overloaded. The long form
(`HOSTILE_FULL=1`) lasts 20 s.
"""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import httpx2
import pytest

from testbed.waiting import GUARD_SECONDS, wait_for
from tests.hostile.serving import CHECKOUT, FULL, LONGEST_ANSWER_SECONDS, MIB, POLICY, Runway, api_server, runway

RATE = 2000
SECONDS = 20 if FULL else 3
READ_PAUSE_SECONDS = 0.1
STREAMS = 5
GROWTH_BYTES = 128 * MIB
"""Growth of Runway's memory. In the long form 15,000 jobs took 70 MiB."""
VISION_LIMITS = 'quota: {gpu: 4, cpu: "32", memory: 128Gi, jobs: 100}, rate: {per_minute: 600, burst: 100}'
NO_LIMITS = 'quota: {gpu: 4, cpu: "320000", memory: 128Ti, jobs: 1000000}, rate: {per_minute: 1000000, burst: 1000000}'


class Reads(NamedTuple):
    """Statuses and sorted durations of the other tenant's reads."""

    statuses: Counter[int]
    took: list[float]

    def percentile(self, share: float) -> float:
        return self.took[min(int(len(self.took) * share), len(self.took) - 1)]


@pytest.mark.parametrize("limited", [True, False], ids=["rate limit", "overload"])
def test_flood_of_submissions_does_not_block_another_tenant(limited: bool, tmp_path: Path) -> None:
    text = POLICY.read_text()
    assert VISION_LIMITS in text
    policy = tmp_path / "policy.yaml"
    policy.write_text(text if limited else text.replace(VISION_LIMITS, NO_LIMITS))
    with api_server(tmp_path) as api, runway(tmp_path, policy=policy) as process:
        job = process.submit("quiet", tenant="speech")
        before = _read_until(process, job, _later(2))
        memory = process.memory()
        with httpx2.Client(trust_env=False, timeout=GUARD_SECONDS) as client:
            streams = [_hold_stream(client, process, job) for _ in range(STREAMS)]
            flood = _flood(process)
            during = _read_until(process, job, lambda: flood.poll() is not None)
            assert process.metric("runway_open_streams") == STREAMS
            for stream in streams:
                stream.close()
        sent = json.loads(flood.communicate()[0])
        counts = api.get("/counts").json()

        print(f"\n{sent}\nreads before: {_shown(before)}, during: {_shown(during)}")
        print(f"memory: {memory / MIB:.0f}, at most {process.peak() / MIB:.0f}, now {process.memory() / MIB:.0f} MiB")
        # On a busy machine the flood's own client gives up on some requests: that says nothing about Runway.
        statuses = {status for status in sent["answers"] if status.isdecimal()}
        assert "201" in statuses
        assert statuses <= {"201", "403", "429", "503"}
        assert set(during.statuses) == {200}
        assert during.percentile(0.99) < LONGEST_ANSWER_SECONDS
        assert process.peak() < memory + GROWTH_BYTES
        # A renewal of the Lease may have been late during the flood.
        wait_for(lambda: process.role() == "writer" or None, "Runway leads again")
        assert counts["lease_transitions"] == 0
        assert process.faults() == []


def _flood(process: Runway) -> subprocess.Popen[bytes]:
    command = [sys.executable, "-m", "tests.hostile.flood", process.url, str(RATE), str(SECONDS)]
    return subprocess.Popen(command, cwd=CHECKOUT, stdout=subprocess.PIPE)


def _read_until(process: Runway, job: str, is_over: Callable[[], bool]) -> Reads:
    statuses: Counter[int] = Counter()
    took: list[float] = []
    paths = (f"/v1/jobs/{job}", "/v1/jobs", "/v1/quota")
    with httpx2.Client(trust_env=False, timeout=GUARD_SECONDS, headers={"X-Tenant-ID": "speech"}) as client:
        while not is_over():
            begun = time.monotonic()
            statuses[client.get(process.url + paths[len(took) % len(paths)]).status_code] += 1
            took.append(time.monotonic() - begun)
            time.sleep(READ_PAUSE_SECONDS)
    return Reads(statuses, sorted(took))


def _later(seconds: float) -> Callable[[], bool]:
    end = time.monotonic() + seconds
    return lambda: time.monotonic() > end


def _hold_stream(client: httpx2.Client, process: Runway, job: str) -> httpx2.Response:
    request = client.build_request("GET", f"{process.url}/v1/jobs/{job}/events", headers={"X-Tenant-ID": "speech"})
    answer = client.send(request, stream=True)
    assert answer.status_code == 200
    return answer


def _shown(reads: Reads) -> str:
    return f"{len(reads.took)}, p50 {reads.percentile(0.5) * 1e3:.0f} ms, p99 {reads.percentile(0.99) * 1e3:.0f} ms"
