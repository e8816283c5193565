"""The command line on the local cluster, as a person or a script calls it."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from collections.abc import Callable, Iterable
from pathlib import Path
from uuid import uuid4

import pytest

from demo.session import play, session_environment
from testbed.context import Context
from testbed.http_client import IMAGE
from testbed.server import Server
from testbed.waiting import GUARD_SECONDS
from tests.support.documented import Block, blocks, parse
from tests.support.held_jobs import held

pytestmark = pytest.mark.cluster

RUNWAY = str(Path(sys.executable).with_name("runway"))
SPEC = [f"--image={IMAGE}", "--cpu=100m", "--memory=32Mi", "--grace=5"]
SLEEP = ["--", "sh", "-c", "trap 'echo ending; exit 143' TERM; echo started; sleep 600 & wait"]

Done = subprocess.CompletedProcess[str]
Cli = Callable[..., Done]


@pytest.fixture(scope="module")
def environment(server: Server) -> dict[str, str]:
    return session_environment(server.url)


@pytest.fixture(scope="module")
def cli(environment: dict[str, str]) -> Cli:
    def call(*arguments: str) -> Done:
        return finish(start(environment, *arguments))

    return call


@pytest.fixture(scope="module")
def runs(environment: dict[str, str]) -> dict[str, Done]:
    """Run `runway run` concurrently for jobs with different outcomes."""
    commands = {
        "succeeds": ["--env=WHO=you", "--", "sh", "-c", "echo hello $WHO; echo there"],
        "fails": ["--", "sh", "-c", "echo no data; exit 3"],
        "too long": ["--timeout=40", *SLEEP],
        "fails twice": ["--retries=1", "--", "sh", "-c", "echo trying; exit 4"],
    }
    started = {name: start(environment, "run", *SPEC, *command) for name, command in commands.items()}
    return {name: finish(process) for name, process in started.items()}


def test_run_streams_the_log_and_exits_0(runs: dict[str, Done]) -> None:
    assert (runs["succeeds"].returncode, runs["succeeds"].stdout) == (0, "hello you\nthere\n")
    assert "succeeded" in runs["succeeds"].stderr


def test_run_exits_with_exit_code_of_job(runs: dict[str, Done]) -> None:
    assert (runs["fails"].returncode, runs["fails"].stdout) == (3, "no data\n")
    assert "exit_nonzero" in runs["fails"].stderr


def test_run_exits_with_124_at_deadline(runs: dict[str, Done]) -> None:
    assert (runs["too long"].returncode, runs["too long"].stdout) == (124, "started\nending\n")
    assert "deadline_exceeded" in runs["too long"].stderr


def test_run_shows_log_of_every_attempt(runs: dict[str, Done]) -> None:
    assert (runs["fails twice"].returncode, runs["fails twice"].stdout) == (4, "trying\ntrying\n")


def test_submit_follow_wait_and_cancel(cli: Cli, environment: dict[str, str]) -> None:
    submitted = cli("submit", *SPEC, "--name=from-the-cli", "-o", "name", *SLEEP)
    job_id = submitted.stdout.strip()
    assert submitted.returncode == 0
    following = start(environment, "logs", "-f", job_id)
    assert following.stdout is not None
    assert following.stdout.readline() == "started\n"

    status = json.loads(cli("status", job_id, "-o", "json").stdout)
    assert (status["id"], status["name"], status["state"]) == (job_id, "from-the-cli", "running")
    assert job_id in cli("ls", "--state", "running").stdout
    [quota] = json.loads(cli("quota", "-o", "json").stdout)["tenants"]
    assert [holder["id"] for holder in quota["jobs"]] == [job_id]
    gave_up = cli("wait", job_id, "--timeout", "1")
    assert gave_up.returncode == 75

    waiting = start(environment, "wait", job_id)
    cancelled = cli("cancel", "-y", job_id)
    assert (cancelled.returncode, "cancelling" in cancelled.stdout) == (0, True)
    assert waiting.communicate(timeout=GUARD_SECONDS)[0] != ""
    assert waiting.returncode == 130
    assert following.communicate(timeout=GUARD_SECONDS)[0] == "ending\n"
    assert following.returncode == 0
    assert cli("wait", job_id).returncode == 130
    # The pod and the recorded excerpt give the same text.
    after = cli("logs", job_id)
    assert (after.returncode, after.stdout) == (0, "started\nending\n")


def test_followed_logs_wait_for_pending_job(cli: Cli, environment: dict[str, str], context: Context) -> None:
    """For `logs -f`, neither a pending job nor a job that never starts is an error."""
    never = cli(
        "submit", *SPEC, "--tenant=research", "--cpu=8", "--pool=large", "-o", "name", "--", "true"
    ).stdout.strip()
    following = start(environment, "logs", "-f", never, "--tenant=research")
    context.until(never, lambda view: view["conditions"] != [], "unschedulable")
    assert cli("logs", never, "--tenant=research").returncode == 1
    assert following.poll() is None
    assert cli("cancel", "-y", never, "--tenant=research").returncode == 0
    assert following.communicate(timeout=GUARD_SECONDS)[0] == ""
    assert following.returncode == 1


def test_rejected_submission_shows_every_violation_and_exits_1(cli: Cli) -> None:
    done = cli("submit", "--image=example.org/miner:1", "--cpu=64", "--memory=1", "--", "true")

    assert (done.returncode, done.stdout) == (1, "")
    for field in ("image", "resources.cpu", "resources.memory"):
        assert f"\n  {field} " in done.stderr
    over_quota = cli("submit", *SPEC, "--tenant=research", "--gpu=1", "--", "true")
    assert over_quota.returncode == 1
    assert "quota_exceeded" in over_quota.stderr


def test_submit_wait_shows_progress_and_exits_with_job_code(cli: Cli, environment: dict[str, str]) -> None:
    job = held(code=3)
    waiting = start(environment, "submit", "--wait", *SPEC, "--", "sh", "-c", job.script)
    progress = until_running(waiting)
    job.end()
    done = finish(waiting)
    progress += done.stderr
    job_id = done.stdout.split()[0]
    assert done.returncode == 3
    assert f"{job_id} is running" in progress
    assert "of at most" in progress
    assert "hint: " in done.stdout
    assert done.stdout.endswith("  finished\n"), "the last view of the stream has the end of the log"

    story = cli("status", job_id).stdout
    for words in ("accepted", "bound to node", "started", "exit code 3", "failed: exit_nonzero"):
        assert words in story


def test_wait_survives_restart(cli: Cli, environment: dict[str, str], server: Server) -> None:
    job = held()
    submitted = cli("submit", *SPEC, "-o", "name", "--", "sh", "-c", job.script)
    waiting = start(environment, "wait", submitted.stdout.strip())
    until_running(waiting)  # So it has the stream open that the kill closes.
    server.kill()
    server.start()
    job.end()
    stdout, _ = waiting.communicate(timeout=GUARD_SECONDS)
    assert (waiting.returncode, "succeeded" in stdout) == (0, True)


def test_dry_run_explains_decision_and_creates_no_job(cli: Cli) -> None:
    before = json.loads(cli("ls", "--all", "-o", "json").stdout)["jobs"]
    refused = cli("submit", "--dry-run", "--image=example.org/miner:1", "--cpu=64", "--memory=1", "--", "true")
    assert (refused.returncode, refused.stderr) == (1, "")
    assert refused.stdout.startswith("Would be refused for 4 violations")
    admitted = cli("submit", "--dry-run", *SPEC, "--gpu=1", "--", "true")
    assert admitted.returncode == 0
    for words in ("Would be admitted", "at most", "THIS JOB"):
        assert words in admitted.stdout
    assert len(json.loads(cli("ls", "--all", "-o", "json").stdout)["jobs"]) == len(before)


def test_top_and_quota_list_jobs_and_cancel_accepts_several(cli: Cli) -> None:
    ids = [cli("submit", *SPEC, "-o", "name", *SLEEP).stdout.strip() for _ in range(2)]
    shown = json.loads(cli("top", "-o", "json").stdout)
    assert set(ids) <= {view["id"] for view in shown["jobs"]}
    assert cli("top", "--once").stdout.count("rw-") == len(shown["jobs"])
    assert all(job_id in cli("quota").stdout for job_id in ids)

    unsure = cli("cancel", *ids)
    assert (unsure.returncode, "-y" in unsure.stderr) == (2, True)
    done = cli("cancel", "-y", ids[0], "rw-unknown", ids[1])
    assert done.returncode == 1
    assert done.stdout.count("is cancelling") == 2
    assert "rw-unknown was not cancelled" in done.stderr
    assert [cli("wait", job_id).returncode for job_id in ids] == [130, 130]


def test_jobs_are_found_by_name_and_start_of_id(cli: Cli) -> None:
    name = f"named-{uuid4().hex[:8]}"
    first, second = (cli("submit", *SPEC, f"--name={name}", "-o", "name", *SLEEP).stdout.strip() for _ in range(2))
    # Kubernetes has creation times in whole seconds, so either of the two can be the newest.
    assert json.loads(cli("status", name, "-o", "json").stdout)["id"] in (first, second)
    assert json.loads(cli("status", first[:12], "-o", "json").stdout)["id"] == first
    assert json.loads(cli("status", "-o", "json").stdout)["id"] in (first, second)
    assert cli("ls", "--name", name, "--since", "1h", "-o", "name").stdout.split() in ([first, second], [second, first])
    ambiguous = cli("cancel", "-y", name)
    assert (ambiguous.returncode, first in ambiguous.stderr, second in ambiguous.stderr) == (2, True, True)
    assert cli("cancel", "-y", "--name", name).returncode == 0
    assert cli("wait", first, second).returncode == 130


def test_documented_session_is_reproducible(server: Server) -> None:
    session = play(session_environment(server.url))
    for words in ("Would be refused for", "oom_killed", "Timeline", "THROTTLED", "is cancelling"):
        assert words in session
    assert shape(parse("session", session)) == shape(blocks("docs/session.md")), (
        "the commands differ from the document: record it again"
    )


def shape(session: Iterable[Block]) -> list[str]:
    """Return the commands of a session without job ids."""
    return [re.sub(r"rw-[a-z2-7]{20}", "ID", text) for block in session for text in block.commands]


def start(environment: dict[str, str], *arguments: str) -> subprocess.Popen[str]:
    command = [RUNWAY, *arguments]
    return subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def until_running(process: subprocess.Popen[str]) -> str:
    """Return what the command has written to stderr as soon as it says that the job is running."""
    assert process.stderr is not None
    written = ""
    while "is running" not in written:
        line = process.stderr.readline()
        assert line != "", written
        written += line
    return written


def finish(process: subprocess.Popen[str]) -> Done:
    try:
        stdout, stderr = process.communicate(timeout=GUARD_SECONDS)
    except subprocess.TimeoutExpired:
        process.kill()
        process.communicate()
        raise
    return subprocess.CompletedProcess(process.args, process.returncode, stdout, stderr)
