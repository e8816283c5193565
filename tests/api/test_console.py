"""The console: content, escaping, headers, limits and scope of its pages."""

from __future__ import annotations

import json
import re
from datetime import UTC, datetime, timedelta
from html.parser import HTMLParser
from typing import Any
from urllib.parse import quote

import pytest

from runway.api.dependencies import AppState
from runway.console.job_page import LOG_SECONDS
from runway.jobs.annotations import ANNOTATION_SPEC
from runway.jobs.models import JobState
from runway.policy import load_policy, parse_policy
from runway.services.list_jobs import JobFilter, scan_page
from tests.api.conftest import POLICY, Runway, serve
from tests.support.environment_fixtures import put_node
from tests.support.fake_cluster import FakeKubernetes, copy_of
from tests.support.fake_logs import FakeLog

BROWSER = {"Accept": "text/html,application/xhtml+xml,*/*;q=0.8"}
HOSTILE = '"><script>alert(1)</script><img src=x onerror=alert(2)>\u202e\x1b[31m\x00'
PAGES = ("/", "/jobs", "/jobs?tenant=vision&state=running", "/capacity", "/tenants/vision", "/nowhere", "/jobs/rw-none")


class _Elements(HTMLParser):
    """The elements of a page with their attributes, and its text."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.found: list[tuple[str, dict[str, str | None]]] = []
        self.text = ""
        self.feed(html)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.found.append((tag, dict(attrs)))
        self.text += " "

    def handle_data(self, data: str) -> None:
        self.text += data

    def links(self) -> list[str]:
        return [attributes["href"] or "" for tag, attributes in self.found if tag == "a"]


async def get(runway: Runway, path: str, status: int = 200, *, tenant: str | None = None) -> str:
    """Return a page as a browser gets it, with or without the header of a tenant."""
    answer = await runway.client.get(path, headers=BROWSER | ({"X-Tenant-ID": tenant} if tenant else {}))
    assert answer.status_code == status, answer.text
    assert answer.headers["content-type"] == "text/html; charset=utf-8"
    return str(answer.text)


def words(html: str) -> str:
    """Return the text of a page with collapsed white space."""
    return " ".join(_Elements(html).text.split())


async def test_overview_shows_quota_jobs_by_state_and_control_plane(runway: Runway) -> None:
    job_id = (await runway.submit(name="train", resources={"gpu": 3})).json()["id"]
    runway.kubernetes.start_pod(job_id)
    await runway.until_state(job_id, "running")
    html = await get(runway, "/")
    text = words(html)
    assert "GPU 3 of 4" in text
    assert "CPU 0.1 of 32" in text
    assert "2 tenants without active jobs speech research" in text
    assert "GPU none allowed" in words(await get(runway, "/tenants/research"))
    assert '<rect class="running" x="0.0%" width="75.0%"' in html
    assert "/jobs?tenant=vision&state=running" in _Elements(html).links()
    assert f"/jobs/{job_id}" in _Elements(html).links()
    assert "Role leader Synced yes" in text
    assert "jobs connected" in text


async def test_usage_of_terminating_pods_is_shown_separately(runway: Runway) -> None:
    job_id = (await runway.submit(resources={"gpu": 2})).json()["id"]
    pod = runway.kubernetes.start_pod(job_id)
    runway.kubernetes.terminate_pod(pod)
    await runway.until(lambda: _holds(runway, "held_by_terminating", 2))
    html = await get(runway, "/tenants/vision")
    assert "GPU 2 of 4 2 held by terminating pods" in words(html)
    assert '<rect class="terminating" x="0.0%" width="50.0%"' in html
    assert f"/jobs/{job_id}" in _Elements(html).links()


async def _holds(runway: Runway, what: str, gpus: int) -> bool:
    return bool((await runway.quota())[what]["gpu"] == gpus)


async def test_page_of_failed_job_shows_failure_attempts_and_log(runway: Runway) -> None:
    job_id = (await runway.submit(name="train-big", retries=1)).json()["id"]
    for _ in range(2):
        pod = runway.kubernetes.start_pod(job_id)
        runway.kubernetes.logs[pod] = b"allocating 2 GiB\n"
        runway.kubernetes.end_pod(pod, 137, "OOMKilled")
    runway.kubernetes.fail(job_id)
    await runway.until_state(job_id, "failed")
    text = words(await get(runway, f"/jobs/{job_id}"))
    assert "Failure: oom_killed" in text
    assert "What to do: raise resources.memory" in text
    assert "the same job fails again when it is submitted again" in text
    assert "attempt 2 ended" in text
    assert text.count("SIGKILL, exit 137 OOMKilled") == 2
    assert "allocating 2 GiB" in text
    assert "No Prometheus is configured, so usage is unknown." in text
    assert "Memory (peak) unknown, of 64Mi" in text
    assert "describe job" in text


async def test_page_counts_every_attempt_so_that_its_log_follows_the_next_one(runway: Runway) -> None:
    """The script compares the number with `Runway-Attempt`, also after more attempts than the view has."""
    job_id = (await runway.submit(retries=1)).json()["id"]
    for _ in range(22):
        runway.kubernetes.end_pod(runway.kubernetes.start_pod(job_id), 1)

    async def has_all_attempts() -> bool:
        return bool((await runway.view(job_id))["attempts_left_out"] == 2)

    await runway.until(has_all_attempts)
    assert 'data-attempts="22"' in await get(runway, f"/jobs/{job_id}")


async def test_page_of_job_shows_its_storage_user_and_working_directory(runway: Runway) -> None:
    asked = {"disk": "2Gi", "shared_memory": "48Mi"}
    job_id = (await runway.submit(user=65_532, working_dir="/scratch/a b", resources=asked)).json()["id"]
    text = words(await get(runway, f"/jobs/{job_id}"))
    assert "Storage 2Gi disk, 48Mi shared memory User 65532 Directory /scratch/a b" in text


async def test_page_of_pending_job_shows_its_conditions(runway: Runway) -> None:
    job_id = (await runway.submit()).json()["id"]
    pod = runway.kubernetes.start_pod(job_id, running=False, node=None)
    unschedulable = {"type": "PodScheduled", "status": "False", "reason": "Unschedulable", "message": "0/1 nodes: no"}
    runway.kubernetes.set_status(pod, {"phase": "Pending", "conditions": [unschedulable]})

    async def waits() -> bool:
        return "unschedulable" in [item["code"] for item in (await runway.view(job_id))["conditions"]]

    await runway.until(waits)
    text = words(await get(runway, f"/jobs/{job_id}"))
    assert "Conditions unschedulable" in text
    assert "No container has started, so there is no log." in text
    assert "No container has started, so there is no usage." in text
    assert "Full log" not in text, "the link could only lead to an error"


async def test_log_link_goes_with_the_pod(runway: Runway) -> None:
    job_id = (await runway.submit()).json()["id"]
    pod = runway.kubernetes.start_pod(job_id)
    runway.kubernetes.logs[pod] = b"hello\n"
    await runway.until_state(job_id, "running")
    assert f"/v1/jobs/{job_id}/logs" in _Elements(await get(runway, f"/jobs/{job_id}")).links()
    runway.kubernetes.end_pod(pod, 1)
    runway.kubernetes.remove_pod(pod)
    runway.kubernetes.fail(job_id)
    await runway.until_state(job_id, "failed")
    html = await get(runway, f"/jobs/{job_id}")
    assert "its pod is deleted" in words(html)
    assert f"/v1/jobs/{job_id}/logs" not in _Elements(html).links()


async def test_environment_values_are_not_shown(runway: Runway) -> None:
    job_id = (await runway.submit(env={"SITE_TOKEN": "hunter2-hunter2", "EPOCHS": "30"})).json()["id"]
    html = await get(runway, f"/jobs/{job_id}")
    assert "hunter2" not in html
    assert "SITE_TOKEN 15 characters" in words(html)


async def test_hostile_text_of_a_job_is_escaped(runway: Runway) -> None:
    job_id = (await runway.submit(command=["sh", "-c", HOSTILE.replace("\0", "")], env={"A": HOSTILE[:-1]})).json()[
        "id"
    ]
    _edit_annotations(runway, job_id, image=HOSTILE, env={HOSTILE: "v"}, working_dir=HOSTILE)
    pod = runway.kubernetes.start_pod(job_id, node=HOSTILE)
    runway.kubernetes.logs[pod] = HOSTILE.encode() + b"\xff\n"
    runway.kubernetes.end_pod(pod, 1, reason=HOSTILE, message=HOSTILE)
    runway.kubernetes.fail(job_id, reason=HOSTILE)
    await runway.until_state(job_id, "failed")
    for path in (f"/jobs/{job_id}", "/", "/jobs", "/tenants/vision"):
        html = await get(runway, path)
        _inert(html)
        assert "&lt;script&gt;" in html or path != f"/jobs/{job_id}"
        assert not re.search("[\u202e\x1b\x00]", html), "the page escapes invisible characters"


@pytest.mark.parametrize(
    "where", ["/{}", "/jobs/{}", "/tenants/{}", "/static/{}", "/jobs?tenant={}", "/jobs?state={}", "/jobs?sort={}"]
)
async def test_hostile_text_of_a_url_is_escaped(runway: Runway, where: str) -> None:
    answer = await runway.client.get(where.format(quote(HOSTILE)), headers=BROWSER)
    assert answer.status_code in (404, 422)
    _inert(answer.text)
    assert not re.search("[\u202e\x1b\x00]", answer.text)


def _edit_annotations(runway: Runway, job_id: str, **changes: Any) -> None:
    """Change the stored spec of a Job, as a client of Kubernetes can."""
    job = copy_of(runway.kubernetes.job(job_id))
    spec = json.loads(job["metadata"]["annotations"][ANNOTATION_SPEC])
    job["metadata"]["annotations"][ANNOTATION_SPEC] = json.dumps(spec | changes)
    job["metadata"]["labels"]["runway.internal/name"] = HOSTILE
    runway.kubernetes.put("jobs", job, "MODIFIED")


def _inert(html: str) -> None:
    elements = _Elements(html).found
    assert [attributes["src"] for tag, attributes in elements if tag == "script"] == [
        attributes["src"]
        for tag, attributes in elements
        if tag == "script" and (attributes["src"] or "")[:8] == "/static/"
    ]
    assert all(tag != "img" for tag, _ in elements)
    assert not [name for _, attributes in elements for name in attributes if name.startswith("on") or name == "style"]


@pytest.mark.parametrize("path", PAGES)
async def test_every_page_sends_a_strict_content_security_policy(runway: Runway, path: str) -> None:
    answer = await runway.client.get(path, headers=BROWSER)
    policy = dict(part.split(" ", 1) for part in answer.headers["content-security-policy"].split("; "))
    assert policy["default-src"] == policy["base-uri"] == policy["frame-ancestors"] == "'none'"
    assert policy["script-src"] == policy["style-src"] == policy["connect-src"] == policy["form-action"] == "'self'"
    assert "unsafe" not in answer.headers["content-security-policy"]
    assert answer.headers["x-content-type-options"] == "nosniff"
    assert answer.headers["referrer-policy"] == "no-referrer"
    assert answer.headers["cross-origin-opener-policy"] == "same-origin"
    assert answer.headers["cache-control"] == "no-store"
    elements = _Elements(answer.text).found
    assert not [tag for tag, attributes in elements if tag == "style" or "style" in attributes]
    assert all(attributes.get("src") for tag, attributes in elements if tag == "script")


async def test_static_files_have_content_hashes_and_are_cacheable(runway: Runway) -> None:
    elements = _Elements(await get(runway, "/")).found
    paths = [attributes.get("href") or attributes["src"] for tag, attributes in elements if tag in ("link", "script")]
    assert len(paths) == 3
    for path in paths:
        answer = await runway.client.get(str(path))
        assert answer.status_code == 200
        assert answer.headers["cache-control"] == "public, max-age=31536000, immutable"
        assert answer.headers["x-content-type-options"] == "nosniff"
    assert (await runway.client.get("/static/console.css")).status_code == 404


async def test_jobs_are_filtered_and_paged_newest_first(kubernetes: FakeKubernetes) -> None:
    async with serve(kubernetes) as runway:
        ids = []
        for number in range(53):
            kubernetes.now = lambda number=number: f"2026-11-24T08:00:{number:02}Z"  # type: ignore[misc]
            ids.append((await runway.submit("vision" if number % 10 else "research", name=f"n{number}")).json()["id"])
        first = await get(runway, "/jobs")
        assert _listed(first) == ids[:2:-1]
        older = next(link for link in _Elements(first).links() if "cursor=" in link)
        last = await get(runway, older)
        assert _listed(last) == ids[2::-1]
        assert not [link for link in _Elements(last).links() if link.startswith("/jobs?") and "cursor=" in link]
        assert _listed(await get(runway, "/jobs?tenant=research&state=")) == ids[50::-10]
        assert _listed(await get(runway, "/jobs", tenant="research")) == ids[50::-10]
        assert _listed(await get(runway, "/jobs?state=running")) == []
        text = words(await get(runway, "/jobs?state=running"))
        assert "No jobs match. · Clear filter" in text
        assert "0 jobs" not in text


@pytest.mark.parametrize(
    ("query", "names"),
    [
        ("q=train", ["train-b", "Train-A"]),
        ("q=AIN-a", ["Train-A"]),
        ("q=%20eval%20&state=running", ["eval"]),
        ("q=nothing", []),
        ("sort=name", ["eval", "Train-A", "train-b"]),
        ("sort=gpu", ["train-b", "Train-A", "eval"]),
        ("sort=cost&q=train", ["train-b", "Train-A"]),
        ("sort=state", ["Train-A", "eval", "train-b"]),
        ("q=train&tenant=speech", []),
    ],
)
async def test_jobs_are_searched_and_sorted(runway: Runway, query: str, names: list[str]) -> None:
    for number, (name, gpus) in enumerate((("Train-A", 1), ("train-b", 2), ("eval", 0))):
        runway.kubernetes.now = lambda number=number: f"2026-11-24T08:00:{number:02}Z"  # type: ignore[misc]
        job_id = (await runway.submit(name=name, resources={"gpu": gpus})).json()["id"]
        if name != "Train-A":
            runway.kubernetes.start_pod(job_id)
            await runway.until_state(job_id, "running")
    assert re.findall(r'<th scope="row"><a [^>]+>([^<]+)</a>', await get(runway, f"/jobs?{query}")) == names


async def test_job_is_found_by_the_start_of_its_id_in_its_tenant_only(runway: Runway) -> None:
    job_id = (await runway.submit(name="train")).json()["id"]
    await runway.submit(name="other")
    for start in (job_id, job_id[:9], job_id.removeprefix("rw-")[:8]):
        assert _listed(await get(runway, f"/jobs?q={start}")) == [job_id]
        assert _listed(await get(runway, f"/jobs?q={start}", tenant="speech")) == []


async def test_job_page_leads_back_to_its_place_in_the_list(runway: Runway) -> None:
    job_id = (await runway.submit(name="train")).json()["id"]
    links = _Elements(await get(runway, "/jobs?state=pending&q=tra&sort=cost&tenant=")).links()
    [link] = [link for link in links if link.startswith(f"/jobs/{job_id}")]
    html = await get(runway, link)
    assert "/jobs?state=pending&q=tra&sort=cost" in _Elements(html).links()
    assert '<a href="/jobs" aria-current="true">' in html
    _inert(await get(runway, f"/jobs?q={quote(HOSTILE[:60])}"))
    hostile = await get(runway, f"/jobs/{job_id}?q={quote(HOSTILE[:60])}&tenant=//evil.example")
    _inert(hostile)
    assert all(link.startswith(("/", "#")) and not link.startswith("//") for link in _Elements(hostile).links() if link)


async def test_sorted_list_says_that_older_jobs_are_on_the_next_page(runway: Runway) -> None:
    first = runway.kubernetes.job((await runway.submit(name="n000")).json()["id"])
    for number in range(1, 103):
        job = copy_of(first)
        job["metadata"] |= {
            "name": f"rw-{'a' * 17}{number:03}".translate(str.maketrans("0189", "wxyz")),
            "uid": f"uid-{number}",
            "creationTimestamp": f"2026-11-24T08:{number // 60:02}:{number % 60:02}Z",
        }
        job["metadata"]["labels"] |= {"runway.internal/name": f"n{number:03}"}
        runway.kubernetes.add("jobs", job)

    async def listed() -> str | None:
        html = await get(runway, "/jobs?sort=name")
        return html if len(_listed(html)) == 100 else None

    html = await runway.until(listed)
    assert "100 jobs of this page, sorted; older jobs are on the next page" in words(html)
    older = next(link for link in _Elements(html).links() if "cursor=" in link)
    assert "sort=name" in older
    assert re.findall(r">(n\d{3})<", await get(runway, older)) == ["n000", "n001", "n002"]


async def test_overview_begins_with_the_failures_of_the_last_hour(runway: Runway) -> None:
    def clock(minutes_ago: int) -> None:
        time = f"{datetime.now(UTC) - timedelta(minutes=minutes_ago):%Y-%m-%dT%H:%M:%SZ}"
        runway.kubernetes.now = lambda: time

    async def fail(name: str, minutes_ago: int) -> None:
        clock(180)
        job_id = (await runway.submit(name=name)).json()["id"]
        pod = runway.kubernetes.start_pod(job_id)
        clock(minutes_ago)
        runway.kubernetes.end_pod(pod, 3)
        runway.kubernetes.fail(job_id)
        await runway.until_state(job_id, "failed")

    assert "Failed in the last hour No job. All failed jobs" in words(await get(runway, "/"))
    await fail("long-ago", 61)
    for number in range(6):
        await fail(f"n{number}", 10 + number)
    html = await get(runway, "/")
    first = html.partition('<section aria-labelledby="quota-title">')[0]
    assert re.findall(r">(n\d|long-ago)<", first) == ["n0", "n1", "n2", "n3", "n4"]
    assert "6 jobs failed in the last hour." in words(first)
    assert "Finished jobs count for 1d, then Kubernetes deletes them." in words(html)
    assert "No job. All failed jobs" in words(await get(runway, "/", tenant="speech"))


async def test_running_job_shows_the_cost_so_far_and_one_form_of_amounts(runway: Runway) -> None:
    resources = {"cpu": "100m", "memory": "62500Ki", "gpu": 1}
    started = datetime.now(UTC) - timedelta(minutes=30)
    runway.kubernetes.now = lambda: f"{started:%Y-%m-%dT%H:%M:%SZ}"
    job_id = (await runway.submit(resources=resources)).json()["id"]
    assert "So far about 0.00 of at most 1.4" in words(await get(runway, f"/jobs/{job_id}"))
    runway.kubernetes.start_pod(job_id)
    await runway.until_state(job_id, "running")
    text = words(await get(runway, f"/jobs/{job_id}"))
    assert re.search(r"So far about 0\.69\d+ of at most 1\.4", text), "half an hour of 1.389 USD"
    assert "Resources 0.1 CPU, 61Mi, 1 GPU a10g" in text
    assert re.search(r"cpu 0\.1 0\.0056\d+ memory 61Mi 0\.00037\d ", text)
    assert "100m" not in text
    assert "62500Ki" not in text


async def test_list_scan_is_bounded_and_returns_a_cursor(runway: Runway) -> None:
    for number in range(6):
        tenant = "vision" if number else "research"
        runway.kubernetes.now = lambda number=number: f"2026-11-24T08:00:{number:02}Z"  # type: ignore[misc]
        await runway.submit(tenant)
    cluster = _services(runway).cluster
    wanted = JobFilter(states=(JobState.FAILED,))
    found = scan_page(cluster, wanted, None, 10, max_scanned=4)
    assert (found.keys, found.looked_at) == ([], 4)
    assert found.after is not None
    rest = scan_page(cluster, wanted, found.after, 10, max_scanned=4)
    assert (rest.keys, rest.after, rest.looked_at) == ([], None, 2)
    own = scan_page(cluster, JobFilter("runway-research"), None, 10, max_scanned=4)
    assert (len(own.keys), own.after, own.looked_at) == (1, None, 1), "the jobs of another tenant are not scanned"


@pytest.mark.parametrize(
    ("path", "status", "says"),
    [
        ("/jobs?state=asleep", 422, "choose one of pending"),
        ("/jobs?tenant=nobody", 422, "choose one of vision"),
        ("/jobs?cursor=nonsense", 422, "the cursor is not a `next_cursor`"),
        ("/jobs?sort=age", 422, "choose one of name"),
        ("/jobs?q=" + "x" * 64, 422, "a parameter is invalid"),
        ("/jobs?cursor=%ff%fe", 422, "the cursor is not a `next_cursor`"),
        ("/jobs?tenant=" + "x" * 100, 422, "a parameter is invalid"),
        ("/jobs/rw-aaaaaaaaaaaaaaaaaaaa?log=perhaps", 422, "a parameter is invalid"),
        ("/jobs/rw-aaaaaaaaaaaaaaaaaaaa", 404, "unknown job"),
        ("/jobs/" + "x" * 5000, 404, "unknown job"),
        ("/tenants/nobody", 404, "unknown tenant the policy has no tenant 'nobody'"),
        ("/nowhere", 404, "unknown path"),
    ],
)
async def test_errors_are_html_pages_or_problem_documents_by_accept_header(
    runway: Runway, path: str, status: int, says: str
) -> None:
    assert says in words(await get(runway, path, status)).lower()
    plain = await runway.client.get(path, headers={"Accept": "application/json"})
    assert (plain.status_code, plain.headers["content-type"]) == (status, "application/problem+json")


async def test_api_errors_are_problems_even_if_client_accepts_html(runway: Runway) -> None:
    for path in ("/v1/jobs/rw-none", "/v1/nowhere", "/v1/jobs?limit=0"):
        answer = await runway.client.get(path, headers=BROWSER)
        assert answer.headers["content-type"] == "application/problem+json"


async def test_console_supports_head_and_rejects_writes(runway: Runway) -> None:
    job_id = (await runway.submit()).json()["id"]
    for path in ("/", "/jobs", f"/jobs/{job_id}", "/tenants/vision"):
        assert (await runway.client.head(path)).status_code == 200
        for method in ("POST", "PUT", "DELETE"):
            answer = await runway.client.request(method, path, headers=BROWSER)
            assert answer.status_code == 405
            assert "text/html" in answer.headers["content-type"]
    assert "/jobs" not in (await runway.client.get("/openapi.json")).json()["paths"]


async def test_page_counts_as_read_and_is_scoped_by_tenant_header(kubernetes: FakeKubernetes) -> None:
    rate = "rate: {per_minute: 6, burst: 5"
    policy = parse_policy(POLICY.read_text().replace(rate, f"{rate}, reads: {{per_minute: 1, burst: 2}}"))
    async with serve(kubernetes, policy=policy) as runway:
        job_id = (await runway.submit("vision")).json()["id"]
        await get(runway, f"/jobs/{job_id}", 404, tenant="speech")
        assert "vision" not in words(await get(runway, "/", tenant="speech"))
        answer = await runway.client.get("/", headers={**BROWSER, "X-Tenant-ID": "speech"})
        assert answer.status_code == 429
        assert int(answer.headers["retry-after"]) > 0
        assert "Rate limit exceeded" in words(answer.text)
        await get(runway, f"/jobs/{job_id}")


async def test_log_on_a_page_counts_as_a_stream_of_the_caller(kubernetes: FakeKubernetes) -> None:
    rate = "rate: {per_minute: 6, burst: 5"
    policy = parse_policy(POLICY.read_text().replace(rate, f"{rate}, streams: 1"))
    async with serve(kubernetes, policy=policy) as runway:
        job_id = (await runway.submit("speech")).json()["id"]
        log = FakeLog()
        log.write(b"first line")
        kubernetes.logs[kubernetes.start_pod(job_id)] = log
        await runway.until_state(job_id, "running")
        assert "first line" in words(await get(runway, f"/jobs/{job_id}"))
        async with runway.stream(f"/v1/jobs/{job_id}/logs?follow=true", x_tenant_id="speech") as stream:
            await stream.until(b"first line")
            assert "first line" in words(await get(runway, f"/jobs/{job_id}")), "another caller's streams"
            text = words(await get(runway, f"/jobs/{job_id}", tenant="speech"))
            assert "Not read: tenant speech: 1 of 1 streams are open" in text
            assert "first line" not in text
        assert _services(runway).limits.streams.total() == 0


async def test_unresponsive_node_is_reported_after_log_timeout(runway: Runway) -> None:
    job_id = (await runway.submit()).json()["id"]
    log = FakeLog(stuck=True)
    runway.kubernetes.logs[runway.kubernetes.start_pod(job_id)] = log
    await runway.until_state(job_id, "running")
    assert f"the node did not answer within {LOG_SECONDS:g} s" in words(await get(runway, f"/jobs/{job_id}"))
    assert (log.open, _services(runway).limits.streams.total()) == (0, 0)
    assert "did not answer" not in words(await get(runway, f"/jobs/{job_id}?log=false"))


async def test_overview_before_first_list_says_that_runway_is_listing(kubernetes: FakeKubernetes) -> None:
    kubernetes.down = True
    async with serve(kubernetes, until=None) as runway:
        text = words(await get(runway, "/"))
        assert "Runway is listing the cluster." in text
        assert "Role not leader" in text
        for path in ("/jobs", "/tenants/vision", "/jobs/rw-aaaaaaaaaaaaaaaaaaaa"):
            assert "Try again" in words(await get(runway, path, 503))


async def test_emergency_stop_is_shown_first_with_its_reason(kubernetes: FakeKubernetes) -> None:
    async with serve(kubernetes, instance="one") as running:
        assert "Submissions open" in words(await get(running, "/"))
    kubernetes.annotate_lease(submissions_stopped=f"drivers {HOSTILE}")
    async with serve(kubernetes, instance="two") as stopped:
        html = await get(stopped, "/")
        assert "Overview Submissions are stopped. drivers" in words(html)
        assert "Submissions stopped" in words(html)
        _inert(html)


async def test_lost_watch_is_shown_with_its_reason(runway: Runway) -> None:
    runway.kubernetes.go_down()

    async def lost() -> bool:
        return any(watch.disconnect_reason for watch in _services(runway).cluster.watches.values())

    await runway.until(lost)
    assert "disconnected: " in words(await get(runway, "/"))
    runway.kubernetes.come_back()


def _listed(html: str) -> list[str]:
    links = [link.partition("?")[0] for link in _Elements(html).links()]
    return [link.removeprefix("/jobs/") for link in links if link.startswith("/jobs/rw-")]


def _services(runway: Runway) -> AppState:
    services: AppState = runway.app.state.services
    return services


async def test_overview_of_thousand_tenants_shows_the_highest_usage(kubernetes: FakeKubernetes) -> None:
    few = load_policy(POLICY)
    one = few.tenants["vision"]
    many = {f"t{n:04}": one.model_copy(update={"namespace": f"runway-t{n:04}"}) for n in range(1000)}
    kubernetes.namespaces |= {tenant.namespace for tenant in many.values()}
    async with serve(kubernetes, policy=few.model_copy(update={"tenants": {**many, **few.tenants}})) as runway:
        await runway.submit("t0777", resources={"gpu": 1})
        html = await get(runway, "/")
    assert "t0777" in words(html)
    assert "903 tenants with lower usage are not shown" in words(html)
    assert len(html) < 400_000


async def test_capacity_page_shows_nodes_free_amounts_and_quotas_of_pools(runway: Runway) -> None:
    put_node(runway.kubernetes, labels={"runway.local/gpu-type": "a10g"}, allocatable={"cpu": "1"})

    async def shown() -> str | None:
        text = words(await get(runway, "/capacity"))
        return text if "1 smaller than the policy says" in text else None

    text = await runway.until(shown)
    assert "a10g 1 node ready GPU 0 of 8, 8 free CPU 0 of 1, 1 free" in text
    assert "Most free 8 GPU, 1 CPU and 32Gi of memory, on one node that takes its jobs" in text
    assert "USD an hour 5.672 a node: 1.383 a GPU, 0.05659 a CPU, 0.006288 a GiB" in text
    assert "Now nodes 5.672, jobs 0.00 USD an hour" in text
    assert "Timeout 1s to 1d, by default 1h" in text
    own = "Most free 1 CPU and 32Gi of memory, on one node that takes its jobs"
    assert f"large 0 nodes ready No node of this pool is ready. Its jobs run on nodes of other pools. {own}" in text
    assert "Sum of quotas Pools hold gpu a10g 6" in text
