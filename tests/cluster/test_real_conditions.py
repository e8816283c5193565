"""Situations of public reports on the local cluster: other containers, evictions, large logs, progress bars, names."""

from __future__ import annotations

import json
import subprocess
import sys
from copy import deepcopy
from datetime import datetime, timedelta
from pathlib import Path

import httpx2
import pytest

from runway.services.log_start import SILENT_START
from testbed.context import Context
from testbed.http_client import Document, document, shell
from testbed.server import Server
from testbed.waiting import GUARD_SECONDS, wait_for
from tests.cluster.test_streams import Reading
from tests.support.held_jobs import HeldJob, held, unique_duration

pytestmark = pytest.mark.cluster

RUNWAY = str(Path(sys.executable).with_name("runway"))
ROTATION_SECONDS = 10
"""The kubelet checks the size of a log this often (`containerLogMonitorInterval`)."""
MEBIBYTES = 14
"""More than the kubelet's `containerLogMaxSize`, with the time of each line."""


def with_proxy(context: Context, script: str, *, proxy: str, **fields: object) -> Document:
    """Create a Job of Runway with a second container, as a webhook that injects a proxy makes it."""
    plan = document(context.runway.submit("vision", shell(script, **fields), dry_run=True))
    manifest = plan["manifest"]
    pod = manifest["spec"]["template"]["spec"]
    injected = deepcopy(pod["containers"][0]) | {"name": "a-proxy", "command": ["sh", "-c", proxy]}
    pod["containers"] = [injected, *pod["containers"]]
    context.kubernetes.run("create", "--filename=-", stdin=json.dumps(manifest))
    name = manifest["metadata"]["name"]
    context.track(name)
    # Runway knows a Job that it did not create only after its watch event.
    wait_for(lambda: context.runway.get(f"/v1/jobs/{name}").status_code == 200 or None, f"{name} known")
    return context.until(name, lambda seen: seen["state"] != "pending", "runs")


def test_job_beside_an_injected_container_has_its_own_log_and_exit_code(context: Context) -> None:
    """https://github.com/dagster-io/dagster/issues/4474"""
    view = with_proxy(context, "echo of the job; exit 3", proxy="trap 'exit 0' TERM; echo of the proxy; sleep 4")
    view = context.until_finished(view["id"])
    assert (view["state"], view["failure"]["code"]) == ("failed", "exit_nonzero")
    assert view["failure"]["evidence"]["exit_code"] == "3"
    assert context.runway.log(view["id"]).text == "of the job\n"
    view = context.until(view["id"], lambda seen: seen["excerpt"] is not None, "is recorded")
    assert view["excerpt"]["text"] == "of the job\n"


def test_pod_that_lives_for_an_injected_container_is_reported_and_ends_with_its_own_code(context: Context) -> None:
    """https://github.com/kubeflow/trainer/issues/1182"""
    proxy = "trap 'exit 0' TERM; sleep 600 & wait"
    view = with_proxy(context, "echo done", proxy=proxy, timeout_seconds=60)
    view = context.until(view["id"], lambda seen: seen["conditions"] != [], "has a condition")
    assert (view["state"], view["conditions"][0]["code"]) == ("running", "other_container_running")
    assert "a-proxy" in view["conditions"][0]["message"]
    assert (view["attempts"][0]["exit_code"], context.runway.quota("vision")["used"]["jobs"]) == (0, 1)
    view = context.until_finished(view["id"])
    assert (view["state"], view["failure"]["code"]) == ("failed", "other_container_running")
    assert context.runway.quota("vision")["used"]["jobs"] == 0


def test_evicted_job_that_saves_its_work_and_exits_with_0_may_be_incomplete(context: Context, server: Server) -> None:
    """https://github.com/kubernetes/kubernetes/issues/90636"""
    view = context.submit("vision", shell("trap 'echo saved; exit 0' TERM; echo started; sleep 600 & wait"))
    context.until_log(view["id"], "started")
    pod = context.pod(view)["metadata"]
    eviction = {"apiVersion": "policy/v1", "kind": "Eviction", "metadata": {"name": pod["name"]}}
    path = f"/api/v1/namespaces/{pod['namespace']}/pods/{pod['name']}/eviction"
    context.kubernetes.run("create", f"--raw={path}", "--filename=-", stdin=json.dumps(eviction))
    view = context.until_finished(view["id"])
    assert view["state"] == "succeeded"
    assert "its work may be incomplete" in view["may_be_incomplete"]
    waited = subprocess.run(
        [RUNWAY, "wait", view["id"], "--url", server.url],
        capture_output=True,
        text=True,
        timeout=GUARD_SECONDS,
        check=False,
    )
    assert waited.returncode == 0
    assert "may be incomplete" in waited.stdout


