"""Build Go programs from source.

All have the same options: what one build has compiled, the next ones take from Go's cache.
"""

import os
import shutil
import subprocess
from collections.abc import Sequence
from pathlib import Path

from localcluster.errors import LocalClusterError

# -buildvcs=false: git refuses a checkout of another user. -trimpath: no path of this machine in the programs, so all
# checkouts can use them. -dwarf=false: the linker leaves out what only a debugger needs, so nothing need compile it.
FLAGS = ("-buildvcs=false", "-trimpath", "-gcflags=all=-dwarf=false")
LINKER_FLAGS = ("-s", "-w")
# Needs no C compiler, and ignores the user's Go flags and a surrounding go.work.
ENVIRONMENT = {"CGO_ENABLED": "0", "GOFLAGS": "", "GOWORK": "off"}
# A process of the compiler mostly ends below this limit and collects no garbage: large packages need a fifth less CPU.
MEMORY = {"GOGC": "off", "GOMEMLIMIT": "512MiB"}
ERROR_CHARACTERS = 3000


def build(module: Path, packages: Sequence[str], output: Path, *, timeout: float, stamps: Sequence[str] = ()) -> None:
    """Build packages of a module into `output`: a file, or an existing directory for several.

    A stamp is a linker option that sets a variable. Raises LocalClusterError with the compiler's last lines.
    """
    if shutil.which("go") is None:
        raise LocalClusterError("go is not in PATH: building from source needs Go 1.25 or later")
    linker = " ".join([*LINKER_FLAGS, *stamps])
    try:
        done = subprocess.run(
            ["go", "build", *FLAGS, "-ldflags", linker, "-o", str(output), *packages],
            cwd=module,
            env={**os.environ, **ENVIRONMENT, **MEMORY},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
            timeout=timeout,
            check=False,
        )
    except subprocess.TimeoutExpired as error:
        raise LocalClusterError(f"building {output}: still running after {timeout:g} s") from error
    if done.returncode != 0:
        raise LocalClusterError(f"building {output} failed:\n{done.stderr[-ERROR_CHARACTERS:].strip()}")
