"""Install missing Debian packages, without starting their services."""

import os
import shutil
import subprocess
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from localcluster import files
from localcluster.errors import LocalClusterError
from localcluster.progress import say, step

# Package -> a program that it contains. A program from another source, such as Docker's containerd, works too.
PROVIDES = {
    "busybox-static": "busybox",
    "containerd": "containerd",
    "containernetworking-plugins": "/usr/lib/cni/bridge",
    "debootstrap": "debootstrap",
    "etcd-server": "etcd",
    "iproute2": "ip",
    "iptables": "iptables",
    "openssl": "openssl",
    "prometheus": "prometheus",
    "runc": "runc",
    "socat": "socat",
}

POLICY_FILE = Path("/usr/sbin/policy-rc.d")
POLICY = "#!/bin/sh\n# Made by Runway's localcluster while it installs packages; removed right after.\nexit 101\n"

INSTALL_TIMEOUT_SECONDS = 600
ATTEMPTS = 2


def ensure_installed(provides: Mapping[str, str] = PROVIDES) -> None:
    """Install the missing packages. Raises LocalClusterError with apt's output."""
    absent = missing(provides)
    if not absent:
        return
    if shutil.which("apt-get") is None:
        raise LocalClusterError(f"missing: {', '.join(absent)}; install them (this machine has no apt-get)")
    with step(f"packages {', '.join(absent)}"), _services_kept_from_starting():
        for attempt in range(1, ATTEMPTS + 1):
            try:
                _apt_get("update")
                # --no-remove: fail instead of removing a package (busybox-static conflicts with busybox).
                _apt_get("install", "-y", "--no-install-recommends", "--no-remove", *absent)
                break
            except LocalClusterError as error:
                if attempt == ATTEMPTS:
                    raise
                say(f"retrying: {error}")
    if still_absent := missing(provides):
        raise LocalClusterError(f"apt-get installed {', '.join(still_absent)}, but their programs are not in PATH")


def missing(provides: Mapping[str, str] = PROVIDES) -> list[str]:
    """Return the packages whose program is missing."""
    return [name for name, program in provides.items() if shutil.which(program) is None and not Path(program).exists()]


def _apt_get(*arguments: str) -> None:
    # Another apt, such as unattended upgrades, may hold dpkg's lock.
    command = ["apt-get", "-q", "-o", "DPkg::Lock::Timeout=120", *arguments]
    environment = {**os.environ, "DEBIAN_FRONTEND": "noninteractive"}
    try:
        done = subprocess.run(
            command,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=INSTALL_TIMEOUT_SECONDS,
            env=environment,
            check=False,
        )
    except subprocess.TimeoutExpired as error:
        raise LocalClusterError(f"{' '.join(command)}: still running after {INSTALL_TIMEOUT_SECONDS} s") from error
    if done.returncode != 0:
        raise LocalClusterError(f"{' '.join(command)} failed:\n{done.stdout[-1000:]}{done.stderr[-3000:]}")


@contextmanager
def _services_kept_from_starting() -> Iterator[None]:
    """Keep the packages' scripts from starting etcd, containerd and Prometheus: the cluster runs its own.

    An existing policy of the machine stays unchanged. A policy that a killed run left is replaced.
    https://www.debian.org/doc/debian-policy/ch-opersys.html#interfacing-with-init-systems
    """
    if POLICY_FILE.exists() and POLICY_FILE.read_text(encoding="utf-8", errors="replace") != POLICY:
        yield
        return
    files.write(POLICY_FILE, POLICY, mode=0o755)
    try:
        yield
    finally:
        POLICY_FILE.unlink()
