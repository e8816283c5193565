"""Access to the API server, from `KUBECONFIG` or the service account.

This module checks a kubeconfig's size and structure, so that an error names the file and the field. The official client
then resolves addresses, certificates and a token of the current context.
https://kubernetes.io/docs/concepts/configuration/organize-cluster-access-kubeconfig/
"""

from __future__ import annotations

import asyncio
import base64
import json
import os
import re
import signal
import ssl
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime
from functools import partial
from pathlib import Path
from typing import Annotated, Any, Final, TypeVar
from urllib.parse import urlsplit

import aiohttp
import msgspec
from kubernetes.aio.client import Configuration
from kubernetes.aio.client.rest import RESTClientObject
from kubernetes.aio.config import ConfigException, load_incluster_config, load_kube_config_from_dict

from runway.errors import ConfigurationError
from runway.yaml_loader import UnreadableYaml, parse, read_file, sanitize_message

LOAD_SECONDS: Final = 15.0
"""For all credentials. An exec plugin usually calls a cloud's API, and OpenID needs a call too."""
KILL_SECONDS: Final = 1.0
MAX_PLUGIN_BYTES: Final = 1 << 20

_UNEXPECTED: Final = (ConfigException, OSError, ValueError, LookupError, TypeError, AttributeError, aiohttp.ClientError)
_TOKEN: Final = re.compile(r"[\x21-\x7e]+ [\x21-\x7e]+")
_PATH_FIELDS: Final = ("certificate_authority", "client_certificate", "client_key", "token_file")
"""Paths in a kubeconfig are relative to its folder."""

_Text = Annotated[str, msgspec.Meta(min_length=1)]


class _Cluster(msgspec.Struct, rename="kebab", omit_defaults=True):
    server: _Text
    certificate_authority: str | None = None
    certificate_authority_data: str | None = None
    insecure_skip_tls_verify: bool | None = None
    tls_server_name: str | None = None
    proxy_url: str | None = None


class _Variable(msgspec.Struct):
    name: str
    value: str


class _Plugin(msgspec.Struct, rename="camel"):
    command: _Text
    api_version: _Text
    args: list[str] | None = None
    env: list[_Variable] | None = None


class _User(msgspec.Struct, rename="kebab", omit_defaults=True):
    client_certificate: str | None = None
    client_certificate_data: str | None = None
    client_key: str | None = None
    client_key_data: str | None = None
    token: str | None = None
    token_file: str | None = msgspec.field(name="tokenFile", default=None)
    username: str | None = None
    password: str | None = None
    exec: _Plugin | None = None
    auth_provider: dict[str, Any] | None = None


class _Context(msgspec.Struct):
    cluster: _Text
    user: str = ""


class _NamedCluster(msgspec.Struct):
    name: str
    cluster: _Cluster


class _NamedUser(msgspec.Struct):
    name: str
    user: _User | None = None


class _NamedContext(msgspec.Struct):
    name: str
    context: _Context


_Entry = TypeVar("_Entry", _NamedCluster, _NamedUser, _NamedContext)


class _Kubeconfig(msgspec.Struct, rename="kebab"):
    """The fields that Runway uses. It ignores others, as kubectl does."""

    current_context: str | None = None
    clusters: list[_NamedCluster] | None = None
    users: list[_NamedUser] | None = None
    contexts: list[_NamedContext] | None = None


class _Credential(msgspec.Struct, rename="camel"):
    expiration_timestamp: Annotated[datetime, msgspec.Meta(tz=True)] | None = None
    token: str | None = None
    client_certificate_data: str | None = None
    client_key_data: str | None = None


class _ExecCredential(msgspec.Struct):
    status: _Credential


@dataclass(frozen=True, slots=True)
class Access:
    """Address of the API server, and credentials for it."""

    configuration: Configuration
    tls: ssl.SSLContext
    renew: Callable[[], Access]
    """Load it again. It takes as long as `load_access`, and raises the same errors."""
    expires_at: datetime | None = None
    """When the credentials of an exec plugin expire, if it says so."""
    files: tuple[Path, ...] = ()
    """The files with credentials, which may be replaced at any time."""


