"""Termination from outside: deadline, SIGKILL, cancel."""

from __future__ import annotations

from datetime import datetime, timedelta

import httpx2

from demo.scenario import Scenario
from demo.scenarios.outcomes import condition
from testbed.context import Context, Source, expect
from testbed.http_client import Document, document, shell
from testbed.waiting import wait_for

GRACE_SECONDS = 4
TIMEOUT_SECONDS = 25


def reach_deadline(context: Context) -> None:
    script = "trap 'echo SIGTERM seen, saving; exit 143' TERM; echo training; sleep 600 & wait"
    view = context.submit("vision", shell(script, timeout_seconds=TIMEOUT_SECONDS))
    context.until_log(view["id"], "training")
    log = context.runway.log(view["id"], follow=True).text
    context.show(Source.JOB, f"log, followed to the end: {log.splitlines()}")
    expect("SIGTERM seen" in log, f"the job did not see SIGTERM: {log!r}")

    view = context.until_finished(view["id"])
    failure, attempt = view["failure"] or {}, view["attempts"][-1]
    context.show(
        Source.RUNWAY, f"{view['state']}: {failure.get('code')}, though the exit code is {attempt['exit_code']}"
    )
    expect(attempt["exit_code"] == 143, f"the exit code is {attempt['exit_code']}")
    expect(failure.get("code") == "deadline_exceeded", f"the failure is {failure or view['state']}")

    failed = condition(context.job(view), "Failed")
    context.show(Source.KUBERNETES, f"Job condition Failed: {failed['reason']}: {failed.get('message')}")
    expect(failed["reason"] == "DeadlineExceeded", f"the Job's condition is {failed}")

    gone = wait_for(lambda: _log_gone(context, view), f"410 for the log of {view['id']} after its pod's deletion")
    pods = context.kubernetes.pods(view["kubernetes"]["namespace"], view["id"])
    context.show(Source.KUBERNETES, f"pods left of the job: {len(pods)}")
    expect(not pods, f"{len(pods)} pods are left")
    context.show(
        Source.RUNWAY,
        f"GET logs: {gone.status_code} {gone.json()['code']}, recorded excerpt: {gone.json()['excerpt']!r}",
    )
    expect("SIGTERM seen" in (gone.json()["excerpt"] or ""), "the excerpt lacks the end of the job's log")


def ignore_sigterm(context: Context) -> None:
    script = "trap 'echo SIGTERM ignored' TERM; echo training; while :; do sleep 600 & wait; done"
    spec = shell(script, timeout_seconds=TIMEOUT_SECONDS, grace_period_seconds=GRACE_SECONDS)
    view = context.submit("vision", spec)
    context.until_log(view["id"], "training")
    pod = wait_for(lambda: _terminating(context, view), f"the pod of {view['id']} is terminating")
    # The API server sets deletionTimestamp to the end of the grace period.
    # https://kubernetes.io/docs/reference/kubernetes-api/common-definitions/object-meta/
    grace = timedelta(seconds=pod["metadata"]["deletionGracePeriodSeconds"])
    requested_at = datetime.fromisoformat(pod["metadata"]["deletionTimestamp"]) - grace
    context.show(
        Source.KUBERNETES, f"the pod is terminating since {requested_at:%H:%M:%S}, with {grace.seconds} s of grace"
    )
    log = context.runway.log(view["id"], follow=True).text
    context.show(Source.JOB, f"log, followed to the end: {log.splitlines()}")
    expect("SIGTERM ignored" in log, f"the job did not see SIGTERM: {log!r}")

    view = context.until_finished(view["id"])
    attempt, failure = view["attempts"][-1], view["failure"] or {}
    ended = datetime.fromisoformat(attempt["finished_at"])
    lasted = ended - requested_at
    context.show(
        Source.RUNWAY,
        f"exit code {attempt['exit_code']} by {attempt['signal']} at {ended:%H:%M:%S}, {lasted.seconds} s later",
    )
    context.show(Source.RUNWAY, f"{failure.get('code')}: {failure.get('message')}")
    expect((attempt["exit_code"], attempt["signal"]) == (137, "SIGKILL"), f"the attempt is {attempt}")
    expect(failure.get("code") == "deadline_exceeded", f"the failure is {failure or view['state']}")
    expect(grace.seconds == GRACE_SECONDS, f"the pod's grace period is {grace.seconds} s, not {GRACE_SECONDS}")
    expect(lasted >= grace, f"the process was killed after {lasted}, before the end of its grace period")


def cancel(context: Context) -> None:
    before = context.runway.quota("vision")["used"]
    script = "trap 'echo SIGTERM seen, saving; sleep 2; exit 0' TERM; echo training; sleep 600 & wait"
    view = context.submit("vision", shell(script, grace_period_seconds=10))
    context.until_log(view["id"], "training")
    used = context.runway.quota("vision")["used"]
    answer = context.runway.cancel(view["id"])
    context.show(Source.RUNWAY, f"DELETE: {answer.status_code}, state {document(answer)['state']}; quota used {used}")
    expect((answer.status_code, answer.json()["state"]) == (202, "cancelling"), f"DELETE got {answer.text}")
    log = context.runway.log(view["id"], follow=True).text
    context.show(Source.JOB, f"log, followed to the end: {log.splitlines()}")
    expect("SIGTERM seen" in log, f"the job did not see SIGTERM: {log!r}")

    view = context.until_finished(view["id"])
    after = context.runway.quota("vision")["used"]
    context.show(Source.RUNWAY, f"state {view['state']}; quota used {after}")
    expect(view["state"] == "cancelled", f"the job is {view['state']}")
    expect(used["jobs"] == before["jobs"] + 1, f"the job used no quota: {before} before, {used} while it ran")
    expect(after == before, f"quota used was {before} before the job and is {after} after it")

    job = context.job(view)
    pods = context.kubernetes.pods(view["kubernetes"]["namespace"], view["id"])
    record = f"created {job['metadata']['creationTimestamp']}, kept for {job['spec']['ttlSecondsAfterFinished']} s"
    context.show(Source.KUBERNETES, f"the Job still exists ({record}); running pods: {_running(pods)}")
    expect(_running(pods) == 0, "a pod of the job is still running")


def _log_gone(context: Context, view: Document) -> httpx2.Response | None:
    answer = context.runway.log(view["id"])
    return answer if answer.status_code == 410 else None


def _terminating(context: Context, view: Document) -> Document | None:
    pods = context.kubernetes.pods(view["kubernetes"]["namespace"], view["id"])
    return next((pod for pod in pods if "deletionTimestamp" in pod["metadata"]), None)


def _running(pods: list[Document]) -> int:
    return sum(pod["status"]["phase"] == "Running" for pod in pods)


DEADLINE = Scenario(
    "Deadline",
    f"After {TIMEOUT_SECONDS} s the job gets SIGTERM. The failure is the deadline, not the 143 it caused, "
    "and the end of the log outlives the pod.",
    reach_deadline,
)
SIGTERM_IGNORED = Scenario(
    "SIGTERM ignored",
    f"A job that ignores SIGTERM gets SIGKILL (exit code 137) after its {GRACE_SECONDS} s of grace, no sooner.",
    ignore_sigterm,
)
CANCEL = Scenario(
    "Cancel",
    "DELETE sends the job SIGTERM and waits for its grace period. Then its quota is free, and its record remains.",
    cancel,
)
