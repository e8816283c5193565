"""The recipe of deploy/gateway in nginx: the tenant comes from the identity, never from the client."""

from __future__ import annotations

import subprocess
import threading
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import httpx2
import pytest

from localcluster import packages
from testbed.nginx import EXECUTABLE, PACKAGES
from testbed.ports import ReservedPort
from testbed.server import CHECKOUT
from testbed.waiting import wait_for

RECIPE = CHECKOUT / "deploy" / "gateway" / "nginx.conf"


@dataclass
class Upstreams:
    """Two servers behind the gateway: `groups` is the identity's answer, `seen` what reached Runway."""

    groups: str | None = "vision"
    seen: list[tuple[str, list[str], list[str]]] = field(default_factory=list)
    """Path, X-Tenant-ID headers, and credentials of each request."""
    identity_saw: list[str | None] = field(default_factory=list)


@contextmanager
def serving(handler: type[BaseHTTPRequestHandler]) -> Iterator[int]:
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05})
        thread.start()
        try:
            yield server.server_port
        finally:
            server.shutdown()
            thread.join(10)


@pytest.fixture
def upstreams() -> Upstreams:
    return Upstreams()


@pytest.fixture
def gateway(upstreams: Upstreams, tmp_path: Path) -> Iterator[httpx2.Client]:
    class Quiet(BaseHTTPRequestHandler):
        def log_message(self, *_: object) -> None:
            pass

    class Identity(Quiet):
        def do_GET(self) -> None:
            upstreams.identity_saw.append(self.headers.get("Authorization"))
            self.send_response(401 if upstreams.groups is None else 202)
            if upstreams.groups:
                self.send_header("X-Auth-Request-Groups", upstreams.groups)
            self.send_header("Content-Length", "0")
            self.end_headers()

    class Runway(Quiet):
        def do_POST(self) -> None:
            self.rfile.read(int(self.headers.get("Content-Length") or 0))
            self.do_GET()

        def do_GET(self) -> None:
            credentials = [name for name in ("Authorization", "Cookie") if self.headers.get(name)]
            upstreams.seen.append((self.path, self.headers.get_all("X-Tenant-ID") or [], credentials))
            self.send_response(200)
            self.send_header("Content-Length", "2")
            self.end_headers()
            self.wfile.write(b"ok")

    packages.ensure_installed(PACKAGES)
    with ExitStack() as stack:
        ports = [ReservedPort() for _ in range(2)]
        for port in ports:
            stack.callback(port.release)
        identity, runway = stack.enter_context(serving(Identity)), stack.enter_context(serving(Runway))
        text = RECIPE.read_text(encoding="utf-8")
        for address, used in (
            ("oauth2-proxy.gateway:4180", f"127.0.0.1:{identity}"),
            ("runway.runway:8000", f"127.0.0.1:{runway}"),
            ("127.0.0.1:8081", f"127.0.0.1:{ports[0].number}"),
            ("listen 8080;", f"listen 127.0.0.1:{ports[1].number};"),
        ):
            assert address in text
            text = text.replace(address, used)
        file = tmp_path / "nginx.conf"
        file.write_text(text, encoding="utf-8")
        log = stack.enter_context((tmp_path / "log").open("wb"))
        options = f"daemon off; master_process off; pid {tmp_path}/pid; error_log stderr;"
        process = subprocess.Popen(
            [EXECUTABLE, "-p", str(tmp_path), "-c", str(file), "-g", options],
            stdin=subprocess.DEVNULL, stderr=log,
        )  # fmt: skip
        try:
            client = httpx2.Client(base_url=f"http://127.0.0.1:{ports[1].number}", trust_env=False, timeout=10)
            stack.enter_context(client)
            wait_for(lambda: _answers(client, process), "nginx answers")
            upstreams.seen.clear()
            upstreams.identity_saw.clear()
            yield client
        finally:
            process.terminate()
            process.wait(10)


def _answers(client: httpx2.Client, process: subprocess.Popen[bytes]) -> bool | None:
    assert process.poll() is None, "nginx has exited; its log is beside its configuration"
    try:
        client.get("/healthz")
    except httpx2.TransportError:
        return None
    return True


@pytest.mark.parametrize(
    "forged",
    [
        [],
        [("X-Tenant-ID", "speech")],
        [("x-tenant-id", "speech"), ("X-TENANT-ID", "research")],
        [("X_Tenant_ID", "speech")],
        [("X-Auth-Request-Groups", "speech")],
    ],
)
def test_forged_tenant_is_replaced_by_the_claim(
    gateway: httpx2.Client, upstreams: Upstreams, forged: list[tuple[str, str]]
) -> None:
    assert gateway.post("/v1/jobs", json={}, headers=forged).status_code == 200
    assert upstreams.seen == [("/v1/jobs", ["vision"], [])]


def test_credentials_reach_the_identity_and_not_runway(gateway: httpx2.Client, upstreams: Upstreams) -> None:
    answer = gateway.get("/v1/quota", headers={"Authorization": "Bearer of-alice", "Cookie": "session=1"})
    assert answer.status_code == 200
    assert upstreams.identity_saw == ["Bearer of-alice"]
    assert upstreams.seen == [("/v1/quota", ["vision"], [])]


@pytest.mark.parametrize(
    ("groups", "status"), [(None, 401), ("", 403), ("vision,speech", 403), ("Vision", 403), ("a/b", 403)]
)
def test_nothing_reaches_runway_without_exactly_one_tenant(
    gateway: httpx2.Client, upstreams: Upstreams, groups: str | None, status: int
) -> None:
    upstreams.groups = groups
    for path in ("/v1/jobs", "/healthz", "/"):
        assert gateway.get(path, headers={"X-Tenant-ID": "vision"}).status_code == status
    assert upstreams.seen == []


def test_metrics_of_all_tenants_are_not_public(gateway: httpx2.Client, upstreams: Upstreams) -> None:
    assert gateway.get("/metrics").status_code == 403
    assert gateway.get("/%6detrics").status_code == 403
    assert upstreams.seen == []


def test_identity_endpoint_is_not_public(gateway: httpx2.Client, upstreams: Upstreams) -> None:
    assert gateway.get("/identity").status_code == 404
    assert upstreams.seen == []
