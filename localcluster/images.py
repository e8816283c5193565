"""Build the two images of the local cluster from the machine's static busybox.

The cluster has no registry. Demo and test jobs run `runway.local/busybox:1`; `runway.local/pause:1` holds each pod's
namespaces. The same busybox gives the same bytes, so a repeated import is skipped.
"""

import hashlib
import io
import json
import platform
import shutil
import tarfile
from pathlib import Path
from typing import Any

from localcluster import files, paths
from localcluster.commands import run
from localcluster.errors import LocalClusterError

BUSYBOX_IMAGE = "runway.local/busybox:1"
SANDBOX_IMAGE = "runway.local/pause:1"

# The unprivileged user of both images. Pod Security "restricted" needs a non-root, numeric user.
USER_ID = 1000

# The kernel's name -> Go's name, which images use.
ARCHITECTURES = {"x86_64": "amd64", "aarch64": "arm64"}

# The default command of each image. A sandbox only waits until it is killed.
COMMANDS = {BUSYBOX_IMAGE: ["/bin/sh"], SANDBOX_IMAGE: ["/bin/sleep", "infinity"]}

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


def ensure_imported() -> None:
    """Import the images that containerd does not have. containerd must run."""
    present = ctr("images", "list", "--quiet").split()
    busybox, applets = _busybox()
    layer = image_layer(busybox, applets)
    for name, command in COMMANDS.items():
        archive = image_archive(name, command, layer)
        digest = hashlib.sha256(archive).hexdigest()
        imported = paths.IMAGE_DIR / f"{name.replace('/', '_')}.json"
        if name in present and files.read_json(imported) == digest:
            continue
        paths.IMAGE_DIR.mkdir(parents=True, exist_ok=True)
        tar = imported.with_suffix(".tar")
        tar.write_bytes(archive)
        ctr("images", "import", str(tar))
        tar.unlink()
        files.write_json(imported, digest)


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
            _add(tar, name, mode, kind=tarfile.DIRTYPE)
        _add(tar, "home/user", 0o755, kind=tarfile.DIRTYPE, owner=USER_ID)
        for name, text in TEXT_FILES.items():
            _add(tar, name, 0o644, text.encode())
        _add(tar, "bin/busybox", 0o755, busybox)
        for applet in sorted(set(applets) - {"bin/busybox"}):
            if str(Path(applet).parent) in DIRECTORIES:
                _add(tar, applet, 0o777, kind=tarfile.SYMTYPE, link="/bin/busybox")
    return buffer.getvalue()


def image_archive(name: str, command: list[str], layer: bytes) -> bytes:
    """Return a docker-archive, the format of `docker save` and `ctr images import`.

    https://github.com/moby/docker-image-spec/blob/main/spec.md
    """
    config = _json(
        {
            "architecture": ARCHITECTURES[platform.machine()],
            "os": "linux",
            "config": {
                "Cmd": command,
                "Env": ["PATH=/usr/sbin:/usr/bin:/sbin:/bin"],
                "User": f"{USER_ID}:{USER_ID}",
                "WorkingDir": "/home/user",
            },
            "rootfs": {"type": "layers", "diff_ids": [f"sha256:{hashlib.sha256(layer).hexdigest()}"]},
        }
    )
    manifest = _json([{"Config": "config.json", "RepoTags": [name], "Layers": ["layer.tar"]}])
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w", format=tarfile.USTAR_FORMAT) as tar:
        _add(tar, "config.json", 0o644, config)
        _add(tar, "layer.tar", 0o644, layer)
        _add(tar, "manifest.json", 0o644, manifest)
    return buffer.getvalue()


def _add(
    tar: tarfile.TarFile,
    name: str,
    mode: int,
    content: bytes = b"",
    *,
    kind: bytes = tarfile.REGTYPE,
    owner: int = 0,
    link: str = "",
) -> None:
    # Owner names stay empty and times 0, so the archive depends only on its content.
    entry = tarfile.TarInfo(name)
    entry.type, entry.mode, entry.size, entry.linkname = kind, mode, len(content), link
    entry.uid = entry.gid = owner
    tar.addfile(entry, io.BytesIO(content))


def _json(value: Any) -> bytes:
    return json.dumps(value, sort_keys=True).encode()
