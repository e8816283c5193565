"""Log and event streams on the local cluster, and cancel in every job state."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from urllib.parse import urlsplit

import httpx2
import pytest
import yaml

from localcluster import LocalCluster
from runway.cli.main import SHUTDOWN_SECONDS
from testbed.context import Context
from testbed.http_client import Document, shell
from testbed.server import Server
from testbed.waiting import GUARD_SECONDS, wait_for
from tests.support.held_jobs import held
from tests.support.tcp_proxy import TcpProxy

pytestmark = pytest.mark.cluster

SLEEP = "trap 'exit 143' TERM; echo started; sleep 600 & wait"
IGNORE_SIGTERM = "trap '' TERM; echo started; while :; do sleep 600 & wait; done"
RUNWAY = str(Path(sys.executable).with_name("runway"))


class Reading:
    """A streamed response, read by a thread."""

    def __init__(self, url: str, headers: dict[str, str] | None = None) -> None:
        self.body = b""
        self.status = 0
        self.headers: dict[str, str] = {}
        self.error: Exception | None = None
        self._url, self._sent = url, headers or {}
        self._thread = threading.Thread(target=self._read, daemon=True)
        self._thread.start()

    def until(self, text: bytes, seconds: float = GUARD_SECONDS) -> bytes:
        """Return the body as soon as it contains these bytes."""
        return wait_for(lambda: self.body if text in self.body else None, f"{text!r} in {self._url}", seconds)

    def end(self, seconds: float = GUARD_SECONDS) -> bytes:
        """Return the complete body. Raises if the connection was closed early."""
        self._thread.join(seconds)
        assert not self._thread.is_alive(), f"{self._url} still streams after {seconds} s: {self.body[-300:]!r}"
        if self.error:
            raise self.error
        return self.body

    def ended(self) -> bool:
        """Whether the response has ended, complete or not."""
        return not self._thread.is_alive()

    def disconnect(self) -> None:
        """Close the connection in the middle of the response."""
        self._socket.shutdown(socket.SHUT_RDWR)

    def _read(self) -> None:
        try:
            with (
                httpx2.Client(timeout=httpx2.Timeout(150, connect=5), trust_env=False) as client,
                client.stream("GET", self._url, headers=self._sent) as response,
            ):
                self._socket = response.extensions["network_stream"].get_extra_info("socket")
                self.status, self.headers = response.status_code, dict(response.headers)
                for chunk in response.iter_raw():
                    self.body += chunk
        except (httpx2.HTTPError, httpx2.StreamError) as error:
            self.error = error


def log_url(server: Server, job_id: str, **query: str | int) -> str:
    return f"{server.url}/v1/jobs/{job_id}/logs?" + "&".join(f"{name}={value}" for name, value in query.items())


def test_log_is_followed_from_submission_to_container_exit(context: Context, server: Server) -> None:
    job_id = context.submit("vision", shell("echo one; sleep 2; printf 'two\\377\\000\\rx\\n\\nno newline'"))["id"]
    reading = Reading(log_url(server, job_id, follow="true"))
    body = reading.end()
    assert reading.status == 200
    assert reading.headers["runway-attempt"] == "1"
    assert body.rstrip(b"\n") == b"one\ntwo\xff\x00\rx\n\nno newline"
    assert body == context.runway.log(job_id).content


def test_following_job_without_container_returns_logs_not_ready(context: Context, server: Server) -> None:
    spec = shell("true", timeout_seconds=5) | {"image": "runway.local/nosuch:1"}
    job_id = context.submit("vision", spec)["id"]
    reading = Reading(log_url(server, job_id, follow="true"))
    assert json.loads(reading.end())["code"] == "logs_not_ready"
    assert reading.status == 404


def test_long_lines_and_bursts_are_streamed_completely(context: Context, server: Server) -> None:
    # The runtime can lose the last output of a container that exits at once. It reads stdout and stderr separately, so
    # only a pause between them makes their order certain.
    script = (
        "head -c 3000000 /dev/zero | tr '\\0' x; echo; seq 1 30000; sleep 1; echo err >&2; sleep 1; seq 30001 30100; "
        "sleep 2"
    )
    job_id = context.submit("vision", shell(script))["id"]
    body = Reading(log_url(server, job_id, follow="true")).end()
    lines = body.split(b"\n")
    assert lines[0] == b"x" * 3_000_000
    assert [int(line) for line in lines if line.isdigit()] == list(range(1, 30101))
    stamped = Reading(log_url(server, job_id, timestamps="true")).end().split(b"\n")
    assert len(stamped[0].partition(b" ")[2]) == 3_000_000
    assert all(line[:2] == b"20" and line.partition(b" ")[0].endswith(b"Z") for line in stamped if line)
    assert Reading(log_url(server, job_id, tail=3)).end() == b"30098\n30099\n30100\n"


def test_client_disconnect_closes_stream_to_kubernetes(context: Context, server: Server, kubeconfig: Path) -> None:
    job_id = context.submit("vision", shell(SLEEP))["id"]
    context.until_log(job_id, "started")
    kubernetes = urlsplit(yaml.safe_load(kubeconfig.read_text())["clusters"][0]["cluster"]["server"]).port
    assert kubernetes is not None
    readings = [Reading(log_url(server, job_id, follow="true")) for _ in range(5)]
    for reading in readings:
        reading.until(b"started")
    # Idle connections may close meanwhile too.
    open_before = connections_to(server, kubernetes)
    assert open_before >= 5
    for reading in readings:
        reading.disconnect()
    wait_for(lambda: connections_to(server, kubernetes) <= open_before - 5 or None, "streams to Kubernetes closed")


def test_events_cover_job_from_pending_to_succeeded(context: Context, server: Server) -> None:
    job = held()
    job_id = context.submit("vision", shell(job.script, timeout_seconds=300))["id"]
    url = f"{server.url}/v1/jobs/{job_id}/events"
    reading = Reading(url)
    reading.until(b'"state":"running"')
    job.end()
    body = reading.end().decode()
    events = [
        dict(line.split(": ", 1) for line in block.splitlines()) for block in body.split("\n\n") if "id: " in block
    ]
    views = [json.loads(event["data"]) for event in events]
    states = list(dict.fromkeys(view["state"] for view in views))
    # The job may run before the stream begins.
    assert states in (["pending", "running", "succeeded"], ["running", "succeeded"])
    assert views[-1] == context.runway.job(job_id)
    again = httpx2.get(url, headers={"Last-Event-ID": events[-1]["id"]}, timeout=GUARD_SECONDS, trust_env=False)
    assert again.status_code == 204
    resumed = Reading(url, {"Last-Event-ID": events[0]["id"]}).end().decode()
    assert resumed.count("id: ") == 1
    assert events[-1]["id"] in resumed


@pytest.mark.long
def test_streams_do_not_delay_shutdown_and_cli_resumes_after_restart(context: Context, server: Server) -> None:
    job = held(then="for i in $(seq 1 200); do echo $i; sleep 0.1; done; ")
    job_id = context.submit("vision", shell(job.script, timeout_seconds=300))["id"]
    context.until_log(job_id, "started")
    environment = {**os.environ, "RUNWAY_URL": server.url, "RUNWAY_TENANT": "vision"}
    cli = subprocess.Popen([RUNWAY, "logs", "-f", job_id], stdout=subprocess.PIPE, env=environment)
    raw = Reading(log_url(server, job_id, follow="true"))
    events = Reading(f"{server.url}/v1/jobs/{job_id}/events")
    raw.until(b"started")
    events.until(b"running")
    job.end()
    raw.until(b"10\n")
    stopped = time.monotonic()
    server.stop()
    assert time.monotonic() - stopped < SHUTDOWN_SECONDS, "the shutdown waited for open streams"
    for reading in (raw, events):
        with pytest.raises(httpx2.RemoteProtocolError):
            reading.end()
    server.start()
    said, _ = cli.communicate(timeout=GUARD_SECONDS)
    assert said.decode().split() == ["started", "finished", *map(str, range(1, 201))]
    assert cli.returncode == 0


@contextmanager
def behind_a_proxy(settings: Mapping[str, str], folder: Path) -> Iterator[tuple[Server, TcpProxy]]:
    """Run a second Runway that is not the leader and reaches the API server through a proxy."""
    config = json.loads(Path(settings["KUBECONFIG"]).read_text())
    cluster = config["clusters"][0]["cluster"]
    address = urlsplit(cluster["server"])
    assert address.hostname
    assert address.port
    with TcpProxy(address.hostname, address.port) as proxy:
        cluster["server"] = f"https://127.0.0.1:{proxy.port}"
        mine = folder / "kubeconfig"
        mine.write_text(json.dumps(config))
        mine.chmod(0o600)
        with Server(folder / "runway.log", {**settings, "KUBECONFIG": str(mine)}) as reader:
            reader.launch()
            wait_for(lambda: reader_is_ready(reader), "reader ready")
            yield reader, proxy


def reader_is_ready(server: Server) -> bool | None:
    try:
        return server.role() == "reader" or None
    except httpx2.TransportError:
        return None


def test_broken_log_connections_lose_and_repeat_no_lines(
    context: Context, settings: Mapping[str, str], tmp_path: Path
) -> None:
    job = held(
        then="i=0; while [ $i -lt 3000 ]; do i=$((i+1)); echo out $i; [ $((i % 7)) = 0 ] && echo err $i >&2;"
        "[ $((i % 50)) = 0 ] && sleep 0.2; done; head -c 40000 /dev/zero | tr '\\0' y; echo; echo out 3001; "
    )
    with behind_a_proxy(settings, tmp_path) as (reader, proxy):
        job_id = context.submit("vision", shell(job.script, timeout_seconds=300))["id"]
        wait_for(lambda: known(reader, job_id), "known to the reader")
        reading = Reading(log_url(reader, job_id, follow="true"))
        stamped = Reading(log_url(reader, job_id, follow="true", timestamps="true"))
        # Both logs are open before the first cut: a cut while one opens is a 503, not a gap.
        reading.until(b"started\n")
        stamped.until(b"started\n")
        job.end()
        cuts = 0
        while not reading.ended():
            cuts += proxy.cut()
            time.sleep(0.7)
        text, times = reading.end(), stamped.end()
    assert cuts >= 8
    lines = text.split(b"\n")
    assert [line for line in lines if line.startswith(b"out")] == [b"out %d" % number for number in range(1, 3002)]
    assert [line for line in lines if line.startswith(b"err")] == [b"err %d" % number for number in range(7, 3001, 7)]
    assert b"y" * 40000 in lines
    assert b"\n".join(line.partition(b" ")[2] for line in times.split(b"\n")) == text
    assert text == context.runway.log(job_id).content


def known(server: Server, job_id: str) -> bool | None:
    answer = httpx2.get(f"{server.url}/v1/jobs/{job_id}", timeout=GUARD_SECONDS, trust_env=False)
    return bool(answer.status_code == 200 and answer.json()["attempts"]) or None


@pytest.mark.long
def test_log_stream_is_aborted_when_kubernetes_stays_unreachable(
    context: Context, settings: Mapping[str, str], tmp_path: Path
) -> None:
    job_id = context.submit("vision", shell(SLEEP, timeout_seconds=300))["id"]
    context.until_log(job_id, "started")
    with behind_a_proxy(settings, tmp_path) as (reader, proxy):
        reading = Reading(log_url(reader, job_id, follow="true"))
        reading.until(b"started")
        proxy.__exit__()
        with pytest.raises(httpx2.RemoteProtocolError):
            reading.end()


def test_unschedulable_job_is_cancelled(context: Context) -> None:
    view = context.submit("research", shell("true", pool="large", resources={"cpu": "8", "memory": "32Mi"}))
    context.until(view["id"], lambda seen: [item["code"] for item in seen["conditions"]] == ["unschedulable"], "waits")
    cancelled(context, view, 15)


def test_job_with_failing_image_pull_is_cancelled(context: Context) -> None:
    view = context.submit("vision", shell("true") | {"image": "runway.local/nosuch:1"})
    context.until(
        view["id"], lambda seen: [item["code"] for item in seen["conditions"]] == ["image_pull_failing"], "waits"
    )
    cancelled(context, view, 15)


def test_cancelling_running_job_ends_its_followed_log(context: Context, server: Server) -> None:
    view = context.submit("vision", shell("trap 'echo bye; exit 0' TERM; echo started; sleep 600 & wait"))
    reading = Reading(log_url(server, view["id"], follow="true"))
    reading.until(b"started")
    events = Reading(f"{server.url}/v1/jobs/{view['id']}/events")
    events.until(b"running")
    final = cancelled(context, view, 20)
    assert reading.end() == b"started\nbye\n"
    seen = [json.loads(line[6:]) for line in events.end().decode().splitlines() if line.startswith("data: ")]
    assert list(dict.fromkeys(item["state"] for item in seen)) == ["running", "cancelling", "cancelled"]
    assert final["attempts"][0]["exit_code"] in (0, None)


def test_job_ignoring_sigterm_is_killed_after_grace_period(context: Context) -> None:
    view = context.submit("vision", shell(IGNORE_SIGTERM, grace_period_seconds=4))
    context.until_log(view["id"], "started")
    begun = time.monotonic()
    final = cancelled(context, view, 30)
    assert time.monotonic() - begun > 3.5
    assert (final["attempts"][0]["exit_code"], final["attempts"][0]["signal"]) == (137, "SIGKILL")


def test_job_is_cancelled_between_two_attempts(context: Context) -> None:
    view = context.submit("vision", shell("exit 4", retries=1))
    context.until(view["id"], lambda seen: [item["code"] for item in seen["conditions"]] == ["retrying"], "retrying")
    final = cancelled(context, view, 15)
    assert len(final["attempts"]) == 1


@pytest.mark.alone
def test_job_cancelled_before_job_controller_lists_it_gets_no_pod(context: Context) -> None:
    """A starting Job controller lists the Jobs, so it never sees this one before the cancel."""
    controllers = LocalCluster.default().component("kube-controller-manager")
    controllers.kill()
    try:
        view = context.submit("vision", shell(SLEEP))
        assert context.runway.cancel(view["id"]).json()["state"] == "cancelling"
    finally:
        controllers.start()
    final = cancelled(context, view, 30)
    assert final["attempts"] == []
    events = context.kubernetes.select("events", f"--namespace={view['kubernetes']['namespace']}")
    reasons = {event["reason"] for event in events if event["involvedObject"]["name"] == view["id"]}
    assert reasons == {"DeadlineExceeded"}, "no pod was ever created"


@pytest.mark.alone
def test_job_cancelled_while_job_controller_is_frozen_gets_at_most_one_pod(context: Context) -> None:
    """The Job controller may create a pod before its watch delivers the cancel. It deletes that pod then."""
    controllers = LocalCluster.default().component("kube-controller-manager")
    controllers.freeze()
    try:
        view = context.submit("vision", shell(SLEEP))
        assert context.runway.cancel(view["id"]).json()["state"] == "cancelling"
    finally:
        controllers.thaw()
    final = cancelled(context, view, 30)
    assert len(final["attempts"]) <= 1
    wait_for(lambda: context.kubernetes.pods(view["kubernetes"]["namespace"], view["id"]) == [] or None, "no pod")


def test_suspended_job_is_cancelled(context: Context) -> None:
    # Without a retry, Kubernetes may take the exit of the suspended pod for a failure of the job.
    view = context.submit("vision", shell(SLEEP, retries=1))
    context.until_log(view["id"], "started")
    namespace = view["kubernetes"]["namespace"]
    suspend = json.dumps({"spec": {"suspend": True}})
    context.kubernetes.run("patch", "job", view["id"], f"--namespace={namespace}", "--type=merge", f"--patch={suspend}")
    context.until(view["id"], lambda seen: seen["attempts"][0]["state"] == "failed", "suspended")
    final = cancelled(context, view, 15)
    assert len(final["attempts"]) == 1, "no second attempt"


def test_cancel_of_succeeded_job_keeps_it_succeeded(context: Context) -> None:
    view = context.submit("vision", shell("true"))
    context.until(view["id"], lambda seen: [item["state"] for item in seen["attempts"]] == ["succeeded"], "succeeded")
    assert context.runway.cancel(view["id"]).status_code == 202
    assert context.until_finished(view["id"])["state"] == "succeeded"


def cancelled(context: Context, view: Document, seconds: float) -> Document:
    """Cancel twice, wait until the job is cancelled, and return the last view."""
    job_id = view["id"]
    for answer in (context.runway.cancel(job_id), context.runway.cancel(job_id)):
        assert answer.status_code == 202
        assert answer.json()["state"] in ("cancelling", "cancelled")
    final = context.until(job_id, lambda seen: seen["state"] != "cancelling", "finished", seconds)
    assert (final["state"], final["failure"]) == ("cancelled", None)
    assert final["finished_at"]
    condition = next(item for item in context.job(view)["status"]["conditions"] if item["type"] == "Failed")
    # Kubernetes may judge the exit code of a pod that a suspension ended before it looks at the deadline.
    assert condition["reason"] in ("DeadlineExceeded", "PodFailurePolicy")
    assert job_id not in {holder["id"] for holder in context.runway.quota(view["tenant"])["jobs"]}
    again = context.runway.cancel(job_id).json()
    # The recorder may write its fields a moment after the outcome.
    assert {name: again[name] for name in ("state", "failure", "finished_at", "attempts")} == {
        name: final[name] for name in ("state", "failure", "finished_at", "attempts")
    }
    return final


def connections_to(server: Server, port: int) -> int:
    """Count the open TCP connections of Runway's process to this port."""
    inodes = set()
    for entry in Path(f"/proc/{server.pid}/fd").iterdir():
        with suppress(FileNotFoundError):
            inodes.add(str(entry.readlink()).removeprefix("socket:[").removesuffix("]"))
    rows = [line.split() for line in Path(f"/proc/{server.pid}/net/tcp").read_text().splitlines()[1:]]
    return sum(row[9] in inodes and int(row[2].rpartition(":")[2], 16) == port for row in rows)
