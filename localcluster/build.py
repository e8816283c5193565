"""Kubernetes from source: `go build` of the commands that components/go.mod pins, kept in the user's cache.

A cached build is named by the Kubernetes version and by a hash of everything that determines it, so every checkout with
the same pins uses the same binaries. It appears under its name by one rename: an interrupted build leaves nothing that
could be taken for a finished one (and Go's own cache makes the next try fast).
"""

import hashlib
import os
import platform
import re
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path

from localcluster import files, paths
from localcluster.errors import LocalClusterError
from localcluster.locking import only_one
from localcluster.progress import say, step

# Binary -> Go package. The largest go first: they compile most of what the others share.
PACKAGES = {
    "kube-apiserver": "k8s.io/kubernetes/cmd/kube-apiserver",
    "kubelet": "k8s.io/kubernetes/cmd/kubelet",
    "kube-controller-manager": "k8s.io/kubernetes/cmd/kube-controller-manager",
    "kube-scheduler": "k8s.io/kubernetes/cmd/kube-scheduler",
    "kube-proxy": "k8s.io/kubernetes/cmd/kube-proxy",
    "kubectl": "k8s.io/kubernetes/cmd/kubectl",
    "gpu-device-plugin": "./deviceplugin",
}

# One component from nothing took 3.5 minutes on 2 cores; a slow module download comes on top.
BUILD_TIMEOUT_SECONDS = 1800


@dataclass(frozen=True, slots=True)
class Build:
    """A set of binaries, built or yet to be built."""

    version: str
    directory: Path

    def binary(self, name: str) -> Path:
        return self.directory / "bin" / name

    @property
    def exists(self) -> bool:
        return self.directory.is_dir()


def current() -> Build:
    """The build that this checkout's pins ask for, whether or not it exists yet."""
    version = _kubernetes_version()
    digest = hashlib.sha256()
    for source in sorted(paths.COMPONENT_SOURCE_DIR.rglob("*")):
        if source.name in {"go.mod", "go.sum"} or source.suffix == ".go":
            digest.update(f"{source.relative_to(paths.COMPONENT_SOURCE_DIR)}\0".encode())
            digest.update(source.read_bytes())
    # `version` is not the checkout's, and the flags name no path, so the hash is the same everywhere.
    digest.update(repr((_flags(version), sorted(_environment().items()), platform.machine())).encode())
    return Build(version=version, directory=paths.build_cache() / f"{version}-{digest.hexdigest()[:12]}")


def ensure_built() -> Build:
    """Build what is not in the cache yet. Raises LocalClusterError with the compiler's last lines on failure."""
    build = current()
    if build.exists:
        return build
    if shutil.which("go") is None:
        raise LocalClusterError("go is not in PATH: the components are built from source and need Go 1.25 or later")
    build.directory.parent.mkdir(parents=True, exist_ok=True)
    with only_one(build.directory.parent / "build.lock", what="build", timeout=2 * BUILD_TIMEOUT_SECONDS):
        if not build.exists:
            _build_all(build)
    return build


def _build_all(build: Build) -> None:
    # Same file system as the target, so that the rename is atomic; a fixed name, so that a killed build's is reused.
    unfinished = build.directory.with_name(f".{build.directory.name}.unfinished")
    shutil.rmtree(unfinished, ignore_errors=True)
    log = unfinished / "build.log"
    (unfinished / "bin").mkdir(parents=True)
    say(f"building Kubernetes {build.version} once, about 5 minutes on 2 cores; kept in {build.directory}")
    for number, (name, package) in enumerate(PACKAGES.items(), start=1):
        with step(f"build {number} of {len(PACKAGES)}: {name}"):
            _go_build(package, unfinished / "bin" / name, build.version, log)
    unfinished.rename(build.directory)


def _go_build(package: str, output: Path, version: str, log: Path) -> None:
    command = ["go", "build", *_flags(version), "-o", str(output), package]
    with log.open("ab") as log_file:
        try:
            done = subprocess.run(
                command,
                cwd=paths.COMPONENT_SOURCE_DIR,
                env={**os.environ, **_environment()},
                stdin=subprocess.DEVNULL,
                stdout=log_file,
                stderr=subprocess.STDOUT,
                timeout=BUILD_TIMEOUT_SECONDS,
                check=False,
            )
        except subprocess.TimeoutExpired as error:
            raise LocalClusterError(f"building {package}: still running after {BUILD_TIMEOUT_SECONDS} s") from error
    if done.returncode != 0:
        raise LocalClusterError(f"building {package} failed; the end of {log}:\n{files.tail(log)}")


def _flags(version: str) -> list[str]:
    major, minor = version.removeprefix("v").split(".")[:2]
    # Without the stamp every component calls itself v0.0.0-master+$Format:%H$, kubectl and the node's status included.
    stamp = {"gitVersion": version, "gitMajor": major, "gitMinor": minor, "gitTreeState": "clean"}
    packages = ("k8s.io/component-base/version", "k8s.io/client-go/pkg/version")
    linker = ["-s", "-w", *(f"-X {package}.{key}={value}" for package in packages for key, value in stamp.items())]
    # -buildvcs=false: the checkout may be owned by another user, which makes git refuse. -trimpath: no path of this
    # machine in the binaries, so any checkout's build serves all.
    return ["-buildvcs=false", "-trimpath", "-ldflags", " ".join(linker)]


def _environment() -> dict[str, str]:
    # No C compiler needed, and no setting of the user's shell or of a surrounding go.work may change what is built.
    return {"CGO_ENABLED": "0", "GOFLAGS": "", "GOWORK": "off"}


def _kubernetes_version() -> str:
    go_mod = (paths.COMPONENT_SOURCE_DIR / "go.mod").read_text(encoding="utf-8")
    match = re.search(r"^\s*(?:require )?k8s\.io/kubernetes (v\S+)", go_mod, re.MULTILINE)
    if match is None:
        raise LocalClusterError(f"{paths.COMPONENT_SOURCE_DIR / 'go.mod'} requires no k8s.io/kubernetes")
    return match.group(1)
