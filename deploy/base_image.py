"""Build the base image of the local image from Debian packages.

It replaces the Dockerfile's default, the public Python image, because the local cluster has no registry. Both have
Python 3.11; the Debian release differs.
"""

import hashlib
import platform
import shutil

from deploy import image_store
from localcluster import debian
from localcluster.progress import say, step

PACKAGES = ("python3", "python3-venv", "ca-certificates")
PATH = "PATH=/usr/local/bin:/usr/bin:/bin"


def ensure_built() -> str:
    """Build the base if the store does not have it, and return its name. The caller holds the lock."""
    recipe = repr((debian.SUITE, ",".join(PACKAGES), debian.LEFT_OUT, PATH, platform.machine()))
    name = f"localhost/runway-base:{hashlib.sha256(recipe.encode()).hexdigest()[:12]}"
    if image_store.has_image(name):
        return name
    say("making a base with Python once, about a minute; kept in the user's cache")
    unfinished = image_store.directory() / "base.unfinished"
    with step(f"base: Debian {debian.SUITE} with {', '.join(PACKAGES)}"):
        debian.bootstrap(unfinished, *PACKAGES)
    with step("base: into the store"):
        container = image_store.buildah("from", "scratch").strip()
        image_store.buildah("add", "--quiet", container, str(unfinished), "/", timeout=300)
        image_store.buildah("config", "--env", PATH, container)
        image_store.buildah("commit", "--quiet", "--rm", container, name, timeout=300)
    shutil.rmtree(unfinished)
    image_store.keep_only(name)
    return name
