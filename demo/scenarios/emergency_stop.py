"""Emergency stop: an annotation on Runway's Lease refuses submissions."""

from __future__ import annotations

import time
from collections.abc import Callable

from demo.scenario import Scenario
from testbed.context import Context, Source, Unavailable, expect
from testbed.http_client import Document, document, shell
from testbed.waiting import wait_for

ANNOTATION = "runway.internal/submissions-stopped"
REASON = "the demo shows an emergency stop"
SEEN_SECONDS = 10.0
"""Runway reads the Lease about every 3 s; on a busy machine it waits for a CPU as well."""
SLEEP = "trap 'exit 0' TERM; echo started; sleep 600 & wait"


def stop_submissions(context: Context) -> None:
    if context.server is None:
        raise Unavailable("a Runway that the demo has started, whose Lease it knows")
    name, namespace = context.server.lease
    annotate: Callable[[str], str] = lambda text: context.kubernetes.run(  # noqa: E731
        "annotate", "lease", name, f"--namespace={namespace}", "--overwrite", f"{ANNOTATION}{text}"
    )
    first, second = (context.submit("vision", shell(SLEEP)) for _ in range(2))
    for view in (first, second):
        context.until_log(view["id"], "started")
    annotate(f"={REASON}")
    try:
        context.show(
            Source.KUBERNETES, f"kubectl --namespace={namespace} annotate lease {name} {ANNOTATION}='{REASON}'"
        )
        _until(context, "stopped")
        before = _job_names(context, first)
        _refused(context)
        ended = context.until_finished(document(context.runway.cancel(first["id"]))["id"])
        context.show(Source.RUNWAY, f"DELETE of {first['id']} during the stop: {ended['state']}")
        expect(ended["state"] == "cancelled", f"the job is {ended['state']}")

        context.server.kill()
        context.server.start()
        context.show(Source.RUNWAY, f"killed, started again (pid {context.server.pid}): {_readiness(context)}")
        _refused(context)
        going = context.runway.job(second["id"])["state"]
        pod = context.pod(second)
        context.show(Source.KUBERNETES, f"pod {pod['metadata']['name']} kept running: {pod['status']['phase']}")
        expect((going, pod["status"]["phase"]) == ("running", "Running"), f"the other job is {going}")
        created = _job_names(context, first) - before
        context.show(Source.KUBERNETES, f"Jobs created meanwhile: {len(created)}")
        expect(not created, f"Jobs were created: {sorted(created)}")
    finally:
        annotate("-")
    _until(context, "open")
    context.show(Source.RUNWAY, f"a job is admitted again: {context.submit('vision', shell('true'))['id']}")


def _until(context: Context, submissions: str) -> None:
    since = time.monotonic()
    wait_for(
        lambda: _readiness(context).get("submissions") == submissions or None,
        f"submissions {submissions}",
        SEEN_SECONDS,
    )
    context.show(Source.RUNWAY, f"/readyz {time.monotonic() - since:.1f} s later: {_readiness(context)}")


def _readiness(context: Context) -> Document:
    """Return what /readyz says about submissions. Nothing while Runway is not ready."""
    answer = context.runway.get("/readyz")
    return {name: answer.json()[name] for name in ("submissions", "stop_reason")} if answer.is_success else {}


def _refused(context: Context) -> None:
    answer = context.try_to_submit("vision", shell("true"))
    problem = answer.json()
    context.show(
        Source.RUNWAY,
        f"a submission: {answer.status_code} {problem.get('code')}: {problem.get('detail')}; "
        f"Retry-After {answer.headers.get('Retry-After')}",
    )
    seen = (answer.status_code, problem.get("code"), problem.get("detail"))
    expect(seen == (503, "submissions_stopped", REASON), f"a submission got {seen}")


def _job_names(context: Context, view: Document) -> set[str]:
    namespace = view["kubernetes"]["namespace"]
    return {job["metadata"]["name"] for job in context.kubernetes.select("jobs", f"--namespace={namespace}")}


EMERGENCY_STOP = Scenario(
    "Emergency stop",
    f"One annotation on the Lease rejects all submissions with its reason within {SEEN_SECONDS:g} s, "
    "also after a crash. Jobs keep running, and cancel works.",
    stop_submissions,
)
