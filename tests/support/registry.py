"""A container registry on loopback that answers as each repository's mode says.

containerd pulls from `localhost` over plain HTTP. The image is one layer of the machine's busybox.
https://github.com/opencontainers/distribution-spec/blob/main/spec.md
"""

from __future__ import annotations

import hashlib
import json
import platform
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from enum import StrEnum
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, Final

from localcluster.images import ARCHITECTURES, USER_ID

MANIFEST_TYPE: Final = "application/vnd.oci.image.manifest.v1+json"
CONFIG_TYPE: Final = "application/vnd.oci.image.config.v1+json"
LAYER_TYPE: Final = "application/vnd.oci.image.layer.v1.tar"
HOLD_SECONDS: Final = 120.0
"""Maximum time that a held blob waits for `release`."""


class Mode(StrEnum):
    """The answer of the registry for a repository."""

    MISSING = "404 to every manifest"
    DENIED = "401 to everything"
    DOWN = "503 to everything"
    HELD = "the manifest, and no configuration until `release`"
    PUBLISHED = "the image"


class Registry:
    """Repositories by name. Every tag of a repository is the same image.

    Each image has its own configuration, so that each is pulled: the layer may be on the node already.
    """

    def __init__(self, layer: bytes) -> None:
        self.modes: dict[str, Mode] = {}
        self._released = threading.Event()
        self._layer = layer
        self._manifests: dict[str, bytes] = {}
        self._blobs = {_digest(layer): layer}
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), _handler(self))
        self.host = f"localhost:{self._server.server_address[1]}"

    @contextmanager
    def serving(self) -> Iterator[Registry]:
        """Serve until the end of the block."""
        thread = threading.Thread(target=self._server.serve_forever, daemon=True)
        thread.start()
        try:
            yield self
        finally:
            self.release()
            self._server.shutdown()
            self._server.server_close()
            thread.join()

    def image(self, repository: str, mode: Mode) -> str:
        """Create a repository and return the reference of its image."""
        layer = self._layer
        config = _json(
            {
                "architecture": ARCHITECTURES[platform.machine()],
                "os": "linux",
                "config": {
                    "User": f"{USER_ID}:{USER_ID}",
                    "Env": ["PATH=/usr/sbin:/usr/bin:/sbin:/bin"],
                    "Labels": {"repository": repository},
                },
                "rootfs": {"type": "layers", "diff_ids": [_digest(layer)]},
            }
        )
        self._blobs[_digest(config)] = config
        self._manifests[repository] = _json(
            {
                "schemaVersion": 2,
                "mediaType": MANIFEST_TYPE,
                "config": {"mediaType": CONFIG_TYPE, "digest": _digest(config), "size": len(config)},
                "layers": [{"mediaType": LAYER_TYPE, "digest": _digest(layer), "size": len(layer)}],
            }
        )
        self.modes[repository] = mode
        return f"{self.host}/{repository}:1"

    def release(self) -> None:
        """Send what `Mode.HELD` holds back."""
        self._released.set()

    def answer(self, path: str) -> tuple[int, bytes, str]:
        """Return status, body and media type for a path. Waits for `release` if it is held."""
        kind, repository, reference = _parse(path)
        if kind == "base":
            return 200, b"{}", "application/json"
        mode = self.modes.get(repository, Mode.MISSING)
        if mode in _STATUSES:
            return _STATUSES[mode], b"", "application/json"
        if mode is not Mode.MISSING and kind == "manifests":
            return 200, self._manifests[repository], MANIFEST_TYPE
        if mode is not Mode.MISSING and reference in self._blobs:
            if mode is Mode.HELD and reference != _digest(self._layer):
                self._released.wait(HOLD_SECONDS)
            return 200, self._blobs[reference], "application/octet-stream"
        error = {"errors": [{"code": "MANIFEST_UNKNOWN", "message": "manifest unknown"}]}
        return 404, _json(error), "application/json"


_STATUSES: Final = {Mode.DENIED: 401, Mode.DOWN: 503}


def _handler(registry: Registry) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self) -> None:
            """Answer GET and HEAD."""
            status, body, media_type = registry.answer(self.path)
            self.send_response(status)
            self.send_header("Content-Type", media_type)
            self.send_header("Content-Length", str(len(body)))
            self.send_header("Docker-Content-Digest", _digest(body))
            self.end_headers()
            if self.command != "HEAD":
                self.wfile.write(body)

        def do_HEAD(self) -> None:
            """Answer without a body."""
            self.do_GET()

        def log_message(self, format: str, *args: Any) -> None:  # noqa: A002 (the name of the base class)
            """Log nothing."""

    return Handler


def _parse(path: str) -> tuple[str, str, str]:
    """Split `/v2/REPOSITORY/manifests/1` into its kind, repository and reference."""
    parts = path.partition("?")[0].removeprefix("/v2/").split("/")
    if len(parts) < 3:
        return "base", "", ""
    return parts[-2], "/".join(parts[:-2]), parts[-1]


def _digest(content: bytes) -> str:
    return f"sha256:{hashlib.sha256(content).hexdigest()}"


def _json(value: object) -> bytes:
    return json.dumps(value, sort_keys=True).encode()
