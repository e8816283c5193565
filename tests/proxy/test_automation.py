"""The examples of docs/features.md for CI: the step of a workflow, and the target of a Makefile."""

from __future__ import annotations

import os
import re
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml

from testbed.waiting import GUARD_SECONDS, wait_for
from tests.hostile.serving import CLI, Process, serving

FEATURES = Path(__file__).parents[2] / "docs" / "features.md"
SPEC = "image: runway.local/busybox:1\nresources: {cpu: '1', memory: 64Mi}\ncommand: [python, train.py]\n"
ENDLESS = ("python train.py", "sleep 600"), ("python, train.py", "sleep, '600'")
"""The fake runs these commands until they are cancelled, and other commands for a moment."""


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Process]:
    with serving(tmp_path_factory.mktemp("server")) as running:
        yield running


def block(language: str) -> str:
    """Return the first block of this language after the sentence about CI."""
    return (
        FEATURES.read_text(encoding="utf-8")
        .partition("In CI, ")[2]
        .partition(f"```{language}\n")[2]
        .partition("```\n")[0]
    )


def started(server: Process, folder: Path, example: str, *, endless: bool) -> subprocess.Popen[bytes]:
    """Start an example as CI does: the step in a script of bash, the target in make."""
    (folder / "runway").write_text(f"#!/bin/sh\nexec {CLI[0]} {CLI[1]} '{CLI[2]}' \"$@\"\n")
    (folder / "runway").chmod(0o755)
    (step,) = yaml.safe_load(block("yaml"))
    texts = {"train.yaml": SPEC, "step.sh": step["run"].replace("python:3.12", "runway.local/busybox:1")}
    for name, text in {**texts, "Makefile": block("make")}.items():
        for old, new in ENDLESS if endless else ():
            text = text.replace(old, new)
        (folder / name).write_text(text)
    command = ["bash", "-e", "step.sh"] if example == "step" else ["make", "train"]
    environment = {**os.environ, **step["env"], "RUNWAY_URL": server.url, "PATH": f"{folder}:{os.environ['PATH']}"}
    return subprocess.Popen(command, cwd=folder, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE)


@pytest.mark.parametrize("example", ["step", "target"])
def test_example_exits_like_its_job(server: Process, tmp_path: Path, example: str) -> None:
    with started(server, tmp_path, example, endless=False) as process:
        output, errors = process.communicate(timeout=GUARD_SECONDS)
    assert process.returncode == 0, errors
    assert output.endswith(b"hello\n")


@pytest.mark.parametrize("example", ["step", "target"])
def test_cancelled_example_cancels_its_job(server: Process, tmp_path: Path, example: str) -> None:
    with started(server, tmp_path, example, endless=True) as process:
        assert process.stdout is not None
        assert process.stdout.readline().endswith(b"hello\n")
        process.send_signal(signal.SIGTERM)
        _, errors = process.communicate(timeout=GUARD_SECONDS)
    assert process.returncode != 0
    (job,) = set(re.findall(rb"^rw-[a-z2-7]{20}$", errors, re.MULTILINE))
    path = f"/v1/jobs/{job.decode()}"
    wait_for(lambda: server.get(path, "vision").json()["state"] == "cancelled" or None, "job cancelled")
