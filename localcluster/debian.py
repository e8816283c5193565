"""Make a directory with a small Debian: the base of the images that need more than busybox."""

import shutil
from pathlib import Path

from localcluster.commands import run

SUITE = "bookworm"
# Half of debootstrap's output: packages, package lists and documentation.
LEFT_OUT = ("usr/share/doc", "usr/share/locale", "usr/share/man", "var/cache/apt", "var/lib/apt/lists", "var/log")
TIMEOUT_SECONDS = 900.0


def bootstrap(directory: Path, *packages: str) -> None:
    """Replace `directory` with a minimal Debian and these packages. Takes about a minute. Raises LocalClusterError."""
    shutil.rmtree(directory, ignore_errors=True)
    run(
        ["debootstrap", "--variant=minbase", f"--include={','.join(packages)}", SUITE, str(directory)],
        timeout=TIMEOUT_SECONDS,
    )
    for path in LEFT_OUT:
        for found in (directory / path).iterdir():
            shutil.rmtree(found) if found.is_dir() and not found.is_symlink() else found.unlink()
