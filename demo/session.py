"""`python -m demo.session [FILE]`: record a session of the command line.

It runs a fixed list of commands in a shell, and writes them with their output to FILE (default docs/session.md). Runway
is at `RUNWAY_URL` (default http://127.0.0.1:8000, as under `make serve`). An unexpected exit code fails the recording
and leaves FILE unchanged.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Final

from testbed.server import CHECKOUT

DOCUMENT: Final = CHECKOUT / "docs" / "session.md"
COMMAND_SECONDS: Final = 90.0

_JOB_ID: Final = re.compile(r"rw-[a-z2-7]{20}")
_SPEC: Final = "--image runway.local/busybox:1 --cpu 500m --memory 64Mi"


@dataclass(frozen=True, slots=True, kw_only=True)
class Step:
    """A command with its heading and expected exit code.

    `keep` stores the printed job id for `{NAME}` in later commands. `pause` is the seconds to wait before the command,
    so that a job runs or its usage is measured.
    """

    said: str
    command: str
    exit_code: int = 0
    keep: str | None = None
    pause: float = 0


STEPS: Final = (
    Step(said="What the team may use, what it costs, and what is free now.", command="runway limits"),
    Step(said="The team's quota: limit and usage.", command="runway quota"),
    Step(
        said="A dry run lists all violations at once and submits nothing.",
        command="runway submit --dry-run --image example.org/train:1 --cpu 8 --memory 1Mi --timeout 9d",
        exit_code=1,
    ),
    Step(
        said="Run a job: its log is on stdout, its progress on stderr.",
        command=f"runway run --name hello {_SPEC} -- sh -c 'sleep 2; echo hello'",
    ),
    Step(
        said="This job exceeds its memory limit. The command exits with the job's exit code.",
        command=f"runway submit --wait --name train-vit {_SPEC} -- "
        "sh -c 'echo loading; x=$(head -c 200000000 /dev/zero | tr \"\\0\" x)'",
        exit_code=137,
    ),
    Step(said="Full details of that job, by its name.", command="runway status train-vit"),
    Step(
        said="A busy job, and its usage after 16 seconds.",
        command=f"runway submit --name busy --grace 5 {_SPEC} -- sh -c 'trap \"exit 143\" TERM; while :; do :; done'",
        keep="busy",
    ),
    Step(said="", command="runway top --once", pause=16),
    Step(said="Cancel it.", command="runway cancel -y {busy}"),
    Step(said="", command="runway wait {busy}", exit_code=130),
    Step(said="", command="runway ls --limit 3"),
)


class SessionFailed(Exception):
    """A command had an unexpected exit code; the message has its output."""


def play(environment: Mapping[str, str], sleep: Callable[[float], None] = time.sleep) -> str:
    """Run every command and return the session as Markdown. Raises SessionFailed."""
    jobs: dict[str, str] = {}
    lines = [
        "# A session",
        "",
        f"Recorded on {datetime.now(UTC):%Y-%m-%d} on the local cluster: the commands and their output.",
        "On a terminal, output has colours, and progress is one live display instead of one line per change.",
        "To record it again, run `make serve`, and in another shell `.venv/bin/python -m demo.session`.",
        "",
        "```",
        "$ export RUNWAY_TENANT=vision",
    ]
    for step in STEPS:
        sleep(step.pause)
        command = re.sub(r"\{(\w+)\}", lambda found: jobs[found[1]], step.command)
        code, output = _run(command, environment)
        if code != step.exit_code:
            raise SessionFailed(f"{command}\nexited with {code}, not {step.exit_code}:\n{output}")
        if step.keep is not None and (found := _JOB_ID.search(output)):
            jobs[step.keep] = found[0]
        lines += ["", f"# {step.said}"] if step.said else [""]
        lines += [f"$ {command}", *output.rstrip("\n").splitlines()]
        if code:
            lines.append(f"# exit code {code}")
    return "\n".join([*lines, "```", ""])


def _run(command: str, environment: Mapping[str, str]) -> tuple[int, str]:
    done = subprocess.run(
        ["bash", "-c", command],
        env=environment,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        timeout=COMMAND_SECONDS,
        check=False,
        text=True,
    )
    return done.returncode, done.stdout


def session_environment(url: str) -> dict[str, str]:
    """Return the environment of the commands: the `runway` of this Python's environment, and one tenant."""
    path = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
    given = {name: os.environ[name] for name in ("PYTHONPATH",) if name in os.environ}
    own = {"PATH": path, "HOME": "/nonexistent", "LC_ALL": "C.UTF-8", "RUNWAY_URL": url, "RUNWAY_TENANT": "vision"}
    return given | own


def main() -> int:
    """Record the session and return the exit code: 1 if the recording failed."""
    document = Path(sys.argv[1]) if len(sys.argv) > 1 else DOCUMENT
    try:
        session = play(session_environment(os.environ.get("RUNWAY_URL", "http://127.0.0.1:8000")))
    except (SessionFailed, subprocess.TimeoutExpired) as error:
        print(f"session: {error}", file=sys.stderr)
        return 1
    document.write_text(session)
    return 0


if __name__ == "__main__":
    sys.exit(main())
