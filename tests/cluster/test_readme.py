"""The commands of the README and of the API reference, run as written."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import replace
from pathlib import Path
from typing import Any
from uuid import uuid4

import httpx2
import pytest

from runway.console.docs_page import reference_of
from testbed.context import Context
from testbed.http_client import IMAGE, shell
from testbed.server import CHECKOUT, Server
from testbed.waiting import GUARD_SECONDS, wait_for
from tests.support.documented import Block, blocks, code_blocks, environment, play, played
from tests.support.locks import one_at_a_time

pytestmark = pytest.mark.cluster

SERVED = "http://127.0.0.1:8000"


def test_readme_quick_start_works(server: Server, tmp_path: Path) -> None:
    """Run the first line in one shell, the others together in a second one, and then the quickstarts of the API."""
    [block] = blocks("README.md", "Use it")
    serve, rest = replace(block, commands=block.commands[:1]), replace(block, commands=block.commands[1:])
    # Only the machine's PATH: the block itself says where `runway` is.
    bare = environment() | {"PATH": os.environ["PATH"]}
    [curl] = blocks("README.md", "With curl")
    [program] = code_blocks("README.md", "python")
    with (
        one_at_a_time("names-of-the-documents"),
        stopped(server),
        serving(serve.script, bare, tmp_path / "serve.log"),
    ):
        said = played(rest, bare)
        answers = played(curl, bare)
        ran = subprocess.run(
            [sys.executable, "-c", program], capture_output=True, text=True, timeout=GUARD_SECONDS, check=False
        )
    assert "hello" in said.splitlines()
    assert "succeeded" in said
    assert "Would be admitted" in said
    assert "a10g" in said, "limits lists the pools"
    assert ran.returncode == 0, ran.stderr
    assert ran.stdout.split()[-2:] == ["succeeded", "hello"]
    submitted, listed = documents(answers)
    assert [job["id"] for job in listed["jobs"]][:1] == [submitted["id"]]


def documents(text: str) -> list[Any]:
    """Read the JSON documents of one stream."""
    found, decoder = [], json.JSONDecoder()
    while text := text.lstrip():
        document, end = decoder.raw_decode(text)
        found.append(document)
        text = text[end:]
    return found


def test_docs_page_is_at_the_documented_path(server: Server) -> None:
    assert "OpenAPI at /docs" in (CHECKOUT / "README.md").read_text(encoding="utf-8")
    answer = httpx2.get(f"{server.url}/docs", timeout=GUARD_SECONDS, trust_env=False)
    assert (answer.status_code, answer.headers["content-type"]) == (200, "text/html; charset=utf-8")


def test_commands_of_the_api_page_work(context: Context, server: Server) -> None:
    """Run them in their order, with jobs and an image of this cluster instead of the example's, and with new keys."""
    finished = context.until_finished(context.submit("vision", shell("echo hello"))["id"])["id"]
    calls = reference_of(httpx2.get(f"{server.url}/openapi.json", timeout=GUARD_SECONDS, trust_env=False).json()).calls
    commands = [Block("/docs", call.summary, (one.text,)) for call in calls for one in call.commands]
    new, submitted = uuid4().hex, finished
    for block in commands:
        method = (re.findall(r" -X (\w+)", block.script) or ["GET"])[0]
        replaced = {
            r"^curl": "curl --silent --show-error --write-out '\\n%{http_code}'",
            r"rw-[a-z2-7]{20}": submitted if method == "DELETE" else finished,
            r"registry\.example\.com/[^\"]+": IMAGE,
            r'"cpu": "8"': '"cpu": "1"',  # The local node has two CPUs and 4Gi.
            r'"memory": "32Gi"': '"memory": "1Gi"',
            r"2026-11-24'": f"{new}'",
            r'"python", "train\.py"': '"sleep", "600"',  # It must not end before the example of DELETE.
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
def stopped(server: Server) -> Iterator[None]:
    """Stop the server, so that another Runway can be the leader."""
    server.stop()
    try:
        yield
    finally:
        server.start()


@contextmanager
def serving(command: str, environment: dict[str, str], log: Path) -> Iterator[None]:
    """Run the command, wait until it is the leader, and send SIGINT to its process group at the end."""
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

    def is_leader() -> bool | None:
        assert process.poll() is None, log.read_text()
        try:
            answer = httpx2.get(f"{SERVED}/readyz", timeout=2, trust_env=False)
        except httpx2.TransportError:
            return None
        return (answer.status_code == 200 and answer.json()["role"] == "writer") or None

    try:
        wait_for(is_leader, f"{command} is the leader")
        yield
    finally:
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGINT)
        process.wait(30)
