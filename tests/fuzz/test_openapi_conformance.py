"""Responses conform to the OpenAPI document. https://schemathesis.readthedocs.io

`RUNWAY_FUZZ_SEED` repeats the printed seed of random requests.
"""

from __future__ import annotations

import os
import random
import subprocess
import sys
from pathlib import Path

from tests.hostile.serving import CHECKOUT, Process

CONFIGURATION = Path(__file__).with_name("schemathesis.toml")
EXAMPLES = 200
"""Random requests of each operation, and sequences. A number, so that a busy machine tests as much."""
SECONDS = 600.0
"""A timeout far beyond the duration on a busy machine."""


def test_examples_and_schema_bounds_get_documented_responses(served: Process) -> None:
    run_schemathesis(served, "--phases=examples,coverage", "--generation-deterministic", "--seed=1")


def test_random_requests_and_sequences_get_documented_responses(served: Process) -> None:
    seed = os.environ.get("RUNWAY_FUZZ_SEED") or str(random.randrange(10**9))
    print(f"seed {seed}")
    run_schemathesis(served, "--phases=fuzzing,stateful", f"--seed={seed}", f"--max-examples={EXAMPLES}")


def run_schemathesis(served: Process, *options: str) -> None:
    """Run `st run` with these options. Fails on a finding, or on an error in Runway's log."""
    command = [
        sys.executable, "-m", "schemathesis.cli", f"--config-file={CONFIGURATION}", "run", f"{served.url}/openapi.json",
        "--continue-on-failure", "--request-timeout=15", *options,
    ]  # fmt: skip
    done = subprocess.run(
        command,
        cwd=served.log.parent,  # It creates a folder in its working directory.
        env={**os.environ, "PYTHONPATH": f"{CHECKOUT}:{CHECKOUT / 'src'}"},
        capture_output=True,
        text=True,
        timeout=SECONDS,
        check=False,
    )
    shown = "\n".join(line[:500] for line in done.stdout.splitlines()) + done.stderr[-2000:]
    assert done.returncode == 0, shown
    assert "Tested: 12" in shown, shown
    assert served.faults() == []
