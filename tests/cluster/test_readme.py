"""The commands that the documents give a newcomer, as they stand there."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import replace
from pathlib import Path
from uuid import uuid4

import httpx2
import pytest

from testbed.context import Context
from testbed.http_client import IMAGE, shell
from testbed.server import CHECKOUT, Server
from testbed.waiting import wait_for
from tests.support.documented import blocks, environment, play, played
from tests.support.locks import one_at_a_time

pytestmark = pytest.mark.cluster

SERVED = "http://127.0.0.1:8000"


def test_what_a_newcomer_types_works(server: Server, tmp_path: Path) -> None:
    """The first line in one terminal, the others in another, where what one exports the next one sees."""
    [block] = blocks("README.md", "Use it")
    serve, rest = replace(block, commands=block.commands[:1]), replace(block, commands=block.commands[1:])
    # Nothing but what the machine has: where `runway` is, the block itself says.
    bare = environment() | {"PATH": os.environ["PATH"]}
    with (
        one_at_a_time("names-of-the-documents"),
        in_place_of(server),
        serving(serve.script, bare, tmp_path / "serve.log"),
    ):
        said = played(rest, bare)
    assert "hello" in said.splitlines()
    assert "succeeded" in said
    assert "vision" in said


def test_the_api_is_documented_where_the_readme_says(server: Server) -> None:
    assert "OpenAPI at /docs" in (CHECKOUT / "README.md").read_text(encoding="utf-8")
    answer = httpx2.get(f"{server.url}/docs", trust_env=False)
    assert (answer.status_code, answer.headers["content-type"]) == (200, "text/html; charset=utf-8")


def test_the_calls_of_the_reference_work_as_they_stand(context: Context, server: Server) -> None:
    """In their order, with jobs and an image that are here in place of the example's, and keys that are new."""
    over = context.until_finished(context.submit("vision", shell("echo hello"))["id"])["id"]
    new, submitted = uuid4().hex, over
    for block in blocks("docs/api.md"):
        method = (re.findall(r" -X (\w+)", block.script) or ["GET"])[0]
        replaced = {
            r"^curl": "curl --silent --show-error --write-out '\\n%{http_code}'",
            r"rw-[a-z2-7]{20}": submitted if method == "DELETE" else over,
            r"registry\.example\.com/[^\"]+": IMAGE,
            r"2026-11-24'": f"{new}'",
        }
        done = play(block, environment(RUNWAY_URL=server.url), replaced)
        answer, _, status = done.stdout.rpartition("\n")
        assert status == {"POST": "201", "DELETE": "202"}.get(method, "200"), f"{block}\n{answer}\n{done.stderr}"
        assert (done.returncode, answer != "") == (0, True)
        if method == "POST":
            submitted = json.loads(answer)["id"]
            context.track(submitted)
    assert context.until_finished(submitted)["state"] == "cancelled"


@contextmanager
def in_place_of(server: Server) -> Iterator[None]:
    """Another Runway can be the writer for that time."""
    server.stop()
    try:
        yield
    finally:
        server.start()


@contextmanager
def serving(command: str, environment: dict[str, str], log: Path) -> Iterator[None]:
    """From when it is the writer until Ctrl-C, which reaches all that the command has started."""
    with log.open("wb") as output:
        process = subprocess.Popen(
            ["bash", "-c", command],
            cwd=CHECKOUT,
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )

    def writes() -> bool | None:
        assert process.poll() is None, log.read_text()
        try:
            answer = httpx2.get(f"{SERVED}/readyz", timeout=2, trust_env=False)
        except httpx2.TransportError:
            return None
        return (answer.status_code == 200 and answer.json()["role"] == "writer") or None

    try:
        wait_for(writes, f"{command} is the writer", 60)
        yield
    finally:
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGINT)
        process.wait(30)
