"""An operator's emergency stop: an annotation on Runway's own Lease, and nothing else."""

from __future__ import annotations

import time
from collections.abc import Callable

from demo.scenario import NotSeen, Scenario, Source
from testbed.context import Stage, expect
from testbed.http_client import Document, document, shell
from testbed.waiting import wait_for

ANNOTATION = "runway.internal/submissions-stopped"
REASON = "the demo shows an emergency stop"
SEEN_SECONDS = 5.0
"""The Lease is looked at every 3 s or a little sooner, and a busy machine may take a moment."""
STAY = "trap 'exit 0' TERM; echo started; sleep 600 & wait"


def stop_submissions(stage: Stage) -> None:
    if stage.server is None:
        raise NotSeen("this Runway was not started by the demo, so its Lease is not known")
    name, namespace = stage.server.lease
    annotate: Callable[[str], str] = lambda text: stage.kubernetes.run(  # noqa: E731
        "annotate", "lease", name, f"--namespace={namespace}", "--overwrite", f"{ANNOTATION}{text}"
    )
    first, second = (stage.submit("vision", shell(STAY, timeout_seconds=120)) for _ in range(2))
    for view in (first, second):
        stage.until_log(view["id"], "started")
    annotate(f"={REASON}")
    try:
        stage.saw(Source.KUBERNETES, f"kubectl --namespace={namespace} annotate lease {name} {ANNOTATION}='{REASON}'")
        _until(stage, "stopped")
        before = _job_names(stage, first)
        _refused(stage)
        ended = stage.until_over(document(stage.runway.cancel(first["id"]))["id"])
        stage.saw(Source.RUNWAY, f"meanwhile {first['id']} is cancelled on request: {ended['state']}")
        expect(ended["state"] == "cancelled", f"the job is {ended['state']}")

        stage.server.kill()
        stage.server.start()
        stage.saw(Source.RUNWAY, f"killed, started again (pid {stage.server.pid}): {_told(stage)}")
        _refused(stage)
        going = stage.runway.job(second["id"])["state"]
        pod = stage.pod(second)
        stage.saw(Source.KUBERNETES, f"pod {pod['metadata']['name']} has run all the time: {pod['status']['phase']}")
        expect((going, pod["status"]["phase"]) == ("running", "Running"), f"the other job is {going}")
        created = _job_names(stage, first) - before
        stage.saw(Source.KUBERNETES, f"Jobs created meanwhile: {len(created)}")
        expect(not created, f"Jobs were created: {sorted(created)}")
    finally:
        annotate("-")
    _until(stage, "open")
    stage.saw(Source.RUNWAY, f"a job is let in again: {stage.submit('vision', shell('true'))['id']}")


def _until(stage: Stage, submissions: str) -> None:
    since = time.monotonic()
    wait_for(lambda: _told(stage)["submissions"] == submissions or None, f"submissions {submissions}", SEEN_SECONDS)
    stage.saw(Source.RUNWAY, f"/readyz {time.monotonic() - since:.1f} s later: {_told(stage)}")


def _told(stage: Stage) -> Document:
    ready = document(stage.runway.get("/readyz"))
    return {name: ready[name] for name in ("submissions", "stop_reason")}


def _refused(stage: Stage) -> None:
    answer = stage.try_to_submit("vision", shell("true"))
    problem = answer.json()
    stage.saw(
        Source.RUNWAY,
        f"a submission: {answer.status_code} {problem.get('code')}: {problem.get('detail')}; "
        f"Retry-After {answer.headers.get('Retry-After')}",
    )
    seen = (answer.status_code, problem.get("code"), problem.get("detail"))
    expect(seen == (503, "submissions_stopped", REASON), f"a submission was answered {seen}")


def _job_names(stage: Stage, view: Document) -> set[str]:
    namespace = view["kubernetes"]["namespace"]
    return {job["metadata"]["name"] for job in stage.kubernetes.select("jobs", f"--namespace={namespace}")}


EMERGENCY_STOP = Scenario(
    "Emergency stop",
    f"One annotation on the Lease refuses every submission with its reason within {SEEN_SECONDS:g} s, "
    "also after a crash; jobs run on and can be cancelled.",
    stop_submissions,
)
