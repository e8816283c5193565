"""Build the wheel of this checkout, and install it in a fresh virtual environment.

The environment has the versions of requirements/runtime.txt. uv takes the packages from its cache, and asks the package
index only when the cache lacks one.
"""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Final

from testbed.waiting import GUARD_SECONDS

CHECKOUT: Final = Path(__file__).parents[2]
UV: Final = CHECKOUT / ".local" / "uv" / "bin" / "uv"


def run(
    *command: str | Path, cwd: Path, variables: Mapping[str, str] | None = None
) -> subprocess.CompletedProcess[str]:
    """Run a command without the variables that would let it see this checkout or its settings."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("PYTHON", "RUNWAY_", "VIRTUAL_"))}
    return subprocess.run(
        command,
        cwd=cwd,
        env=kept | dict(variables or {}),
        capture_output=True,
        text=True,
        timeout=GUARD_SECONDS,
        check=False,
    )


def build_wheel(directory: Path) -> Path:
    """Build the wheel with the build backend of this environment. Raises AssertionError."""
    built = run(sys.executable, "-m", "hatchling", "build", "--target", "wheel", "--directory", directory, cwd=CHECKOUT)
    assert built.returncode == 0, built.stderr
    [wheel] = directory.glob("*.whl")
    return wheel


def install(package: str, place: Path) -> Path:
    """Install a package in a new environment below `place`; return its directory of programs. Raises AssertionError."""
    environment = place / "venv"
    made = run(UV, "venv", "--quiet", "--python", sys.executable, environment, cwd=place)
    assert made.returncode == 0, made.stderr
    constraints = CHECKOUT / "requirements" / "runtime.txt"
    command = (UV, "pip", "install", "--quiet", "--python", environment, "--constraint", constraints)
    offline = run(*command, "--offline", package, cwd=place)
    if offline.returncode:
        online = run(*command, package, cwd=place)
        assert online.returncode == 0, (
            f"uv's cache lacks a package, and the index does not answer:\n{offline.stderr}\n{online.stderr}"
        )
    return environment / "bin"
