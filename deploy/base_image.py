"""Build the base image of the local image from Debian packages.

It replaces the Dockerfile's default, python:3.11-slim-bookworm, because the local cluster has no registry. Both have
the same Debian and the same Python.
"""

import hashlib
import platform
import shutil

from deploy import image_store
from localcluster.commands import run
from localcluster.progress import say, step

SUITE = "bookworm"
INCLUDE = "python3,python3-venv,ca-certificates"
# Half of debootstrap's output: packages, package lists and documentation.
LEFT_OUT = ("usr/share/doc", "usr/share/locale", "usr/share/man", "var/cache/apt", "var/lib/apt/lists", "var/log")
PATH = "PATH=/usr/local/bin:/usr/bin:/bin"


def ensure_built() -> str:
    """Build the base if the store does not have it, and return its name. The caller holds the lock."""
    recipe = repr((SUITE, INCLUDE, LEFT_OUT, PATH, platform.machine()))
    name = f"localhost/runway-base:{hashlib.sha256(recipe.encode()).hexdigest()[:12]}"
    if image_store.has_image(name):
        return name
    say("making a base with Python once, about a minute; kept in the user's cache")
    unfinished = image_store.directory() / "base.unfinished"
    shutil.rmtree(unfinished, ignore_errors=True)
    with step(f"base: Debian {SUITE} with {INCLUDE}"):
        run(
            ["debootstrap", "--variant=minbase", f"--include={INCLUDE}", SUITE, str(unfinished)],
            timeout=image_store.BUILD_TIMEOUT_SECONDS,
        )
        for path in LEFT_OUT:
            for found in (unfinished / path).iterdir():
                shutil.rmtree(found) if found.is_dir() and not found.is_symlink() else found.unlink()
    with step("base: into the store"):
        container = image_store.buildah("from", "scratch").strip()
        image_store.buildah("add", "--quiet", container, str(unfinished), "/", timeout=300)
        image_store.buildah("config", "--env", PATH, container)
        image_store.buildah("commit", "--quiet", "--rm", container, name, timeout=300)
    shutil.rmtree(unfinished)
    image_store.keep_only(name)
    return name
