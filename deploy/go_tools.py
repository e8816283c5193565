"""Build helm and actionlint from source with the versions of tools/go.mod.

The user's cache holds the binaries, named by a hash of the pins and shared by all checkouts. .local/bin links to them.
"""

from __future__ import annotations

import hashlib
import platform
from pathlib import Path
from typing import Final

from localcluster import go, paths
from localcluster.locking import only_one
from localcluster.progress import say, step

PACKAGES: Final = {
    "helm": "helm.sh/helm/v4/cmd/helm",
    "actionlint": "github.com/rhysd/actionlint/cmd/actionlint",
}
MODULE: Final = Path(__file__).parent / "tools"
BUILD_TIMEOUT_SECONDS: Final = 1200


def ensure_built(name: str) -> Path:
    """Return the path of a tool, and build it unless it is cached. Raises LocalClusterError."""
    digest = hashlib.sha256(platform.machine().encode())
    for file in ("go.mod", "go.sum"):
        digest.update((MODULE / file).read_bytes())
    binary = paths.build_cache() / f"{name}-{digest.hexdigest()[:12]}"
    if not binary.exists():
        binary.parent.mkdir(parents=True, exist_ok=True)
        with only_one(binary.parent / "tools.lock", what="build of a tool", timeout=2 * BUILD_TIMEOUT_SECONDS):
            if not binary.exists():
                _build(name, binary)
    link = paths.this_checkout() / ".local" / "bin" / name
    link.parent.mkdir(parents=True, exist_ok=True)
    if not link.is_symlink() or link.readlink() != binary:
        link.unlink(missing_ok=True)
        link.symlink_to(binary)
    return binary


def _build(name: str, binary: Path) -> None:
    say(f"building {name} once, up to 2 minutes on 2 cores")
    # An atomic rename publishes the build, so that an interrupted one is never used.
    unfinished = binary.with_name(f"{binary.name}.unfinished")
    with step(f"build: {name}"):
        go.build(MODULE, [PACKAGES[name]], unfinished, timeout=BUILD_TIMEOUT_SECONDS)
    unfinished.rename(binary)
