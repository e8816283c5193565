"""Links to stored logs."""

from __future__ import annotations

from typing import Final
from urllib.parse import parse_qs, urlsplit

import pytest
from hypothesis import given
from hypothesis import strategies as st

from runway.jobs.log_link import log_url
from runway.jobs.models import JobView
from runway.jobs.snapshot import JobSnapshot
from runway.jobs.view import job_view
from runway.kube.objects import Job, Pod
from runway.policy import LOG_PLACEHOLDERS
from tests.support.builders import JOB, NAMESPACE, START, ended, job, moment, pod, running, spec

TEMPLATE: Final = "https://logs.example.com/?" + "&".join(f"{name}={{{name}}}" for name in LOG_PLACEHOLDERS)
CREATED: Final = int(START.timestamp() * 1000)
RUNNING: Final = pod(f"{JOB}-0", state=running())


def view(found: Job, *pods: Pod) -> JobView:
    return job_view(JobSnapshot("vision", found, pods), TEMPLATE)


def values(url: str | None) -> dict[str, str]:
    assert url is not None
    return {name: found[0] for name, found in parse_qs(urlsplit(url).query).items()}


def test_link_of_finished_job_has_its_names_and_times() -> None:
    done = view(job(outcome="Complete", finished=100), pod(f"{JOB}-0", state=ended(finished=99)))
    assert values(done.logs_url) == {
        "namespace": NAMESPACE,
        "tenant": "vision",
        "job": JOB,
        "pod": f"{JOB}-0",
        "from": str(CREATED - 60_000),
        "to": str(CREATED + 160_000),
        "from_time": "2026-11-24T07:59:00Z",
        "to_time": "2026-11-24T08:02:40Z",
    }


def test_link_of_running_job_ends_with_its_deadline_and_does_not_change() -> None:
    found = job(admitted=spec(timeout_seconds=600, grace_period_seconds=30))
    before = view(found, RUNNING).logs_url
    assert values(before)["to"] == str(CREATED + (600 + 30 + 60) * 1000)
    assert view(found, pod(f"{JOB}-0", state=running(), deleted=500, grace=30)).logs_url == before


def test_link_names_the_last_attempt_or_the_requested_one() -> None:
    found = view(job(), pod(f"{JOB}-0", state=ended(1)), pod(f"{JOB}-1", created=20, state=running()))
    assert values(found.logs_url)["pod"] == f"{JOB}-1"
    assert values(log_url(TEMPLATE, found, f"{JOB}-0"))["pod"] == f"{JOB}-0"


def test_no_link_without_policy_or_attempt() -> None:
    assert view(job()).logs_url is None
    assert job_view(JobSnapshot("vision", job(), (RUNNING,))).logs_url is None


def test_job_without_readable_spec_has_a_link() -> None:
    unreadable = view(job(annotations={"runway.internal/spec": "{"}), RUNNING)
    assert values(unreadable.logs_url)["to_time"] == f"{moment(86_400 + 60):%Y-%m-%dT%H:%M:%SZ}"


@given(name=st.text(min_size=1, max_size=300))
def test_values_are_encoded(name: str) -> None:
    """The names of recorded attempts come from an annotation, which anyone with access can edit."""
    url = log_url("https://logs.example.com/{pod}?q={pod}", view(job(), RUNNING), name)
    assert url is not None
    assert url.isascii()
    assert len(url) <= len("https://logs.example.com/?q=") + 2 * 253 * 12
    parts = urlsplit(url)
    assert (parts.scheme, parts.hostname, parts.fragment) == ("https", "logs.example.com", "")
    assert not set("<>\"' \\") & set(url)


@pytest.mark.parametrize(
    ("template", "link"),
    [
        # Grafana and CloudWatch have milliseconds, OpenSearch Dashboards has times.
        ("http://grafana:3000/d/logs?var-job={job}&from={from}&to={to}", f"from={CREATED - 60_000}&to="),
        ("https://aws.example.com/#logsV2:x$3Fstart$3D{from}$26end$3D{to}", f"start$3D{CREATED - 60_000}$26end$3D"),
        ("https://os/app#/?_g=(time:(from:'{from_time}',to:'{to_time}'))", "from:'2026-11-24T07%3A59%3A00Z',to:'"),
    ],
)
def test_links_of_known_log_stores(template: str, link: str) -> None:
    assert link in str(log_url(template, view(job(), RUNNING)))
