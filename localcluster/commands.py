"""Run another program and return its output."""

import subprocess
from collections.abc import Sequence

from localcluster.errors import LocalClusterError


def run(command: Sequence[str], *, timeout: float = 30.0, check: bool = True, stdin: str = "") -> str:
    """Run `command` with `stdin` as its input and return its standard output.

    Raises LocalClusterError with its output if it cannot start, exceeds `timeout` seconds or, unless `check` is false,
    fails.
    """
    try:
        done = subprocess.run(command, input=stdin, capture_output=True, text=True, timeout=timeout, check=False)
    except FileNotFoundError as error:
        raise LocalClusterError(f"{command[0]} is not installed") from error
    except subprocess.TimeoutExpired as error:
        raise LocalClusterError(f"{' '.join(command)}: still running after {timeout:g} s") from error
    if check and done.returncode != 0:
        said = (done.stderr.strip() or done.stdout.strip())[-2000:]
        raise LocalClusterError(f"{' '.join(command)}: exit code {done.returncode}: {said}")
    return done.stdout
