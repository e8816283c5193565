"""The quickstarts of the README for programs, run as written against a real socket."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Mapping

from testbed.waiting import GUARD_SECONDS
from tests.api.conftest import Runway
from tests.browser.conftest import Served
from tests.support.documented import blocks, code_blocks, environment

ADDRESS = "127.0.0.1:8000"


def start(command: list[str], variables: Mapping[str, str]) -> subprocess.Popen[str]:
    return subprocess.Popen(command, env=variables, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def test_python_quickstart_prints_the_states_and_the_log(served: Served) -> None:
    [program] = code_blocks("README.md", "python")
    assert len([line for line in program.splitlines() if line]) <= 15
    process = start(
        [sys.executable, "-c", program.replace(ADDRESS, served.url.removeprefix("http://"))], {**os.environ}
    )

    async def run_job(runway: Runway) -> None:
        async def submitted() -> str | None:
            return next((key[1] for key in runway.kubernetes.objects["jobs"]), None)

        job_id = str(await runway.until(submitted))
        pod = runway.kubernetes.start_pod(job_id)
        runway.kubernetes.logs[pod] = b"hello\n"
        await runway.until_state(job_id, "running")
        runway.kubernetes.end_pod(pod)
        runway.kubernetes.complete(job_id)
        await runway.until_state(job_id, "succeeded")

    served.run(run_job)
    output, errors = process.communicate(timeout=GUARD_SECONDS)
    assert (process.returncode, errors) == (0, "")
    words = output.split()
    assert words[-2:] == ["succeeded", "hello"]
    assert set(words[:-2]) <= {"pending", "running", "succeeded"}


def test_python_quickstart_prints_the_violations(served: Served) -> None:
    program = code_blocks("README.md", "python")[0].replace(ADDRESS, served.url.removeprefix("http://"))
    process = start([sys.executable, "-c", program.replace("500m", "99")], {**os.environ})
    _, errors = process.communicate(timeout=GUARD_SECONDS)
    assert process.returncode == 1
    assert json.loads(errors)["violations"][0]["field"] == "resources.cpu"


def test_curl_quickstart_submits_and_finds_the_job(served: Served) -> None:
    [block] = blocks("README.md", "With curl")
    script = f"set -e\n{block.script}".replace(ADDRESS, served.url.removeprefix("http://"))
    process = start(["bash", "-c", script], environment())
    output, errors = process.communicate(timeout=GUARD_SECONDS)
    assert (process.returncode, errors) == (0, "")
    submitted, end = json.JSONDecoder().raw_decode(output)
    assert [job["id"] for job in json.loads(output[end:])["jobs"]] == [submitted["id"]]
