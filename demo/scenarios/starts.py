"""Start deadlines: a job that cannot start frees its GPUs."""

from __future__ import annotations

import json

from demo.scenario import Scenario
from testbed.context import Context, Source, expect
from testbed.http_client import IMAGE, shell

START_SECONDS = 15
GPUS = {"cpu": "100m", "memory": "32Mi", "gpu": 4}


def free_the_gpus_of_a_typo(context: Context) -> None:
    context.require_gpus(4)
    quota = context.runway.quota("vision")
    expect(quota["used"]["gpu"] == 0, f"vision uses GPUs before the scenario starts: {quota['jobs']}")
    repository, _, tag = IMAGE.rpartition(":")
    typo = f"{repository}:{tag}-typo"
    spec = shell("true", image=typo, resources=GPUS, timeout_seconds=600, start_timeout_seconds=START_SECONDS)
    stuck = context.submit("vision", spec)
    context.show(Source.RUNWAY, f"{stuck['id']} has all 4 GPUs, image {typo}, timeout 600 s, start {START_SECONDS} s")
    refused = context.try_to_submit("vision", shell("true", resources=GPUS))
    context.show(Source.RUNWAY, f"a second job: {refused.status_code} {refused.json()['code']}")
    expect(refused.status_code == 403, f"the second job got {refused.status_code}")

    view = context.until_finished(stuck["id"])
    failure = view["failure"] or {}
    context.show(Source.RUNWAY, f"{view['state']}: {failure.get('code')}: {failure.get('message')}")
    timeout = json.loads(context.job(view)["metadata"]["annotations"].get("runway.internal/start-timeout", "{}"))
    context.show(Source.KUBERNETES, f"the Job ended by its deadline; its annotation has cause {timeout.get('cause')}")
    expect(failure.get("evidence", {}).get("limit") == "job", f"the failure is {failure or view['state']}")
    expect(timeout.get("cause") == failure["code"], "the annotation has another cause")

    following = context.until_finished(context.submit("vision", shell("true", resources=GPUS))["id"])
    context.show(Source.RUNWAY, f"the second job, submitted again: {following['state']}")
    expect(following["state"] == "succeeded", f"it is {following['state']}: {following['failure']}")


TYPO = Scenario(
    "A typo in an image",
    f"A job on 4 GPUs whose image cannot be pulled is ended after {START_SECONDS} s, and the next job has the GPUs.",
    free_the_gpus_of_a_typo,
)
