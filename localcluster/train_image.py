"""Build `runway.local/train:1`, an image as teams publish them, from Debian packages.

It is made for no platform: root is its user, `HOME` is `/root`, root owns the working directory, `/etc/passwd` has no
user 1000, and an entry script starts the command. Demo and tests show that such an image runs unchanged. The user's
cache holds the archive, named by a hash of its recipe.
"""

import hashlib
import platform
import shutil
import tarfile
from pathlib import Path
from typing import Any

from localcluster import debian, paths
from localcluster.images import TRAIN_IMAGE, add, archive_documents
from localcluster.locking import only_one
from localcluster.progress import say, step

# OpenBLAS starts one thread per CPU of the node, unless a variable limits it.
PACKAGES = ("python3", "python3-numpy", "libopenblas0-pthread")
ENTRYPOINT = "usr/local/bin/entrypoint"
ENTRY_SCRIPT = """\
#!/bin/sh
# The environment first, then the command in place of this shell, so that it gets the signals.
export TRAIN_IMAGE=1
exec "$@"
"""
WORKING_DIRECTORY = "workspace"
CONFIG: dict[str, Any] = {
    "Entrypoint": [f"/{ENTRYPOINT}"],
    "Cmd": ["python3"],
    "Env": ["PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin", "HOME=/root"],
    "WorkingDir": f"/{WORKING_DIRECTORY}",
}


def archive() -> Path:
    """Return the path of the docker-archive, whether it exists or not."""
    recipe = repr((debian.SUITE, debian.LEFT_OUT, PACKAGES, ENTRY_SCRIPT, CONFIG, platform.machine()))
    return paths.build_cache() / f"train-{hashlib.sha256(recipe.encode()).hexdigest()[:12]}.tar"


def ensure_built() -> Path:
    """Build the archive unless it is cached, and return its path. Raises LocalClusterError."""
    target = archive()
    if target.exists():
        return target
    target.parent.mkdir(parents=True, exist_ok=True)
    with only_one(target.parent / "train.lock", what="build of the image", timeout=2 * debian.TIMEOUT_SECONDS):
        if not target.exists():
            _build(target)
    return target


def _build(target: Path) -> None:
    say(f"making {TRAIN_IMAGE} once, about a minute, into {target}")
    root = target.with_name("train.unfinished")
    layer, unfinished = root.with_suffix(".layer"), root.with_suffix(".tar")
    with step(f"{TRAIN_IMAGE}: Debian {debian.SUITE} with {', '.join(PACKAGES)}"):
        debian.bootstrap(root, *PACKAGES)
    with step(f"{TRAIN_IMAGE}: archive"):
        (root / ENTRYPOINT).write_text(ENTRY_SCRIPT, encoding="ascii")
        (root / ENTRYPOINT).chmod(0o755)
        (root / WORKING_DIRECTORY).mkdir()
        with tarfile.open(layer, "w") as tar:
            tar.add(root, arcname=".", filter=_entry)
        _write_archive(unfinished, layer)
    for old in target.parent.glob("train-*.tar"):
        old.unlink()
    unfinished.rename(target)
    layer.unlink()
    shutil.rmtree(root)


def _entry(entry: tarfile.TarInfo) -> tarfile.TarInfo | None:
    """Leave out the content of /dev, which the runtime mounts, and owners' names, since their numbers count."""
    entry.uname = entry.gname = ""
    return None if entry.name.startswith("./dev/") else entry


def _write_archive(target: Path, layer: Path) -> None:
    with layer.open("rb") as content:
        config, manifest = archive_documents(TRAIN_IMAGE, CONFIG, hashlib.file_digest(content, "sha256").hexdigest())
    with tarfile.open(target, "w") as tar:
        add(tar, "config.json", 0o644, config)
        tar.add(layer, arcname="layer.tar")
        add(tar, "manifest.json", 0o644, manifest)
