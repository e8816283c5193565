"""Hostile objects in the cluster: memory, and output on terminal and browser."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import httpx2

from testbed.waiting import GUARD_SECONDS, wait_for
from tests.hostile.serving import MIB, Process, Runway, api_server, runway
from tests.hostile.terminal import at_terminal
from tests.support.chromium import Watched, chromium

Json = dict[str, Any]

NAMESPACE = "runway-vision"
EVENTS = 240
JOBS = 1000
YEAR_10000 = "10000-01-01T00:00:00Z"
MARKUP = "<script>window.run=1</script><img src=x onerror='window.run=2'>"
STEERING = "\x1b[2J\x1b]0;owned\x07\u202egpj.exe\u2066"
WORDS = MARKUP + STEERING
EVENT_BYTES = 96 * MIB
"""Growth by 240 events of 1 MB: a cache of 16 MiB, and a list page of the same size, twice in memory."""
JOB_BYTES = 192 * MIB
"""Growth by 1,000 Jobs with 240 KiB of annotations: Runway caches at most 96 MiB of specs."""
STRANGE = re.compile(rb"[\x00-\x08\x0b\x0c\x0e-\x1a\x7f]|\x1b\](?!8;)|\x1b\[2J")
"""Bytes that control a terminal. Runway itself writes colours."""


def add(api: Process, kind: str, item: Json, count: int) -> None:
    """Create objects outside Runway, with four letters for `NUMBER`."""
    answer = httpx2.post(f"{api.url}/add/{kind}?count={count}", json=item, timeout=GUARD_SECONDS, trust_env=False)
    assert answer.status_code == 200


def event() -> Json:
    return {
        "metadata": {"name": "e-NUMBER", "namespace": NAMESPACE, "uid": "e-NUMBER"},
        "involvedObject": {"kind": "Pod", "namespace": NAMESPACE, "name": "rw-NUMBER-0"},
        "type": "Warning",
        "reason": WORDS,
        "message": "registry says no " * 60_000,
        "lastTimestamp": "2026-11-24T08:00:00Z",
    }


def job() -> Json:
    """Return a Job with Runway's labels, and with each part as hostile as the API server accepts."""
    spec = {
        "name": WORDS, "image": WORDS + "x" * 3000, "command": [WORDS], "args": [], "env": {WORDS: "v" * 200_000},
        "resources": {
            "cpu": WORDS, "memory": WORDS, "gpu": 1, "gpu_type": WORDS, "disk": WORDS, "shared_memory": WORDS,
        },
        "timeout_seconds": 3600, "retries": 0, "grace_period_seconds": 30, "max_cost_usd": None, "working_dir": WORDS,
    }  # fmt: skip
    name = "rw-aaaaaaaaaaaaaaaaNUMBER"
    failed = {"type": "Failed", "status": "True", "reason": WORDS, "message": WORDS * 1000}
    return {
        "metadata": {
            "name": name, "namespace": NAMESPACE, "uid": "u-NUMBER", "creationTimestamp": "2026-11-24T08:00:00Z",
            "labels": {"app.kubernetes.io/managed-by": "runway", "runway.internal/name": WORDS},
            "annotations": {
                "runway.internal/spec": json.dumps(spec),
                "runway.internal/cost": "[" * 10_000,
                "runway.internal/record": json.dumps({"version": 1, "uid": "u-NUMBER", "kept_at": YEAR_10000}),
                "example.com/notes": "n" * 30_000,
            },
        },
        "spec": {"template": {"spec": {"containers": []}}, "activeDeadlineSeconds": 2**62},
        "status": {"startTime": YEAR_10000, "conditions": [failed, *[{"type": "x"}] * 10]},
    }  # fmt: skip


def sizes(process: Runway, before: int) -> str:
    mib = [round(size / MIB) for size in (before, process.peak(), process.memory())]
    return f"resident memory {mib[0]} MiB before, {mib[1]} at the peak, {mib[2]} after"


def test_events_of_a_megabyte_take_little_memory(tmp_path: Path) -> None:
    with api_server(tmp_path) as api:
        with runway(tmp_path) as process:
            before = process.memory()
            add(api, "events", event(), EVENTS)
            job_id = process.submit("quiet", tenant="speech")
            assert process.get(f"/v1/jobs/{job_id}").json()["state"] == "running"
            print(sizes(process, before))
            assert process.peak() - before < EVENT_BYTES
            assert process.faults() == []
        with runway(tmp_path) as process:
            watched = 'runway_kubernetes_requests_total{kind="events",outcome="ok",verb="list"}'
            wait_for(lambda: watched in process.get("/metrics").text or None, "events listed in smaller pages")
            process.submit("quiet", tenant="speech")
            print("after a restart:", sizes(process, before))
            assert process.peak() - before < EVENT_BYTES
            assert process.faults() == []


def test_hostile_jobs_are_sanitized_and_take_bounded_memory(tmp_path: Path) -> None:
    with api_server(tmp_path) as api, runway(tmp_path) as process:
        before = process.memory()
        add(api, "jobs", job(), JOBS)

        def all_named() -> bool | None:
            return process.get("/readyz", seconds=30).json()["undecodable_objects"] == JOBS or None

        wait_for(all_named, "all undecodable Jobs counted")
        other = process.submit("quiet", tenant="speech")
        assert process.get(f"/v1/jobs/{other}").json()["state"] == "running"
        assert _listed(process) == JOBS
        print(sizes(process, before))
        assert process.peak() - before < JOB_BYTES
        _at_a_terminal(process)
        _in_a_browser(process)
        assert process.faults() == []


def _listed(process: Runway) -> int:
    """Return the number of jobs on all pages of the list."""
    cursor, seen = "", 0
    while True:
        page = process.get(f"/v1/jobs?limit=500{cursor}", "vision", seconds=30)
        assert page.status_code == 200
        assert len(page.content) < 2 * MIB
        seen += len(page.json()["jobs"])
        if page.json()["next_cursor"] is None:
            break
        cursor = f"&cursor={page.json()['next_cursor']}"
    return seen


def _at_a_terminal(process: Runway) -> None:
    for arguments in (
        ("ls",),
        ("status", "rw-aaaaaaaaaaaaaaaaaaah"),
        ("quota",),
        ("ls", "-o", "wide", "--limit", "20"),
    ):
        shown = at_terminal(process, *arguments)
        assert shown
        assert STRANGE.search(shown) is None, shown[:500]


def _in_a_browser(process: Runway) -> None:
    with chromium() as browser, Watched(browser, process.url) as seen:
        for path in ("/", "/jobs", "/tenants/vision", "/jobs/rw-aaaaaaaaaaaaaaaaaaah"):
            seen.page.goto(path)
            assert seen.page.evaluate("window.run") is None
            text = seen.page.evaluate("document.documentElement.textContent")
            assert not set("\u202e\u2066\x1b\x07") & set(text)
            assert seen.overflow() <= 0, path
        assert seen.complaints == []