def load_access(kubeconfig: str | None, seconds: float = LOAD_SECONDS) -> Access:
    """Read the configuration within `seconds`. Raises ConfigurationError, which names the file and the fault.

    `kubeconfig` is a path, or several joined by `:`. None selects the pod's service account. The work runs in another
    thread, since uvicorn creates the application while its event loop runs.
    """

    def run() -> Access:
        # Not uvloop: its child processes need the main thread.
        with asyncio.Runner(loop_factory=asyncio.SelectorEventLoop) as runner:
            return runner.run(_load(kubeconfig, seconds))

    with ThreadPoolExecutor(1) as thread:
        return thread.submit(run).result()


async def _load(kubeconfig: str | None, seconds: float) -> Access:
    source = "in-cluster configuration" if kubeconfig is None else f"KUBECONFIG {sanitize_message(kubeconfig)}"
    configuration = Configuration()
    expires_at: datetime | None = None
    files: tuple[Path, ...] = ()
    try:
        async with asyncio.timeout(seconds):
            if kubeconfig is None:
                load_incluster_config(client_configuration=configuration)  # type: ignore[no-untyped-call]
            else:
                document, expires_at, files = await _current_context(kubeconfig)
                await load_kube_config_from_dict(document, client_configuration=configuration)  # type: ignore[no-untyped-call]
        _check(configuration)
        return Access(configuration, _tls(configuration), partial(load_access, kubeconfig, seconds), expires_at, files)
    except TimeoutError:
        raise ConfigurationError(f"{source}: no credentials after {seconds:g} s") from None
    except (ConfigurationError, *_UNEXPECTED) as error:
        raise ConfigurationError(f"{source}: {sanitize_message(str(error) or type(error).__name__)}") from error


async def _current_context(kubeconfig: str) -> tuple[dict[str, Any], datetime | None, tuple[Path, ...]]:
    """Return a kubeconfig of the current context, with the credentials of its exec plugin or token file.

    Also return when they expire, and their files.
    """
    files = _read(kubeconfig)
    name = next((file.current_context for file in files if file.current_context), None)
    if name is None:
        raise ConfigurationError("there is no current-context")
    context = _find("context", name, [named for file in files for named in file.contexts or ()]).context
    cluster = _find("cluster", context.cluster, [named for file in files for named in file.clusters or ()]).cluster
    user = _User()
    if context.user:
        user = _find("user", context.user, [named for file in files for named in file.users or ()]).user or user
    expires_at = None
    paths = (cluster.certificate_authority, user.client_certificate, user.client_key, user.token_file)
    if user.exec:
        expires_at = await _run_plugin(user.exec, user)
    elif user.token_file and not user.token:
        user.token = _read_token(Path(user.token_file))
    user.exec = None
    if cluster.server.startswith("https:") and user == _User():
        raise ConfigurationError(f"context {name!r} has no user with credentials")
    document = {
        "current-context": "current",
        "contexts": [{"name": "current", "context": {"cluster": "current", "user": "current"}}],
        "clusters": [{"name": "current", "cluster": msgspec.to_builtins(cluster)}],
        "users": [{"name": "current", "user": msgspec.to_builtins(user)}],
    }
    return document, expires_at, tuple(Path(path) for path in paths if path)


def _read(kubeconfig: str) -> list[_Kubeconfig]:
    """Read the files in order. As with kubectl, several files may include missing ones."""
    paths = [Path(path).expanduser().absolute() for path in kubeconfig.split(":") if path]
    files = []
    for path in [path for path in paths if path.exists()] or paths[:1]:
        try:
            file = msgspec.convert(parse(read_file(path)) or {}, _Kubeconfig)
        except (UnreadableYaml, msgspec.ValidationError) as error:
            raise ConfigurationError(str(error) if len(paths) == 1 else f"{path}: {error}") from error
        for part in (*(named.cluster for named in file.clusters or ()), *(named.user for named in file.users or ())):
            for field in _PATH_FIELDS:
                if value := getattr(part, field, None):
                    setattr(part, field, str(path.parent / value))
        files.append(file)
    return files


