"""Build Kubernetes from source with the versions in components/go.mod.

The user's cache holds the builds, named by Kubernetes version and a hash of all inputs. So every checkout with the same
pins uses the same binaries. An atomic rename publishes a build, so an interrupted one is never used. Go's own cache
makes the next attempt fast.
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

# One component without any cache took 3.5 minutes on 2 cores, plus the module download.
BUILD_TIMEOUT_SECONDS = 1800


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
    # Neither version nor flags depend on the path of the checkout, so the hash is the same everywhere.
    digest.update(repr((_flags(version), sorted(_environment().items()), platform.machine())).encode())
    return Build(version=version, directory=paths.build_cache() / f"{version}-{digest.hexdigest()[:12]}")


def ensure_built() -> Build:
    """Build the binaries unless they are cached. Raises LocalClusterError with the compiler's last lines."""
    build = current()
    if build.exists:
        return build
    if shutil.which("go") is None:
        raise LocalClusterError("go is not in PATH: building the components needs Go 1.25 or later")
    build.directory.parent.mkdir(parents=True, exist_ok=True)
    with only_one(build.directory.parent / "build.lock", what="build", timeout=2 * BUILD_TIMEOUT_SECONDS):
        if not build.exists:
            _build_all(build)
    return build


def _build_all(build: Build) -> None:
    # On the same file system as the target, for an atomic rename. The fixed name replaces the rest of a killed build.
    unfinished = build.directory.with_name(f".{build.directory.name}.unfinished")
    shutil.rmtree(unfinished, ignore_errors=True)
    log = unfinished / "build.log"
    (unfinished / "bin").mkdir(parents=True)
    say(f"building Kubernetes {build.version} once (about 5 minutes on 2 cores) into {build.directory}")
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
    # Without the stamp, kubectl and the node's status report v0.0.0-master+$Format:%H$.
    stamp = {"gitVersion": version, "gitMajor": major, "gitMinor": minor, "gitTreeState": "clean"}
    packages = ("k8s.io/component-base/version", "k8s.io/client-go/pkg/version")
    linker = ["-s", "-w", *(f"-X {package}.{key}={value}" for package in packages for key, value in stamp.items())]
    # -buildvcs=false: git refuses a checkout of another user. -trimpath: no path of this machine in the binaries, so
    # all checkouts can use them.
    return ["-buildvcs=false", "-trimpath", "-ldflags", " ".join(linker)]


def _environment() -> dict[str, str]:
    # Needs no C compiler, and ignores the user's Go flags and a surrounding go.work.
    return {"CGO_ENABLED": "0", "GOFLAGS": "", "GOWORK": "off"}


def _kubernetes_version() -> str:
    go_mod = (paths.COMPONENT_SOURCE_DIR / "go.mod").read_text(encoding="utf-8")
    match = re.search(r"^\s*(?:require )?k8s\.io/kubernetes (v\S+)", go_mod, re.MULTILINE)
    if match is None:
        raise LocalClusterError(f"{paths.COMPONENT_SOURCE_DIR / 'go.mod'} requires no k8s.io/kubernetes")
    return match.group(1)
