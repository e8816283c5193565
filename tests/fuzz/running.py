"""`st run`, https://schemathesis.readthedocs.io: requests made from the OpenAPI document, answers held against it."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

from tests.support.served import CHECKOUT, Served

CONFIGURATION = Path(__file__).with_name("schemathesis.toml")


def hold_against_the_document(served: Served, *options: str, seconds: float) -> str:
    """Run it with these options; what it printed. Fails with its findings, and where Runway has logged a failure."""
    command = [
        sys.executable, "-m", "schemathesis.cli", f"--config-file={CONFIGURATION}", "run", f"{served.url}/openapi.json",
        "--continue-on-failure", "--request-timeout=15", *options,
    ]  # fmt: skip
    done = subprocess.run(
        command,
        cwd=served.log.parent,  # It leaves a folder behind where it runs.
        env={**os.environ, "PYTHONPATH": f"{CHECKOUT}:{CHECKOUT / 'src'}"},
        capture_output=True,
        text=True,
        timeout=seconds,
        check=False,
    )
    shown = "\n".join(line[:500] for line in done.stdout.splitlines()) + done.stderr[-2000:]
    assert done.returncode == 0, shown
    assert served.faults() == []
    return shown
