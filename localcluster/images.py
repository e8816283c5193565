"""Import the images of the local cluster, which has no registry, and build two of them from the static busybox.

Demo and test jobs run `runway.local/busybox:1` and the image of `train_image`. `runway.local/pause:1` holds each pod's
namespaces. The same busybox gives the same bytes, so a repeated import is skipped.
"""

import hashlib
import io
import json
import platform
import shutil
import tarfile
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from localcluster import files, paths
from localcluster.commands import run
from localcluster.errors import LocalClusterError

BUSYBOX_IMAGE = "runway.local/busybox:1"
SANDBOX_IMAGE = "runway.local/pause:1"
TRAIN_IMAGE = "runway.local/train:1"
IMPORT_TIMEOUT_SECONDS = 300.0

# The unprivileged user of both images. Pod Security "restricted" needs a non-root, numeric user.
USER_ID = 1000

# The kernel's name -> Go's name, which images use.
ARCHITECTURES = {"x86_64": "amd64", "aarch64": "arm64"}

# Like Kubernetes' own pause program: exit on SIGTERM, and reap the orphans of a pod with a shared process namespace.
# The shell's `wait` reaps every child. A job that kills all processes kills the sleep, but not process 1.
# https://github.com/kubernetes/kubernetes/blob/master/build/pause/linux/pause.c
PAUSE_SCRIPT = "trap 'exit 0' TERM INT; while :; do sleep infinity & wait; done"

# The default command of each image.
COMMANDS = {BUSYBOX_IMAGE: ["/bin/sh"], SANDBOX_IMAGE: ["/bin/sh", "-c", PAUSE_SCRIPT]}

DIRECTORIES = {
    "bin": 0o755,
    "dev": 0o755,
    "etc": 0o755,
    "home": 0o755,
    "proc": 0o755,
    "root": 0o700,
    "sbin": 0o755,
    "sys": 0o755,
    "tmp": 0o1777,
    "usr": 0o755,
    "usr/bin": 0o755,
    "usr/sbin": 0o755,
    "var": 0o755,
    "var/tmp": 0o1777,
}
TEXT_FILES = {
    "etc/passwd": f"root:x:0:0:root:/root:/bin/sh\nuser:x:{USER_ID}:{USER_ID}:user:/home/user:/bin/sh\n",
    "etc/group": f"root:x:0:\nuser:x:{USER_ID}:\n",
}


def ensure_imported(train: Path) -> None:
    """Import the images that containerd does not have; `train` is the archive of `train_image`. containerd must run."""
    present = ctr("images", "list", "--quiet").split()
    busybox, applets = _busybox()
    layer = image_layer(busybox, applets)
    paths.IMAGE_DIR.mkdir(parents=True, exist_ok=True)
    for name, command in COMMANDS.items():
        content = image_archive(name, command, layer)
        imported = _Import(name, hashlib.sha256(content).hexdigest())
        if not imported.is_current(present):
            tar = imported.record.with_suffix(".tar")
            tar.write_bytes(content)
            imported.run(tar)
            tar.unlink()
    # The recipe's hash is in the name of its archive.
    imported = _Import(TRAIN_IMAGE, train.name)
    if not imported.is_current(present):
        imported.run(train)


@dataclass(frozen=True, slots=True)
class _Import:
    """The import of an image, and the record of the last one: what `content` was."""

    name: str
    content: str

    @property
    def record(self) -> Path:
        return paths.IMAGE_DIR / f"{self.name.replace('/', '_')}.json"

    def is_current(self, present: Collection[str]) -> bool:
        return self.name in present and files.read_json(self.record) == self.content

    def run(self, tar: Path) -> None:
        ctr("images", "import", str(tar), timeout=IMPORT_TIMEOUT_SECONDS)
        files.write_json(self.record, self.content)


def ctr(*arguments: str, timeout: float = 60.0) -> str:
    """Run containerd's client in the kubelet's namespace and return its output. containerd must run."""
    # k8s.io is the containerd namespace of the kubelet's images and containers.
    return run(["ctr", "--address", str(paths.CONTAINERD_SOCKET), "--namespace", "k8s.io", *arguments], timeout=timeout)


def _busybox() -> tuple[bytes, list[str]]:
    """Return the machine's busybox and the paths of its applets. Raises LocalClusterError if it is not static."""
    path = shutil.which("busybox")
    if path is None:
        raise LocalClusterError("busybox is not installed")
    content = Path(path).read_bytes()
    # A dynamically linked program names its loader and cannot start in an image without it.
    if b"/ld-linux" in content or b"/ld-musl" in content:
        raise LocalClusterError(f"{path} is not statically linked: install busybox-static instead of busybox")
    return content, run([path, "--list-full"]).split()


def image_layer(busybox: bytes, applets: list[str]) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w", format=tarfile.USTAR_FORMAT) as tar:
        for name, mode in DIRECTORIES.items():
            add(tar, name, mode, kind=tarfile.DIRTYPE)
        add(tar, "home/user", 0o755, kind=tarfile.DIRTYPE, owner=USER_ID)
        for name, text in TEXT_FILES.items():
            add(tar, name, 0o644, text.encode())
        add(tar, "bin/busybox", 0o755, busybox)
        for applet in sorted(set(applets) - {"bin/busybox"}):
            if str(Path(applet).parent) in DIRECTORIES:
                add(tar, applet, 0o777, kind=tarfile.SYMTYPE, link="/bin/busybox")
    return buffer.getvalue()


def image_archive(name: str, command: list[str], layer: bytes) -> bytes:
    """Return a docker-archive, the format of `docker save` and `ctr images import`."""
    settings = {
        "Cmd": command,
        "Env": ["PATH=/usr/sbin:/usr/bin:/sbin:/bin"],
        "User": f"{USER_ID}:{USER_ID}",
        "WorkingDir": "/home/user",
    }
    config, manifest = archive_documents(name, settings, hashlib.sha256(layer).hexdigest())
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w", format=tarfile.USTAR_FORMAT) as tar:
        add(tar, "config.json", 0o644, config)
        add(tar, "layer.tar", 0o644, layer)
        add(tar, "manifest.json", 0o644, manifest)
    return buffer.getvalue()


def archive_documents(name: str, settings: Mapping[str, Any], layer_sha256: str) -> tuple[bytes, bytes]:
    """Return config.json and manifest.json of a docker-archive with one layer, layer.tar.

    https://github.com/moby/docker-image-spec/blob/main/spec.md
    """
    config = {
        "architecture": ARCHITECTURES[platform.machine()],
        "os": "linux",
        "config": settings,
        "rootfs": {"type": "layers", "diff_ids": [f"sha256:{layer_sha256}"]},
    }
    return _json(config), _json([{"Config": "config.json", "RepoTags": [name], "Layers": ["layer.tar"]}])


def add(
    tar: tarfile.TarFile,
    name: str,
    mode: int,
    content: bytes = b"",
    *,
    kind: bytes = tarfile.REGTYPE,
    owner: int = 0,
    link: str = "",
) -> None:
    """Add one entry. Owner names stay empty and times 0, so the archive depends only on its content."""
    entry = tarfile.TarInfo(name)
    entry.type, entry.mode, entry.size, entry.linkname = kind, mode, len(content), link
    entry.uid = entry.gid = owner
    tar.addfile(entry, io.BytesIO(content))


def _json(value: Any) -> bytes:
    return json.dumps(value, sort_keys=True).encode()
