"""How Runway reaches its API server: by `KUBECONFIG`, or by the pod's service account.

A kubeconfig is read within bounds and its form is checked here, so that a fault names the file and the field. The
official client then makes addresses, certificates and a token of its current context.
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
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Final, cast
from urllib.parse import urlsplit

import aiohttp
import msgspec
from kubernetes.aio.client import Configuration
from kubernetes.aio.client.rest import RESTClientObject
from kubernetes.aio.config import ConfigException, load_incluster_config, load_kube_config_from_dict

from runway.errors import ConfigurationError
from runway.yaml_loader import UnreadableYaml, parse, read_file, sanitize_message

LOAD_SECONDS: Final = 15.0
"""How long it may take to get credentials: from an exec plugin, which mostly asks a cloud's API, or by OpenID."""
KILL_SECONDS: Final = 1.0
"""How long is waited for an exec plugin that was killed."""
PLUGIN_BYTES: Final = 1 << 20
"""Bytes that an exec plugin may print."""

_Json = dict[str, Any]

_UNEXPECTED: Final = (ConfigException, OSError, ValueError, LookupError, TypeError, AttributeError, aiohttp.ClientError)
"""What the official client raises for a configuration that it cannot use."""
_TOKEN: Final = re.compile(r"[\x21-\x7e]+ [\x21-\x7e]+")
"""The value of an Authorization header: a scheme and a credential."""
_PATHS: Final = ("certificate-authority", "client-certificate", "client-key", "tokenFile")
"""Fields that hold a path, relative to the folder of the file they are in."""

_Text = Annotated[str, msgspec.Meta(min_length=1)]


class _Cluster(msgspec.Struct, rename="kebab"):
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


class _User(msgspec.Struct, rename="kebab"):
    client_certificate: str | None = None
    client_certificate_data: str | None = None
    client_key: str | None = None
    client_key_data: str | None = None
    token: str | None = None
    token_file: str | None = msgspec.field(name="tokenFile", default=None)
    username: str | None = None
    password: str | None = None
    exec: _Plugin | None = None
    auth_provider: _Json | None = None


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


class _File(msgspec.Struct, rename="kebab"):
    """The fields of a kubeconfig that are used. Others are ignored, as by kubectl."""

    current_context: str | None = None
    clusters: list[_NamedCluster] | None = None
    users: list[_NamedUser] | None = None
    contexts: list[_NamedContext] | None = None


class _Credential(msgspec.Struct, rename="camel"):
    token: str | None = None
    client_certificate_data: str | None = None
    client_key_data: str | None = None


class _PluginAnswer(msgspec.Struct):
    """https://kubernetes.io/docs/reference/config-api/client-authentication.v1/"""

    status: _Credential


@dataclass(frozen=True, slots=True)
class Access:
    """Where the API server is, and the credentials for it."""

    configuration: Configuration
    tls: ssl.SSLContext


def load_access(kubeconfig: str | None, seconds: float = LOAD_SECONDS) -> Access:
    """Read the configuration. Raises ConfigurationError, which names the file and the fault, after `seconds` at most.

    `kubeconfig` is a path, or several joined by `:`; None takes the pod's service account. The work is done in another
    thread, since uvicorn makes the application while its event loop runs.
    """
    with ThreadPoolExecutor(1) as thread:
        return thread.submit(_run, kubeconfig, seconds).result()


def _run(kubeconfig: str | None, seconds: float) -> Access:
    # Not uvloop, whose child processes need the main thread.
    with asyncio.Runner(loop_factory=asyncio.SelectorEventLoop) as runner:
        return runner.run(_load(kubeconfig, seconds))


async def _load(kubeconfig: str | None, seconds: float) -> Access:
    where = "in-cluster configuration" if kubeconfig is None else f"KUBECONFIG {sanitize_message(kubeconfig)}"
    configuration = Configuration()
    try:
        async with asyncio.timeout(seconds):
            if kubeconfig is None:
                load_incluster_config(client_configuration=configuration)  # type: ignore[no-untyped-call]
            else:
                document = await _current(kubeconfig)
                await load_kube_config_from_dict(document, client_configuration=configuration)  # type: ignore[no-untyped-call]
        _check(configuration)
        return Access(configuration, _tls(configuration))
    except TimeoutError:
        raise ConfigurationError(f"{where}: there are no credentials after {seconds:g} s") from None
    except (ConfigurationError, *_UNEXPECTED) as error:
        raise ConfigurationError(f"{where}: {sanitize_message(str(error) or type(error).__name__)}") from error


async def _current(kubeconfig: str) -> _Json:
    """A kubeconfig of the current context alone, with absolute paths and with what its exec plugin gave."""
    files = _read(kubeconfig)
    name = next((file["current-context"] for file in files if file.get("current-context")), None)
    if name is None:
        raise ConfigurationError("there is no current-context")
    context = _named("context", name, files)
    cluster = _named("cluster", context["cluster"], files)
    user = _named("user", context["user"], files) if context.get("user") else {}
    if plugin := user.pop("exec", None):
        user |= await _ask(plugin)
    elif user.get("tokenFile") and not user.get("token"):
        user["token"] = _read_token(Path(user["tokenFile"]))
    if cluster["server"].startswith("https:") and not user:
        raise ConfigurationError(f"context {name!r} has no user with credentials")
    return {
        "current-context": "current",
        "contexts": [{"name": "current", "context": {"cluster": "current", "user": "current"}}],
        "clusters": [{"name": "current", "cluster": cluster}],
        "users": [{"name": "current", "user": user}],
    }


