"""An API server and a Prometheus over HTTP on a loopback port, for the operator's commands.

It holds objects by path, answers access reviews, and records what is applied. The fake of tests/api speaks the
transport's methods instead, for the server.
"""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from tests.support.fake_prometheus import vector

Json = dict[str, Any]


class FakeApiServer:
    """The state of a cluster, which a test changes before it runs a command."""

    def __init__(self) -> None:
        self.objects: dict[str, Json] = {}
        """Every object and list by its path."""
        self.version: Json = {"major": "1", "minor": "35", "gitVersion": "v1.35.4"}
        self.clock_ahead = timedelta()
        self.denied: set[tuple[str, str]] = set()
        """Verb and resource that access reviews deny."""
        self.forbidden: tuple[str, ...] = ()
        """Beginnings of paths that the caller may not use."""
        self.missing: tuple[str, ...] = ()
        """Beginnings of paths in a namespace that does not exist."""
        self.reviews: list[Json] = []
        self.applied: list[tuple[str, Json]] = []
        self.conflicts = 0
        """Merge patches that find the object changed."""
        self.user: str | None = "ada"
        """The name of the caller; None where the API server does not say it."""
        self.series: list[str] = []
        """The names that Prometheus has."""
        self.url = ""

    def handle(self, method: str, target: str, content_type: str, body: bytes) -> tuple[int, Json]:
        """Return status and document of a request."""
        path, query = urlsplit(target).path, urlsplit(target).query
        if path == "/version":
            return 200, self.version
        if path == "/api/v1/query":
            return 200, vector(*(({"__name__": name}, "1") for name in self.series))
        if path.startswith(self.forbidden):
            return 403, {"kind": "Status", "reason": "Forbidden", "message": f"forbidden: {method} {path}"}
        if path.endswith("accessreviews"):
            review = json.loads(body)
            self.reviews.append(review)
            asked = review["spec"]["resourceAttributes"]
            resource = f"{asked['resource']}/{asked['subresource']}" if asked["subresource"] else asked["resource"]
            return 201, {"status": {"allowed": (asked["verb"], resource) not in self.denied}}
        if path.endswith("selfsubjectreviews") and self.user is not None:
            return 201, {"status": {"userInfo": {"username": self.user}}}
        if method == "PATCH":
            is_merge = content_type == "application/merge-patch+json"
            return (self._merge if is_merge else self._apply)(path, query, content_type, json.loads(body))
        if path in self.objects:
            return 200, self.objects[path]
        return 404, {"kind": "Status", "reason": "NotFound", "message": f"{path} not found"}

    def _apply(self, path: str, query: str, content_type: str, manifest: Json) -> tuple[int, Json]:
        assert content_type == "application/apply-patch+yaml"
        if path.startswith(self.missing):
            return 404, {"kind": "Status", "reason": "NotFound", "message": "the namespace is not found"}
        if "dryRun=All" in query:
            return 200, manifest
        self.applied.append((path, manifest))
        self.objects[path] = manifest
        return 200, manifest

    def _merge(self, path: str, _query: str, _content_type: str, patch: Json) -> tuple[int, Json]:
        """Change annotations of the version that the patch names."""
        metadata = self.objects[path]["metadata"]
        version = str(int(metadata["resourceVersion"]) + 1)
        if self.conflicts or patch["metadata"]["resourceVersion"] != metadata["resourceVersion"]:
            self.conflicts -= 1
            metadata["resourceVersion"] = version
            return 409, {"kind": "Status", "reason": "Conflict", "message": "the object has been modified"}
        annotations = metadata.get("annotations", {}) | patch["metadata"]["annotations"]
        metadata["annotations"] = {name: value for name, value in annotations.items() if value is not None}
        metadata["resourceVersion"] = version
        return 200, self.objects[path]


@contextmanager
def fake_api_server(folder: Path) -> Iterator[tuple[FakeApiServer, Path]]:
    """Serve until the context exits; also return a kubeconfig for it."""
    fake = FakeApiServer()

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"
        disable_nagle_algorithm = True

        def _serve(self) -> None:
            body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
            content_type = self.headers.get("Content-Type", "")
            status, document = fake.handle(self.command, self.path, content_type, body)
            content = json.dumps(document).encode()
            self.send_response_only(status)
            self.send_header("Date", format_datetime(datetime.now(UTC) + fake.clock_ahead, usegmt=True))
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            self.wfile.write(content)

        do_GET = do_POST = do_PATCH = _serve  # noqa: N815 (the names of http.server)

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        server.daemon_threads = True
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.005})
        thread.start()
        fake.url = f"http://127.0.0.1:{server.server_port}"
        try:
            yield fake, kubeconfig(folder, fake.url)
        finally:
            server.shutdown()
            thread.join(10)


def kubeconfig(folder: Path, url: str) -> Path:
    """Write a kubeconfig for this address."""
    document = {
        "current-context": "fake",
        "contexts": [{"name": "fake", "context": {"cluster": "fake", "user": "fake"}}],
        "clusters": [{"name": "fake", "cluster": {"server": url}}],
        "users": [{"name": "fake", "user": {}}],
    }
    file = folder / "kubeconfig"
    file.write_text(json.dumps(document))
    return file
