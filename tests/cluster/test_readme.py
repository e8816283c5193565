"""The commands that the README gives a newcomer, as they stand there; `make demo` and `make test` are what CI runs."""

from __future__ import annotations

import os
import re
import subprocess

import httpx2
import pytest

from demo.api import shell
from demo.server import CHECKOUT, Server
from demo.stage import Stage

pytestmark = pytest.mark.cluster

README = (CHECKOUT / "README.md").read_text(encoding="utf-8")


def _use() -> str:
    """The shell lines of the section on use, without the one that serves: it is served here already."""
    section = re.search(r"^## Use it\n(.*?)^## ", README, re.DOTALL | re.MULTILINE)
    assert section is not None
    block = re.search(r"^```sh\n(.*?)^```", section[1], re.DOTALL | re.MULTILINE)
    assert block is not None
    serve, _, rest = block[1].partition("\n")
    assert serve.startswith("make serve ")
    return rest


def test_what_a_newcomer_types_works(server: Server) -> None:
    environment = {"PATH": os.environ["PATH"], "HOME": os.environ.get("HOME", "/"), "RUNWAY_URL": server.url}
    # In one shell, as typed: what one command exports the next one sees.
    script = f"set -euxo pipefail\n{_use()}"
    done = subprocess.run(
        ["bash", "-c", script], cwd=CHECKOUT, env=environment, capture_output=True, text=True, timeout=120, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "hello" in done.stdout.splitlines()
    assert "succeeded" in done.stdout
    assert "vision" in done.stdout


def test_the_api_is_documented_where_the_readme_says(server: Server) -> None:
    assert "the API's document at /docs" in README
    answer = httpx2.get(f"{server.url}/docs", trust_env=False)
    assert (answer.status_code, answer.headers["content-type"]) == (200, "text/html; charset=utf-8")


def test_the_reads_of_the_reference_work_as_they_stand(stage: Stage, server: Server) -> None:
    """Every curl of docs/api.md that changes nothing, of a job of its tenant in place of the example's."""
    job = stage.until_over(stage.submit("vision", shell("echo hello"))["id"])["id"]
    text = (CHECKOUT / "docs" / "api.md").read_text(encoding="utf-8")
    reads = [line for line in re.findall(r"^curl (?:[^\n]*\\\n)*[^\n]*", text, re.MULTILINE) if " -X " not in line]
    for read in reads:
        script = re.sub(r"rw-[a-z2-7]{20}", job, read).replace("curl ", "curl --silent --show-error --fail ", 1)
        environment = {"PATH": os.environ["PATH"], "RUNWAY_URL": server.url}
        done = subprocess.run(["bash", "-c", script], env=environment, capture_output=True, text=True, timeout=60)
        assert (done.returncode, bool(done.stdout)) == (0, True), f"{script}\n{done.stderr}"
    assert len(reads) > 8
