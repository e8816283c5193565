"""How a job is ended from outside: by its deadline, by force, on request."""

from __future__ import annotations

from datetime import datetime, timedelta

import httpx2

from demo.scenario import Scenario, Source
from demo.scenarios.outcomes import condition
from testbed.context import Stage, expect
from testbed.http_client import Document, document, shell
from testbed.waiting import wait_for

GRACE_SECONDS = 4
TIMEOUT_SECONDS = 8


def reach_deadline(stage: Stage) -> None:
    script = "trap 'echo SIGTERM seen, saving; exit 143' TERM; echo training; sleep 600 & wait"
    view = stage.submit("vision", shell(script, timeout_seconds=TIMEOUT_SECONDS))
    stage.until_log(view["id"], "training")
    log = stage.runway.log(view["id"], follow=True).text
    stage.saw(Source.JOB, f"log, followed to its end: {log.splitlines()}")
    expect("SIGTERM seen" in log, f"the job did not see SIGTERM: {log!r}")

    view = stage.until_over(view["id"])
    failure, attempt = view["failure"] or {}, view["attempts"][-1]
    stage.saw(Source.RUNWAY, f"{view['state']}: {failure.get('code')}, though the exit code is {attempt['exit_code']}")
    expect(attempt["exit_code"] == 143, f"the exit code is {attempt['exit_code']}")
    expect(failure.get("code") == "deadline_exceeded", f"the verdict is {failure or view['state']}")

    failed = condition(stage.job(view), "Failed")
    stage.saw(Source.KUBERNETES, f"Job condition Failed: {failed['reason']}: {failed.get('message')}")
    expect(failed["reason"] == "DeadlineExceeded", f"the Job's condition is {failed}")

    gone = wait_for(lambda: _log_gone(stage, view), f"the log of {view['id']} is gone with its pod", 20)
    pods = stage.kubernetes.pods(view["kubernetes"]["namespace"], view["id"])
    stage.saw(Source.KUBERNETES, f"pods left of the job: {len(pods)}")
    expect(not pods, f"{len(pods)} pods are left")
    stage.saw(
        Source.RUNWAY, f"GET logs: {gone.status_code} {gone.json()['code']}, excerpt kept: {gone.json()['excerpt']!r}"
    )
    expect("SIGTERM seen" in (gone.json()["excerpt"] or ""), "the excerpt does not hold the job's last words")


def ignore_sigterm(stage: Stage) -> None:
    script = "trap 'echo SIGTERM ignored' TERM; echo training; while :; do sleep 600 & wait; done"
    spec = shell(script, timeout_seconds=TIMEOUT_SECONDS, grace_period_seconds=GRACE_SECONDS)
    view = stage.submit("vision", spec)
    stage.until_log(view["id"], "training")
    pod = wait_for(lambda: _terminating(stage, view), f"the pod of {view['id']} is told to end", 30)
    # The API server sets deletionTimestamp to the moment when the grace period will be over.
    # https://kubernetes.io/docs/reference/kubernetes-api/common-definitions/object-meta/
    grace = timedelta(seconds=pod["metadata"]["deletionGracePeriodSeconds"])
    told = datetime.fromisoformat(pod["metadata"]["deletionTimestamp"]) - grace
    stage.saw(Source.KUBERNETES, f"the pod was told to end at {told:%H:%M:%S}, with {grace.seconds} s of grace")
    log = stage.runway.log(view["id"], follow=True).text
    stage.saw(Source.JOB, f"log, followed to its end: {log.splitlines()}")
    expect("SIGTERM ignored" in log, f"the job did not see SIGTERM: {log!r}")

    view = stage.until_over(view["id"])
    attempt, failure = view["attempts"][-1], view["failure"] or {}
    ended = datetime.fromisoformat(attempt["finished_at"])
    lasted = ended - told
    stage.saw(
        Source.RUNWAY,
        f"exit code {attempt['exit_code']} by {attempt['signal']} at {ended:%H:%M:%S}, {lasted.seconds} s later",
    )
    stage.saw(Source.RUNWAY, f"{failure.get('code')}: {failure.get('message')}")
    expect((attempt["exit_code"], attempt["signal"]) == (137, "SIGKILL"), f"the attempt ended otherwise: {attempt}")
    expect(failure.get("code") == "deadline_exceeded", f"the verdict is {failure or view['state']}")
    expect(grace.seconds == GRACE_SECONDS, f"the pod's grace period is {grace.seconds} s, not {GRACE_SECONDS}")
    expect(lasted >= grace, f"the process was killed after {lasted}, before its grace period was over")


def cancel(stage: Stage) -> None:
    before = stage.runway.quota("vision")["used"]
    script = "trap 'echo SIGTERM seen, saving; sleep 2; exit 0' TERM; echo training; sleep 600 & wait"
    view = stage.submit("vision", shell(script, grace_period_seconds=10))
    stage.until_log(view["id"], "training")
    held = stage.runway.quota("vision")["used"]
    answer = stage.runway.cancel(view["id"])
    stage.saw(Source.RUNWAY, f"DELETE: {answer.status_code}, state {document(answer)['state']}; quota used {held}")
    expect((answer.status_code, answer.json()["state"]) == (202, "cancelling"), f"DELETE was answered {answer.text}")
    log = stage.runway.log(view["id"], follow=True).text
    stage.saw(Source.JOB, f"log, followed to its end: {log.splitlines()}")
    expect("SIGTERM seen" in log, f"the job did not see SIGTERM: {log!r}")

    view = stage.until_over(view["id"])
    after = stage.runway.quota("vision")["used"]
    stage.saw(Source.RUNWAY, f"state {view['state']}; quota used {after}")
    expect(view["state"] == "cancelled", f"the job is {view['state']}")
    expect(held["jobs"] == before["jobs"] + 1, f"the job did not hold quota: {before} before, {held} while it ran")
    expect(after == before, f"quota used was {before} before the job and is {after} after it")

    job = stage.job(view)
    pods = stage.kubernetes.pods(view["kubernetes"]["namespace"], view["id"])
    record = f"created {job['metadata']['creationTimestamp']}, kept for {job['spec']['ttlSecondsAfterFinished']} s"
    stage.saw(Source.KUBERNETES, f"the Job is still there ({record}); pods that run: {_running(pods)}")
    expect(_running(pods) == 0, "a pod of the job still runs")


def _log_gone(stage: Stage, view: Document) -> httpx2.Response | None:
    answer = stage.runway.log(view["id"])
    return answer if answer.status_code == 410 else None


def _terminating(stage: Stage, view: Document) -> Document | None:
    pods = stage.kubernetes.pods(view["kubernetes"]["namespace"], view["id"])
    return next((pod for pod in pods if "deletionTimestamp" in pod["metadata"]), None)


def _running(pods: list[Document]) -> int:
    return sum(pod["status"]["phase"] == "Running" for pod in pods)


DEADLINE = Scenario(
    "Deadline",
    f"After {TIMEOUT_SECONDS} s the job gets SIGTERM; the verdict is the deadline and not the 143 it caused, "
    "and its last words outlive the pod.",
    reach_deadline,
)
SIGTERM_IGNORED = Scenario(
    "SIGTERM ignored",
    f"A job that ignores SIGTERM gets SIGKILL (exit code 137) once its {GRACE_SECONDS} s of grace are over, no sooner.",
    ignore_sigterm,
)
CANCEL = Scenario(
    "Cancel",
    "DELETE gives the job SIGTERM and time to end; then its quota is free and its record is still there.",
    cancel,
)