def _read(kubeconfig: str) -> list[_Json]:
    """The files, in their order. As with kubectl, of several those that do not exist are left out."""
    paths = [Path(path).expanduser().absolute() for path in kubeconfig.split(":") if path]
    present = [path for path in paths if path.exists()] or paths[:1]
    files = []
    for path in present:
        try:
            document = cast("_Json", parse(read_file(path)) or {})
            msgspec.convert(document, _File)
        except (UnreadableYaml, msgspec.ValidationError) as error:
            raise ConfigurationError(str(error) if len(paths) == 1 else f"{path}: {error}") from error
        files.append(_with_absolute_paths(document, path.parent))
    return files


def _with_absolute_paths(document: _Json, folder: Path) -> _Json:
    def item(kind: str, named: _Json) -> _Json:
        fields = {
            name: str(folder / value) if name in _PATHS and value else value
            for name, value in (named.get(kind) or {}).items()
        }
        return {"name": named["name"], kind: fields}

    lists = {
        f"{kind}s": [item(kind, named) for named in document.get(f"{kind}s") or []]
        for kind in ("cluster", "user", "context")
    }
    return document | lists


def _named(kind: str, name: str, files: list[_Json]) -> _Json:
    """The first with this name counts, as with kubectl."""
    for file in files:
        for named in file[f"{kind}s"]:
            if named["name"] == name:
                return {key: value for key, value in named[kind].items() if value is not None}
    raise ConfigurationError(f"there is no {kind} {name!r}")


async def _ask(plugin: _Json) -> _Json:
    """Run an exec plugin; the fields of a user that it gives. What it says on stderr is for the operator.

    https://kubernetes.io/docs/reference/access-authn-authz/authentication/#client-go-credential-plugins
    """
    request = {"apiVersion": plugin["apiVersion"], "kind": "ExecCredential", "spec": {"interactive": False}}
    given = {variable["name"]: variable["value"] for variable in plugin.get("env") or ()}
    process = await asyncio.create_subprocess_exec(
        plugin["command"],
        *(plugin.get("args") or ()),
        env={**os.environ, **given, "KUBERNETES_EXEC_INFO": json.dumps(request)},
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE,
        start_new_session=True,
    )
    try:
        printed = await _read_at_most(process.stdout, PLUGIN_BYTES)
        status = await process.wait()
    except BaseException:
        await _kill(process)
        raise
    if status:
        raise ConfigurationError(f"the exec plugin {plugin['command']} ended with status {status}")
    try:
        found = msgspec.json.decode(printed, type=_PluginAnswer).status
    except msgspec.DecodeError as error:
        raise ConfigurationError(f"the exec plugin {plugin['command']} printed no ExecCredential: {error}") from error
    if found.token:
        return {"token": found.token}
    if found.client_certificate_data and found.client_key_data:
        return {
            "client-certificate-data": base64.b64encode(found.client_certificate_data.encode()).decode(),
            "client-key-data": base64.b64encode(found.client_key_data.encode()).decode(),
        }
    raise ConfigurationError(f"the exec plugin {plugin['command']} gave neither a token nor a certificate with its key")


async def _kill(process: asyncio.subprocess.Process) -> None:
    """End the plugin and what it has started. Only what has left its session can outlive it."""
    with suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    with suppress(TimeoutError):
        async with asyncio.timeout(KILL_SECONDS):
            while process.stdout and await process.stdout.read(PLUGIN_BYTES):
                pass  # The end of the pipe is not seen while its buffer is full.
            await process.wait()


def _read_token(path: Path) -> str:
    try:
        return read_file(path).decode("ascii").strip()
    except ValueError as error:
        raise ConfigurationError(f"tokenFile {path}: {error}") from error


async def _read_at_most(stream: asyncio.StreamReader | None, limit: int) -> bytes:
    content = b""
    while stream is not None and (chunk := await stream.read(1 << 16)):
        content += chunk
        if len(content) > limit:
            raise ConfigurationError(f"the exec plugin printed more than {limit} bytes")
    return content


def _check(configuration: Configuration) -> None:
    """Refuse what each request would fail with. A token from a file may end with a newline, which is left out."""
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
    """Refuse what is no address. The URL is not repeated: it can hold a password."""
    try:
        parts = urlsplit(url)
        usable = parts.scheme in ("http", "https") and parts.hostname and not (parts.query or parts.fragment)
        (parts.hostname or "").encode("idna")
        _ = parts.port  # Raises ValueError where it is no port, as the line above does where it is no host name.
    except ValueError:
        usable = False
    if not usable or not url.isprintable() or " " in url:
        raise ConfigurationError(f"{field} is not a URL such as https://10.0.0.1:6443")


def _tls(configuration: Configuration) -> ssl.SSLContext:
    try:
        return RESTClientObject(configuration).ssl_context
    except (OSError, ValueError) as error:  # ssl.SSLError is an OSError, and names no file.
        given = {
            "certificate-authority": configuration.ssl_ca_cert,
            "client-certificate": configuration.cert_file,
            "client-key": configuration.key_file,
        }
        fields = ", ".join(field for field, value in given.items() if value)
        raise ConfigurationError(f"{fields} cannot be used: {error}") from error
