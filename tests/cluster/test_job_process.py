"""The process of a job: verbatim command and environment, and no privileges."""

from __future__ import annotations

import base64

import pytest

from testbed.context import Context
from testbed.http_client import IMAGE, JOB_SECONDS, Document

pytestmark = pytest.mark.cluster

AWKWARD = [
    "$(HOME)", "$$", "$$(HOME)", "$(RUNWAY_JOB_ID)", "$(nosuch)", "$", "$(", "$HOME `id` $(id)", "quote \" and '",
    "back\\slash \\n", "two\nlines\n", " spaces  kept ", "\ttab", "", "--flag=-1", "* ? [a-z]", "ünïcødé 日本 ✓ \u200b",
]  # fmt: skip


def job(command: list[str], **fields: object) -> Document:
    resources = {"cpu": "100m", "memory": "32Mi"}
    return {"image": IMAGE, "command": command, "resources": resources, "timeout_seconds": JOB_SECONDS} | fields


def test_arguments_reach_the_process_verbatim(context: Context) -> None:
    # The parts of the command after the script are arguments too, so both lists must arrive unchanged.
    script = 'for each in "$@"; do printf %s "$each" | base64 -w 0; echo; done'
    view = context.submit("vision", job(["sh", "-c", script, "sh", *AWKWARD], args=AWKWARD))
    assert context.until_finished(view["id"])["state"] == "succeeded"

    lines = context.runway.log(view["id"]).text.splitlines()
    assert [base64.b64decode(line).decode() for line in lines] == AWKWARD + AWKWARD
    assert view["spec"]["command"][4:] == view["spec"]["args"] == AWKWARD


def test_environment_values_reach_the_process_verbatim(context: Context) -> None:
    env = {f"VALUE_{index}": value for index, value in enumerate(AWKWARD)}
    script = 'for name in "$@"; do eval "printf %s \\"\\$$name\\"" | base64 -w 0; echo; done'
    names = [*env, "RUNWAY_JOB_ID", "RUNWAY_TENANT"]
    view = context.submit("vision", job(["sh", "-c", script, "sh"], args=names, env=env))
    assert context.until_finished(view["id"])["state"] == "succeeded"

    lines = context.runway.log(view["id"]).text.splitlines()
    assert [base64.b64decode(line).decode() for line in lines] == [*AWKWARD, view["id"], "vision"]
    assert view["spec"]["env"] == env


def test_job_process_has_no_privileges_and_no_credentials(context: Context) -> None:
    script = (
        "id -u; id -g; ls /var/run/secrets /run/secrets 2>/dev/null;"
        "grep -E '^(CapInh|CapPrm|CapEff|CapBnd|NoNewPrivs|Seccomp):' /proc/self/status"
    )
    view = context.submit("vision", job(["sh", "-c", script]))
    assert context.until_finished(view["id"])["state"] == "succeeded"

    said = [line.replace("\t", " ") for line in context.runway.log(view["id"]).text.splitlines()]
    none = "0000000000000000"
    assert said == [
        "1000", "1000", f"CapInh: {none}", f"CapPrm: {none}", f"CapEff: {none}", f"CapBnd: {none}", "NoNewPrivs: 1",
        "Seccomp: 2",
    ]  # fmt: skip
    pod = context.pod(view)
    namespace = context.kubernetes.get("namespace", pod["metadata"]["namespace"])
    assert namespace is not None
    assert namespace["metadata"]["labels"]["pod-security.kubernetes.io/enforce"] == "restricted"
    assert pod["spec"]["automountServiceAccountToken"] is False
    assert pod["spec"]["serviceAccountName"] == "runway-job"
    assert pod["status"]["qosClass"] == "Guaranteed"