def test_plain_success_is_complete(context: Context) -> None:
    view = context.until_finished(context.submit("vision", shell("true"))["id"])
    assert (view["state"], view["may_be_incomplete"]) == ("succeeded", None)


AFTER_THE_START = f"sleep {SILENT_START.seconds + 1}; "
"""Precedes the lines that fill the log file: Runway does not notice a rotation within SILENT_START."""
ROTATED = (
    f"echo first; {AFTER_THE_START}yes {'x' * 1000} | head -n {MEBIBYTES * 1024}; sleep {2 * ROTATION_SECONDS + 5}; "
    "echo after the rotation; sleep 5"
)
"""A script that writes more than the kubelet keeps, waits for the rotation, and writes one line."""


@pytest.mark.long
def test_rotated_log_says_that_its_beginning_may_be_missing(context: Context, server: Server) -> None:
    """https://github.com/kubernetes/kubernetes/issues/11046

    A rotation while the script writes leaves some of its lines before the last one.
    """
    view = context.submit("vision", shell(ROTATED, resources={"cpu": "500m", "memory": "64Mi"}))
    view = context.until_finished(view["id"])
    left = context.runway.log(view["id"]).text
    assert not left.startswith("first\n")
    assert left.endswith("after the rotation\n")
    first_line = context.runway.log(view["id"], timestamps=True).text.split(" ", 1)[0]
    for query in ({}, {"follow": True}, {"tail": 1}, {"attempt": 1}):
        answer = context.runway.log(view["id"], **query)
        assert answer.text == ("after the rotation\n" if "tail" in query else left)
        assert answer.headers["Runway-Log-First-Line"] == first_line
        assert "earlier lines are missing" in answer.headers["Runway-Log-Warning"]
    for options in ([], ["-f"]):
        command = [RUNWAY, "logs", view["id"], *options, "--url", server.url]
        shown = subprocess.run(command, capture_output=True, text=True, timeout=GUARD_SECONDS, check=False)
        assert (shown.returncode, shown.stdout) == (0, left)
        assert "earlier lines are missing" in " ".join(shown.stderr.split())


def test_followed_large_log_has_no_gap_or_breaks_off(context: Context, server: Server) -> None:
    """https://github.com/kubernetes/kubernetes/issues/126564: 434,000 lines were missing, without a sign."""
    # The lines come after the log is open: it begins later, and in the middle of a line, if it was rotated before.
    job = held(then="i=0; while [ $i -lt 120000 ]; do echo $i " + "x" * 1000 + "; i=$((i + 1)); done; ")
    resources = {"cpu": "1", "memory": "64Mi"}
    view = context.submit("vision", shell(job.script, timeout_seconds=240, resources=resources))
    context.until(view["id"], lambda seen: seen["state"] != "pending", "runs")
    numbers: list[int] = []
    broke_off = False
    try:
        path = f"{server.url}/v1/jobs/{view['id']}/logs?follow=true"
        with httpx2.Client(trust_env=False, timeout=GUARD_SECONDS) as client, client.stream("GET", path) as answer:
            lines = answer.iter_lines()
            assert next(lines) == "started"
            job.end()
            assert next(lines) == "finished"
            for line in lines:
                number = line.partition(" ")[0]
                # Without a number: the kubelet turned to a new file before containerd ended the old one.
                numbers.append(len(numbers) if number.strip("x") == "" else int(number))
    except httpx2.RemoteProtocolError:
        broke_off = True
    assert numbers == list(range(len(numbers))), "there is no gap before the end"
    assert broke_off or len(numbers) == 120_000


@pytest.mark.long
def test_followed_line_that_a_rotation_cuts_is_sent_once(context: Context, server: Server) -> None:
    """The kubelet sends both parts as one line. In the new file, the second part has a time of its own."""
    lines, duration = MEBIBYTES * 1024, unique_duration()
    flood = f"{AFTER_THE_START}yes {'x' * 1000} | head -n {lines}; printf begun; "
    before = held(then=f"{flood}sleep {duration} & wait $!; echo ' and ended'; echo last; sleep 3; ")
    cut = HeldJob(before.script, f"sleep\0{duration}\0")
    resources = {"cpu": "500m", "memory": "64Mi"}
    view = context.submit("vision", shell(before.script, resources=resources))
    reading = Reading(f"{server.url}/v1/jobs/{view['id']}/logs?follow=true")
    reading.until(b"started")
    before.end()
    wait_for(lambda: is_rotated(context, view), "the log is rotated")
    cut.end()
    broke_off = False
    try:
        reading.end()
    except httpx2.RemoteProtocolError:
        broke_off = True
    shown = "\n".join(line.strip("x") for line in reading.body.decode().splitlines())
    beginning = "\n".join(["started", "finished", *[""] * lines, ""])
    expected = [beginning + end for end in ("begun and ended\nlast", " and ended\nlast")]
    # The second: the kubelet turned to the new file before containerd wrote the first part to the old one.
    assert [whole for whole in expected if whole.startswith(shown)] != [], shown[-100:]
    assert broke_off or shown in expected


