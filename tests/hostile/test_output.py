"""Output streams of the command line that are closed, full, or lack characters."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

from testbed.waiting import GUARD_SECONDS


def test_closed_stream_causes_no_traceback() -> None:
    command = [sys.executable, "-c", "from runway.cli.main import main; main()", "version"]
    closed = ["sh", "-c", 'exec "$@" >&-', "sh", *command]
    done = subprocess.run(closed, capture_output=True, timeout=GUARD_SECONDS, check=False)
    assert (done.returncode, done.stderr) == (0, b"")


@pytest.mark.parametrize("encoding", ["ascii", "latin-1", "cp1252"])
def test_text_that_an_encoding_lacks_causes_no_traceback(encoding: str) -> None:
    """flyteorg/flyte-sdk issue 1058."""
    command = [sys.executable, "-c", "from runway.cli.main import main; main()", "status", "中é"]
    environment = os.environ | {"PYTHONIOENCODING": encoding}
    done = subprocess.run(command, env=environment, capture_output=True, timeout=GUARD_SECONDS, check=False)
    assert done.returncode == 2
    assert b"is not a job id" in done.stderr
    assert b"Traceback" not in done.stderr


@pytest.mark.parametrize(
    ("redirection", "code", "seen"),
    [
        (">&-", 0, b""),
        (">&- 2>&-", 0, b""),
        (">/dev/full", 74, b"Error: the output cannot be written: No space left on device\n"),
        ("| true", 1, b""),
    ],
)
def test_output_that_cannot_be_written_causes_no_traceback(redirection: str, code: int, seen: bytes) -> None:
    command = f"{sys.executable} -c 'from runway.cli.main import main; main()' --help"
    script = f"set -o pipefail; {command} {redirection}"
    done = subprocess.run(["bash", "-c", script], capture_output=True, timeout=GUARD_SECONDS, check=False)
    assert (done.returncode, done.stdout, done.stderr) == (code, b"", seen)
