"""Hostile kubeconfigs: accepted, or rejected on one line with path and fault."""

from __future__ import annotations

import asyncio
import base64
import errno
import json
import ssl
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import httpx2
import pytest
import yaml
from aiohttp import web

from runway.errors import ConfigurationError, NotExecuted
from runway.kube.kubeconfig import load_access
from runway.kube.transport import AiohttpTransport
from testbed.waiting import GUARD_SECONDS, wait_for
from tests.hostile.serving import POLICY, api_server, free_port, kubeconfig, run_cli, runway
from tests.hostile.test_policies import BOMB

SERVER = "http://127.0.0.1:9"
TLS_SERVER = "https://127.0.0.1:9"
CREDENTIAL = '{"apiVersion": "client.authentication.k8s.io/v1", "kind": "ExecCredential", "status": {"token": "%s"}}'


def _config(server: Any = SERVER, *, cluster: Any = None, user: Any = None, **top: Any) -> str:
    document = kubeconfig(server)
    document["clusters"][0]["cluster"] |= cluster or {}
    document["users"][0]["user"] = user if user is not None else {}
    document |= top
    return yaml.safe_dump({key: value for key, value in document.items() if value is not None})


def _data(text: bytes) -> str:
    return base64.b64encode(text).decode()


def _tls(**cluster: Any) -> str:
    given = {name.replace("_", "-"): value for name, value in cluster.items()}
    return _config(TLS_SERVER, cluster=given, user={"token": "t"})


FAULTY: dict[str, tuple[str | bytes, str]] = {
    "empty": ("", "no current-context"),
    "a list": ("[1]", "Expected `object`, got `array`"),
    "a page of HTML": ("<html><body>", "Expected `object`, got `str`"),
    "binary": (b"\x00\x01", "#x0000"),
    "not UTF-8": (_config().encode() + b"# \xff", "#x00ff"),
    "5 MB": ("#" * 5_000_000, "is larger than"),
    "aliases for a billion values": (BOMB, "aliases are not allowed"),
    "100,000 open brackets": (_config() + "x: " + "[" * 100_000, "nested deeper"),
    "a tag of Python": (_config() + "x: !!python/object/apply:os.system [id]", "tags are not allowed"),
    "no current-context": (_config(**{"current-context": None}), "no current-context"),
    "an unknown current-context": (_config(**{"current-context": "prod"}), "no context 'prod'"),
    "a number as current-context": (_config(**{"current-context": 5}), "$.current-context"),
    "no clusters": (_config(clusters=None), "no cluster 'hostile'"),
    "no users": (_config(users=None), "no user 'hostile'"),
    "clusters that are a mapping": (_config(clusters={}), "$.clusters"),
    "a number as server": (_config(5), "$.clusters[0].cluster.server"),
    "a server without scheme": (_config("10.0.0.1"), "server is not a URL"),
    "a server with a newline": (_config("http://a\n:80"), "is not a URL"),
    "a server with a host name too long": (_config(f"http://{'a' * 300}.x"), "is not a URL"),
    "a server with a port too large": (_config("http://127.0.0.1:99999"), "is not a URL"),
    "https and no credentials": (_config(TLS_SERVER), "no user with credentials"),
    "a SOCKS proxy": (_config(cluster={"proxy-url": "socks5://x"}), "proxy-url is not a URL"),
    "a missing authority": (_tls(certificate_authority="ca.pem"), "/ca.pem"),
    "an invalid authority": (_tls(certificate_authority_data=_data(b"hi")), "certificate-authority: "),
    "a number as authority": (_tls(certificate_authority_data=5), "certificate-authority-data"),
    "text for a boolean": (_tls(insecure_skip_tls_verify="yes"), "insecure-skip-tls-verify"),
    "a certificate without a key": (
        _config(TLS_SERVER, user={"client-certificate-data": _data(b"hi")}), "client-certificate: "
    ),
    "a token with a newline": (_config(user={"token": "a\nX-Evil: 1"}), "the token"),
    "a token that is not ASCII": (_config(user={"token": "tökén"}), "the token"),
    "a missing token file": (_config(user={"tokenFile": "token"}), "tokenFile /"),
    "an endless token file": (_config(user={"tokenFile": "/dev/zero"}), "is not a regular file"),
    "an auth-provider without configuration": (_config(user={"auth-provider": {"name": "oidc"}}), "oidc"),
    "a missing plugin": (_config(user={"exec": {"apiVersion": "v1", "command": "/nowhere"}}), "/nowhere"),
    "a plugin without a command": (_config(user={"exec": {"apiVersion": "v1"}}), "$.users[0].user.exec"),
    "a plugin with a NUL": (_config(user={"exec": {"apiVersion": "v1", "command": "a\0b"}}), "null"),
}  # fmt: skip


