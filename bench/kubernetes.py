"""The API server of the bench, its watches, and the bench's namespace."""

from __future__ import annotations

import asyncio
import base64
import json
import os
import ssl
import tempfile
from collections.abc import AsyncGenerator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import aiohttp
import yaml

NAMESPACE = "runway-bench"


@dataclass(frozen=True, slots=True)
class ApiServer:
    """The URL and TLS context of the API server, with the kubeconfig's client certificate."""

    url: str
    tls: ssl.SSLContext

    @classmethod
    def from_kubeconfig(cls, path: Path) -> ApiServer:
        """Read a kubeconfig with client certificates, in files or embedded."""
        config = yaml.safe_load(path.read_text())
        cluster, user = config["clusters"][0]["cluster"], config["users"][0]["user"]
        with tempfile.TemporaryDirectory() as scratch:
            authority, certificate, key = (
                _file(entry, name, Path(scratch))
                for entry, name in (
                    (cluster, "certificate-authority"),
                    (user, "client-certificate"),
                    (user, "client-key"),
                )
            )
            tls = ssl.create_default_context(cafile=authority)
            tls.load_cert_chain(certificate, key)
        return cls(cluster["server"], tls)


def _file(entry: dict[str, str], name: str, scratch: Path) -> str:
    if name in entry:
        return entry[name]
    file = scratch / name
    descriptor = os.open(file, os.O_WRONLY | os.O_CREAT, 0o600)
    with os.fdopen(descriptor, "wb") as out:
        out.write(base64.b64decode(entry[f"{name}-data"]))
    return str(file)


async def watch(client: aiohttp.ClientSession, url: str) -> AsyncGenerator[Any, None]:
    """Yield the events of a kind of object from now on, for at most half an hour."""
    async with client.get(url, params={"limit": "1"}) as answer:
        version = (await answer.json())["metadata"]["resourceVersion"]
    query = {"watch": "true", "resourceVersion": version, "timeoutSeconds": "1800"}
    async with client.get(url, params=query, timeout=aiohttp.ClientTimeout(total=None)) as stream:
        rest = b""
        async for chunk in stream.content.iter_any():
            *lines, rest = (rest + chunk).split(b"\n")
            for line in lines:
                yield json.loads(line)


async def delete_namespace(api: ApiServer, namespace: str = NAMESPACE) -> None:
    """Delete the namespace and wait until it is gone. Raises RuntimeError after 5 minutes."""
    async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(ssl=api.tls)) as session:
        async with session.delete(f"{api.url}/api/v1/namespaces/{namespace}") as answer:
            await answer.read()
        for _ in range(300):
            async with session.get(f"{api.url}/api/v1/namespaces/{namespace}") as answer:
                await answer.read()  # A connection with an unread body would outlive the session.
                if answer.status == 404:
                    return
            await asyncio.sleep(1)
    raise RuntimeError(f"namespace {namespace} still exists after 5 minutes")