def is_rotated(context: Context, view: Document) -> bool | None:
    """Return True once the newest file begins late or has been empty for a while, else None."""
    return "Runway-Log-Warning" in context.runway.log(view["id"], tail=1).headers or None


def test_text_before_a_progress_bar_is_kept(context: Context) -> None:
    """https://github.com/tqdm/tqdm/issues/1319"""
    bar = "i=0; while [ $i -lt 400 ]; do printf '\\r%3d%% %060d' $((i % 101)) 0; i=$((i + 1)); done"
    view = context.submit("vision", shell(f"echo cannot open data.csv; {bar}; echo; echo giving up; exit 1"))

    def is_kept(seen: Document) -> bool:
        # Until the record is written, the view has only the 2 KiB of the termination message.
        return seen["excerpt"] is not None and seen["excerpt"]["text"].startswith("cannot open data.csv\n")

    view = context.until(view["id"], is_kept, "has the text before the bar")
    text = view["excerpt"]["text"]
    assert text.endswith("0\ngiving up\n")
    assert text.count("%") == 1
    assert view["failure"]["evidence"]["last_words"] == text


def test_variables_with_names_of_kubernetes_reach_the_process(context: Context) -> None:
    names = {"spring.profiles.active": "test", "A-B": "1", "1ST": "2", "NVIDIA_DRIVER_CAPABILITIES": "compute,utility"}
    view = context.submit("vision", shell("", command=["env"], env=names))
    context.until_finished(view["id"])
    lines = context.runway.log(view["id"]).text.splitlines()
    assert {f"{name}={value}" for name, value in names.items()} <= set(lines)


def test_next_attempt_is_due_when_kubernetes_creates_it(context: Context) -> None:
    view = context.submit("vision", shell("exit 1", retries=1))
    view = context.until(view["id"], lambda seen: any(c["code"] == "retrying" for c in seen["conditions"]), "retries")
    message = next(c["message"] for c in view["conditions"] if c["code"] == "retrying")
    ended = datetime.fromisoformat(view["attempts"][0]["finished_at"])
    assert f"the next one is due at {ended + timedelta(seconds=10):%H:%M:%S} UTC" in message
    view = context.until_finished(view["id"])
    late = datetime.fromisoformat(view["attempts"][1]["created_at"]) - ended
    assert late >= timedelta(seconds=9), "a busy Job controller may be later"


@pytest.mark.alone  # The start of its 40 jobs would delay the jobs of other tests by 10 s.
def test_failing_jobs_of_one_tenant_displace_no_record_log_warning_or_stream_of_another(
    context: Context, server: Server
) -> None:
    noisy = [context.submit("vision", shell("echo noise; exit 1"))["id"] for _ in range(40)]
    waits = context.submit("speech", shell("true", image="runway.local/nosuch:1"))
    view = context.submit("speech", shell("echo of the other tenant; exit 3"))
    with httpx2.Client(base_url=server.url, trust_env=False, timeout=GUARD_SECONDS) as client:
        with client.stream("GET", f"/v1/jobs/{view['id']}/events", headers={"X-Tenant-ID": "speech"}) as stream:
            assert stream.status_code == 200
            events = [line.removeprefix("data: ") for line in stream.iter_lines() if line.startswith("data: ")]
        last = json.loads(events[-1])
        assert (last["state"], last["failure"]["evidence"]["exit_code"]) == ("failed", "3")
        assert last["excerpt"]["text"] == "of the other tenant\n", "the record is written before the stream ends"
        assert context.runway.log(view["id"]).text == "of the other tenant\n"
        sample = 'runway_failures_total{category="user",code="exit_nonzero",tenant="speech"} '
        metrics = client.get("/metrics").text.splitlines()
        assert float(next(line for line in metrics if line.startswith(sample)).split()[-1]) >= 1
    context.until(
        waits["id"], lambda seen: any("nosuch" in found["message"] for found in seen["conditions"]), "is explained"
    )
    assert context.until_finished(noisy[-1])["failure"]["code"] == "exit_nonzero"