@pytest.mark.parametrize("case", FAULTY)
def test_invalid_kubeconfig_is_rejected_on_one_line_with_its_path(case: str, tmp_path: Path) -> None:
    text, expected = FAULTY[case]
    file = tmp_path / "kubeconfig"
    file.write_bytes(text if isinstance(text, bytes) else text.encode())

    with pytest.raises(ConfigurationError) as caught:
        load_access(str(file))

    assert str(caught.value).startswith(f"KUBECONFIG {file}: ")
    assert expected in str(caught.value)
    assert str(caught.value).isprintable()


@pytest.mark.parametrize(
    ("script", "expected"),
    [
        ("exit 3", "exited with status 3"),
        ("echo '<html>'", "printed no ExecCredential"),
        ("yes", "printed more than"),
        ("echo '{\"status\": {}}'", "neither a token nor a certificate"),
        (f"printf '%s' '{CREDENTIAL % 'a b c'}'", "the token"),
        ("sleep 1000", "no credentials after 1 s"),
        ("sleep 1000 & echo done", "no credentials after 1 s"),
    ],
    ids=["fails", "garbage", "endless", "no token", "odd token", "hangs", "leaves a child behind"],
)
def test_plugin_without_credentials_is_killed_and_reported(script: str, expected: str, tmp_path: Path) -> None:
    begun = time.monotonic()

    with pytest.raises(ConfigurationError, match=expected):
        load_access(str(_with_plugin(tmp_path, script)), seconds=1 if "sleep" in script else GUARD_SECONDS)

    assert time.monotonic() - begun < GUARD_SECONDS
    assert not [line for line in _processes() if str(tmp_path) in line]


def test_plugin_returns_token(tmp_path: Path) -> None:
    loaded = load_access(str(_with_plugin(tmp_path, f"echo '{CREDENTIAL % 'abc'}'")))

    assert loaded.configuration.api_key["BearerToken"] == "Bearer abc"


def test_newline_after_token_is_stripped(tmp_path: Path) -> None:
    (tmp_path / "token").write_text("abc\n")
    (tmp_path / "kubeconfig").write_text(_config(user={"tokenFile": "token"}))

    assert load_access(str(tmp_path / "kubeconfig")).configuration.api_key["BearerToken"] == "Bearer abc"


def test_existing_files_of_several_are_merged(tmp_path: Path) -> None:
    whole = kubeconfig(SERVER)
    first = {key: whole[key] for key in ("contexts", "current-context")}
    (tmp_path / "a").write_text(yaml.safe_dump(first))
    (tmp_path / "b").write_text(yaml.safe_dump({**whole, "current-context": "other", "contexts": []}))

    assert load_access(f"{tmp_path}/missing:{tmp_path}/a:{tmp_path}/b").configuration.host == SERVER
    with pytest.raises(ConfigurationError, match="No such file"):
        load_access(f"{tmp_path}/missing:{tmp_path}/missing2")