def _find(kind: str, name: str, entries: list[_Entry]) -> _Entry:
    """Return the first entry of this name, as kubectl does."""
    for entry in entries:
        if entry.name == name:
            return entry
    raise ConfigurationError(f"there is no {kind} {name!r}")


async def _run_plugin(plugin: _Plugin, user: _User) -> datetime | None:
    """Set the credentials of a plugin, and return when they expire.

    https://kubernetes.io/docs/reference/access-authn-authz/authentication/#client-go-credential-plugins
    """
    request = {"apiVersion": plugin.api_version, "kind": "ExecCredential", "spec": {"interactive": False}}
    variables = {variable.name: variable.value for variable in plugin.env or ()}
    process = await asyncio.create_subprocess_exec(
        plugin.command,
        *(plugin.args or ()),
        env={**os.environ, **variables, "KUBERNETES_EXEC_INFO": json.dumps(request)},
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE,
        start_new_session=True,
    )
    output = b""
    try:
        while process.stdout and (chunk := await process.stdout.read(1 << 16)):
            output += chunk
            if len(output) > MAX_PLUGIN_BYTES:
                raise ConfigurationError(f"the exec plugin printed more than {MAX_PLUGIN_BYTES} bytes")
        status = await process.wait()
    except BaseException:
        await _kill(process)
        raise
    subject = f"the exec plugin {plugin.command}"
    if status:
        raise ConfigurationError(f"{subject} exited with status {status}")
    try:
        credential = msgspec.json.decode(output, type=_ExecCredential).status
    except msgspec.DecodeError as error:
        raise ConfigurationError(f"{subject} printed no ExecCredential: {error}") from error
    certificate, key = credential.client_certificate_data, credential.client_key_data
    if credential.token:
        user.token = credential.token
    elif certificate and key:
        user.client_certificate_data = base64.b64encode(certificate.encode()).decode()
        user.client_key_data = base64.b64encode(key.encode()).decode()
    else:
        raise ConfigurationError(f"{subject} returned neither a token nor a certificate with its key")
    return credential.expiration_timestamp


async def _kill(process: asyncio.subprocess.Process) -> None:
    """Kill the plugin and its children. Only a child that left the session survives."""
    with suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    with suppress(TimeoutError):
        async with asyncio.timeout(KILL_SECONDS):
            while process.stdout and await process.stdout.read(MAX_PLUGIN_BYTES):
                pass  # asyncio detects the end of the pipe only after its buffer is read.
            await process.wait()


def _read_token(path: Path) -> str:
    try:
        return read_file(path).decode("ascii").strip()
    except ValueError as error:
        raise ConfigurationError(f"tokenFile {path}: {error}") from error


def _check(configuration: Configuration) -> None:
    _check_url("server", configuration.host)
    if configuration.proxy:
        _check_url("proxy-url", configuration.proxy)
    token = configuration.api_key.get("BearerToken")
    if token is None:
        return
    configuration.api_key["BearerToken"] = token = token.strip()
    if not _TOKEN.fullmatch(token):
        raise ConfigurationError("the token is not one word of printable ASCII characters")


def _check_url(field: str, url: str) -> None:
    """Reject an invalid address. The message does not contain the URL, which can contain a password."""
    try:
        parts = urlsplit(url)
        usable = parts.scheme in ("http", "https") and parts.hostname and not (parts.query or parts.fragment)
        (parts.hostname or "").encode("idna")
        _ = parts.port  # Raises ValueError if it is invalid, as `encode` does for a host name.
    except ValueError:
        usable = False
    if not usable or not url.isprintable() or " " in url:
        raise ConfigurationError(f"{field} is not a URL such as https://10.0.0.1:6443")


def _tls(configuration: Configuration) -> ssl.SSLContext:
    try:
        return RESTClientObject(configuration).ssl_context
    except (OSError, ValueError) as error:  # ssl.SSLError is an OSError without a file name.
        given = {
            "certificate-authority": configuration.ssl_ca_cert,
            "client-certificate": configuration.cert_file,
            "client-key": configuration.key_file,
        }
        fields = ", ".join(field for field, value in given.items() if value)
        raise ConfigurationError(f"{fields}: {error}") from error
