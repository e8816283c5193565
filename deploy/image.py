"""Build Runway's image for the local cluster from deploy/Dockerfile.

The tag is a hash of the sources, so the same image is never built or imported twice. A changed source changes the
Deployment's image, which rolls it.
"""

import configparser
import hashlib
import os
from collections.abc import Iterator
from pathlib import Path

from deploy import base_image, image_store
from localcluster import files, packages, paths
from localcluster.images import ctr
from localcluster.progress import step

REPOSITORY = "runway.local/runway"
INSTALLED = "localhost/runway-packages"
"""The stage with the installed packages. It is cached, because it takes longest and changes least."""

DOCKERFILE = Path("deploy/Dockerfile")
REQUIREMENTS = Path("requirements/runtime.txt")
PIP_FILES = ("/etc/pip.conf", "~/.pip/pip.conf", "~/.config/pip/pip.conf")
PIP_SETTINGS = ("index-url", "extra-index-url", "trusted-host")


def ensure_built() -> str:
    """Build the image if it is not in the store, and return its name. Raises LocalClusterError."""
    packages.ensure_installed(image_store.PACKAGES)
    with image_store.locked():
        return _ensure_built()


def ensure_imported() -> str:
    """Import the image into the local cluster's containerd, and return its name. Raises LocalClusterError."""
    packages.ensure_installed(image_store.PACKAGES)
    with image_store.locked():
        name = _ensure_built()
        if name not in ctr("images", "list", "--quiet").split():
            archive = image_store.directory() / "image.tar"
            archive.unlink(missing_ok=True)
            with step("image: into the cluster"):
                image_store.buildah("push", "--quiet", name, f"docker-archive:{archive}:{name}", timeout=300)
                ctr("images", "import", str(archive), timeout=300)
            archive.unlink()
    return name


def _ensure_built() -> str:
    base_name = base_image.ensure_built()
    name = f"{REPOSITORY}:{_digest(base_name, *_sources())}"
    if not image_store.has_image(name):
        installed = f"{INSTALLED}:{_digest(base_name, DOCKERFILE, REQUIREMENTS)}"
        with step("image: packages"):
            _build(base_name, installed, "--target=packages")
        with step("image: Runway"):
            _build(base_name, name)
        image_store.keep_only(installed)
        image_store.keep_only(name)
    return name


def _build(base_name: str, name: str, *options: str) -> None:
    pip, authority = image_store.directory() / "pip.conf", _certificate_authorities()
    secrets = [f"--secret=id=pip.conf,src={pip}"] + ([f"--secret=id=ca,src={authority}"] if authority else [])
    # The URL of an index may contain a password: only the owner can read the file, which is removed after the build.
    files.write(pip, pip_settings(authority), mode=0o600)
    try:
        image_store.buildah(
            *("build-using-dockerfile", "--quiet", "--isolation=chroot", "--layers", f"--build-arg=BASE={base_name}"),
            *(*secrets, *options, f"--file={paths.this_checkout() / DOCKERFILE}", f"--tag={name}"),
            str(paths.this_checkout()),
            timeout=image_store.BUILD_TIMEOUT_SECONDS,
        )
    finally:
        pip.unlink()


def pip_settings(authority: str | None) -> str:
    """Return a pip.conf with the indexes of this machine's pip, so that the build uses them. Variables override files.

    https://pip.pypa.io/en/stable/topics/configuration/
    """
    found = configparser.ConfigParser(interpolation=None)
    found.read([Path(place).expanduser() for place in PIP_FILES], encoding="utf-8")
    lines = ["[global]"]
    for setting in PIP_SETTINGS:
        variable = f"PIP_{setting.upper().replace('-', '_')}"
        value = os.environ.get(variable) or found.get("global", setting, fallback="")
        if value:
            lines.append(f"{setting} = {' '.join(value.split())}")
    if authority:
        lines.append("cert = /run/secrets/ca.pem")
    return "\n".join([*lines, ""])


def _certificate_authorities() -> str | None:
    """Return the certificate bundle that this machine's environment names, if any."""
    return os.environ.get("PIP_CERT") or os.environ.get("SSL_CERT_FILE")


def _sources() -> Iterator[Path]:
    checkout = paths.this_checkout()
    yield from (DOCKERFILE, Path(".dockerignore"), REQUIREMENTS)
    yield from sorted(file.relative_to(checkout) for file in (checkout / "src/runway").rglob("*.py"))


def _digest(base_name: str, *sources: Path) -> str:
    digest = hashlib.sha256(base_name.encode())
    for source in sources:
        digest.update(f"\0{source}\0".encode())
        digest.update((paths.this_checkout() / source).read_bytes())
    return digest.hexdigest()[:12]