async def test_certificate_must_match_tls_server_name(tmp_path: Path) -> None:
    _make_certificate(tmp_path, "api.example.com")
    tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    tls.load_cert_chain(tmp_path / "cert.pem", tmp_path / "key.pem")
    async with _served(tls) as port:
        for name, works in (("api.example.com", True), ("other.example.com", False), (None, False)):
            cluster = {"certificate-authority": "cert.pem"} | ({"tls-server-name": name} if name else {})
            text = _config(f"https://127.0.0.1:{port}", cluster=cluster, user={"token": "abc"})
            (tmp_path / "kubeconfig").write_text(text)
            assert await _reaches(tmp_path / "kubeconfig") is works


async def test_requests_use_the_proxy(tmp_path: Path) -> None:
    async with _served(None) as port:
        text = _config("http://cluster.invalid", cluster={"proxy-url": f"http://127.0.0.1:{port}"})
        (tmp_path / "kubeconfig").write_text(text)

        assert await _reaches(tmp_path / "kubeconfig")


def test_invalid_kubeconfig_stops_the_server(tmp_path: Path) -> None:
    file = tmp_path / "kubeconfig"
    file.write_text(_config(**{"current-context": "prod"}))

    done = run_cli("serve", "--port", str(free_port()), RUNWAY_POLICY=str(POLICY), KUBECONFIG=str(file))

    assert done.returncode == 1
    assert done.stderr == f"runway: cannot start\nKUBECONFIG {file}: there is no context 'prod'\n"


async def test_unreadable_service_account_token_fails_only_the_request(tmp_path: Path) -> None:
    (tmp_path / "kubeconfig").write_text(_config(user={"token": "abc"}))
    loaded = await asyncio.to_thread(load_access, str(tmp_path / "kubeconfig"))

    def read_again(_: object) -> None:
        raise OSError(errno.EMFILE, "Too many open files")

    loaded.configuration.refresh_api_key_hook = read_again  # type: ignore[assignment]
    connection = AiohttpTransport(loaded, 1)
    try:
        with pytest.raises(NotExecuted, match=r"the token .* cannot be read: Too many open files"):
            await connection.request("GET", "/version", query={}, body=None, content_type="application/json", seconds=5)
    finally:
        await connection.close()


def _with_plugin(folder: Path, script: str) -> Path:
    plugin = folder / "plugin"
    plugin.write_text(f"#!/bin/sh\n{script}\n")
    plugin.chmod(0o755)
    user = {"exec": {"apiVersion": "client.authentication.k8s.io/v1", "command": str(plugin)}}
    (folder / "kubeconfig").write_text(_config(user=user))
    return folder / "kubeconfig"


def _processes() -> list[str]:
    found = []
    for file in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            found.append(file.read_text(errors="replace"))
        except OSError:  # The process has exited.
            continue
    return found


def _make_certificate(folder: Path, name: str) -> None:
    command = ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes"]
    command += ["-keyout", str(folder / "key.pem"), "-out", str(folder / "cert.pem"), "-days", "2", "-subj", "/CN=test"]
    command += ["-addext", f"subjectAltName=DNS:{name}", "-addext", "keyUsage=digitalSignature,keyCertSign"]
    subprocess.run(command, check=True, capture_output=True)


async def _empty_object(_: web.BaseRequest) -> web.StreamResponse:
    return web.Response(text=json.dumps({}))


@asynccontextmanager
async def _served(
    tls: ssl.SSLContext | None,
    answer: Callable[[web.BaseRequest], Awaitable[web.StreamResponse]] = _empty_object,
) -> AsyncIterator[int]:
    """Serve these answers at every path, and yield the port."""
    runner = web.ServerRunner(web.Server(answer))
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0, ssl_context=tls).start()
    try:
        yield int(runner.addresses[0][1])
    finally:
        await runner.cleanup()


