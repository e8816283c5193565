"""buildah's image store in the user's cache, shared by all checkouts."""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from localcluster import paths
from localcluster.commands import run
from localcluster.locking import only_one

PACKAGES = {"buildah": "buildah", "debootstrap": "debootstrap"}
"""Debian package -> its program."""

# Must not survive a reboot: it records the mounted containers.
RUN_DIRECTORY = Path("/run/runway-image")
BUILD_TIMEOUT_SECONDS = 900.0


@contextmanager
def locked() -> Iterator[None]:
    """Hold the lock of the store, so that no other process builds or removes images."""
    directory().mkdir(parents=True, exist_ok=True)
    with only_one(directory() / "lock", what="build of an image", timeout=2 * BUILD_TIMEOUT_SECONDS):
        # Remove the containers of a killed build.
        buildah("rm", "--all")
        yield


def directory() -> Path:
    return paths.build_cache() / "image"


def buildah(*arguments: str, timeout: float = 60.0) -> str:
    """Run buildah and return its output. Raises LocalClusterError.

    The overlay driver has the same requirements as containerd, and does not copy all layers for each new one.
    """
    store = ["--root", str(directory() / "store"), "--runroot", str(RUN_DIRECTORY), "--storage-driver", "overlay"]
    return run(["buildah", *store, *arguments], timeout=timeout)


def has_image(image: str) -> bool:
    return image in _names()


def keep_only(image: str) -> None:
    """Remove the other images of this repository, so that the store does not grow with every change."""
    repository = image.rpartition(":")[0]
    for name in _names():
        if name != image and name.rpartition(":")[0] == repository:
            buildah("rmi", name)


def _names() -> list[str]:
    return [name for image in json.loads(buildah("images", "--json")) for name in image.get("names") or []]
