"""Build Kubernetes from source with the versions in components/go.mod.

The user's cache holds the builds, named by Kubernetes version and a hash of all inputs. So every checkout with the same
pins uses the same binaries. An atomic rename publishes a build, so an interrupted one is never used. Go's own cache
makes the next attempt fast.
"""

import hashlib
import platform
import re
import shutil
from dataclasses import dataclass
from pathlib import Path

from localcluster import go, paths
from localcluster.errors import LocalClusterError
from localcluster.locking import only_one
from localcluster.progress import say, step

# One command builds them all: it compiles what they share once, and the next packages while it links a binary. A binary
# for all of them would save five linker runs, 12 of about 400 seconds of CPU.
PACKAGES = (
    "k8s.io/kubernetes/cmd/kube-apiserver",
    "k8s.io/kubernetes/cmd/kube-controller-manager",
    "k8s.io/kubernetes/cmd/kube-proxy",
    "k8s.io/kubernetes/cmd/kube-scheduler",
    "k8s.io/kubernetes/cmd/kubectl",
    "k8s.io/kubernetes/cmd/kubelet",
    "./gpu-device-plugin",
)

BUILD_TIMEOUT_SECONDS = 1800
HEARTBEAT_SECONDS = 30.0


@dataclass(frozen=True, slots=True)
class Build:
    """A set of binaries, built or not."""

    version: str
    directory: Path

    def binary(self, name: str) -> Path:
        return self.directory / "bin" / name

    @property
    def exists(self) -> bool:
        return self.directory.is_dir()


def current() -> Build:
    """Return the build of this checkout's pins, whether it exists or not."""
    version = _kubernetes_version()
    digest = hashlib.sha256()
    for source in sorted(paths.COMPONENT_SOURCE_DIR.rglob("*")):
        if source.name in {"go.mod", "go.sum"} or source.suffix == ".go":
            digest.update(f"{source.relative_to(paths.COMPONENT_SOURCE_DIR)}\0".encode())
            digest.update(source.read_bytes())
    # None of these depends on the path of the checkout, so the hash is the same everywhere.
    options = (go.FLAGS, go.LINKER_FLAGS, _stamps(version), sorted(go.ENVIRONMENT.items()), platform.machine())
    digest.update(repr(options).encode())
    return Build(version=version, directory=paths.build_cache() / f"{version}-{digest.hexdigest()[:12]}")


def ensure_built() -> Build:
    """Build the binaries unless they are cached. Raises LocalClusterError with the compiler's last lines."""
    build = current()
    if build.exists:
        return build
    build.directory.parent.mkdir(parents=True, exist_ok=True)
    with only_one(build.directory.parent / "build.lock", what="build", timeout=2 * BUILD_TIMEOUT_SECONDS):
        if not build.exists:
            _build(build)
    return build


def _build(build: Build) -> None:
    # On the same file system as the target, for an atomic rename. The fixed name replaces the rest of a killed build.
    unfinished = build.directory.with_name(f".{build.directory.name}.unfinished")
    shutil.rmtree(unfinished, ignore_errors=True)
    binaries = unfinished / "bin"
    binaries.mkdir(parents=True)
    say(f"building Kubernetes {build.version} once (about 4 minutes on 2 cores) into {build.directory}")
    with step(f"build of Kubernetes {build.version}", heartbeat=HEARTBEAT_SECONDS):
        go.build(
            paths.COMPONENT_SOURCE_DIR,
            PACKAGES,
            binaries,
            timeout=BUILD_TIMEOUT_SECONDS,
            stamps=_stamps(build.version),
        )
    unfinished.rename(build.directory)


def _stamps(version: str) -> list[str]:
    # Without them, kubectl and the node's status report v0.0.0-master+$Format:%H$.
    major, minor = version.removeprefix("v").split(".")[:2]
    values = {"gitVersion": version, "gitMajor": major, "gitMinor": minor, "gitTreeState": "clean"}
    packages = ("k8s.io/component-base/version", "k8s.io/client-go/pkg/version")
    return [f"-X {package}.{key}={value}" for package in packages for key, value in values.items()]


def _kubernetes_version() -> str:
    go_mod = (paths.COMPONENT_SOURCE_DIR / "go.mod").read_text(encoding="utf-8")
    match = re.search(r"^\s*(?:require )?k8s\.io/kubernetes (v\S+)", go_mod, re.MULTILINE)
    if match is None:
        raise LocalClusterError(f"{paths.COMPONENT_SOURCE_DIR / 'go.mod'} requires no k8s.io/kubernetes")
    return match.group(1)