async def _reaches(kubeconfig_file: Path) -> bool:
    loaded = await asyncio.to_thread(load_access, str(kubeconfig_file))
    connection = AiohttpTransport(loaded, 1)
    try:
        answer = await connection.request(
            "GET", "/version", query={}, body=None, content_type="application/json", seconds=5
        )
    except NotExecuted:
        return False
    finally:
        await connection.close()
    return answer.status == 200


TOKENS = f"""#!{sys.executable}
import json, time
expires = time.time() + 5
print(json.dumps({{"status": {{
    "token": str(expires), "expirationTimestamp": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(expires + 1))}}}}))
"""
"""A plugin whose tokens are the time of their expiry. They expire before the plugin says so."""


def _plugin_user(folder: Path) -> dict[str, Any]:
    (folder / "plugin").write_text(TOKENS)
    (folder / "plugin").chmod(0o755)
    return {"exec": {"apiVersion": "client.authentication.k8s.io/v1", "command": str(folder / "plugin")}}


def test_leader_outlives_the_tokens_of_an_exec_plugin(tmp_path: Path) -> None:
    with api_server(tmp_path) as api:
        (tmp_path / "kubeconfig").write_text(_config(api.url, user=_plugin_user(tmp_path)))
        with runway(tmp_path) as process:
            first = api.get("/counts").json()
            httpx2.post(f"{api.url}/break", timeout=GUARD_SECONDS, trust_env=False)

            def renewed() -> bool | None:
                counts = api.get("/counts").json()
                return (len(counts["tokens"]) > 1 and counts["lease_writes"] > first["lease_writes"]) or None

            wait_for(renewed, "the Lease renewed under another token")
            assert process.submit("quiet")
            counts = api.get("/counts").json()
            assert counts["lease_transitions"] == first["lease_transitions"]
            assert process.role() == "writer"
            assert process.faults() == []


async def test_requests_outlive_the_tokens_of_an_exec_plugin(tmp_path: Path) -> None:
    """kubernetes-client/python issue 741: a token of EKS is valid for 15 minutes."""
    seen: dict[str, int] = {}

    async def answer(request: web.BaseRequest) -> web.StreamResponse:
        token = request.headers["Authorization"].removeprefix("Bearer ")
        if time.time() > float(token):
            return web.Response(status=401)
        seen[token] = seen.get(token, 0) + 1
        return web.Response(text="{}")

    async with _served(None, answer) as port:
        user = _plugin_user(tmp_path)
        (tmp_path / "kubeconfig").write_text(_config(f"http://127.0.0.1:{port}", user=user))
        loaded = await asyncio.to_thread(load_access, str(tmp_path / "kubeconfig"))
        connection = AiohttpTransport(loaded, 4)
        statuses = set()
        async with asyncio.timeout(GUARD_SECONDS):
            while len(seen) < 2:
                call = connection.request(
                    "GET", "/version", query={}, body=None, content_type="application/json", seconds=GUARD_SECONDS
                )
                statuses.add((await call).status)
                async for _ in connection.stream("/api/v1/pods", query={"watch": "1"}, idle=5):
                    pass
        await connection.close()
    assert statuses == {200}


async def test_rejected_credentials_do_not_call_the_plugin_in_a_loop(tmp_path: Path) -> None:
    async def answer(_: web.BaseRequest) -> web.StreamResponse:
        return web.Response(status=401)

    async with _served(None, answer) as port:
        file = _with_plugin(tmp_path, f"echo call >> {tmp_path}/calls; echo '{CREDENTIAL % 'abc'}'")
        file.write_text(file.read_text().replace(SERVER, f"http://127.0.0.1:{port}"))
        connection = AiohttpTransport(await asyncio.to_thread(load_access, str(file)), 4)
        for _ in range(20):
            answered = await connection.request(
                "GET", "/version", query={}, body=None, content_type="application/json", seconds=GUARD_SECONDS
            )
            assert answered.status == 401
        await connection.close()
    assert len((tmp_path / "calls").read_text().splitlines()) <= 4
