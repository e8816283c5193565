"""Health probes of components: HTTP(S) GET, TCP or Unix connection, API objects."""

import http.client
import json
import socket
import ssl
import urllib.parse
from pathlib import Path
from typing import Any

from localcluster import addresses, pki

TIMEOUT_SECONDS = 2.0


def get(url: str, *, authority: Path | None = None, client: str | None = None) -> tuple[int, bytes]:
    """GET `url` and return status and body.

    `authority` verifies the server; `client` names the client certificate. Raises OSError or http.client.HTTPException
    without a response within 2 s. Ignores proxy settings, because the servers are on this machine.
    """
    parts = urllib.parse.urlsplit(url)
    connection: http.client.HTTPConnection
    if parts.scheme == "https":
        context = ssl.create_default_context(cafile=str(authority))
        if client is not None:
            context.load_cert_chain(pki.certificate(client), pki.key(client))
        connection = http.client.HTTPSConnection(parts.netloc, timeout=TIMEOUT_SECONDS, context=context)
    else:
        connection = http.client.HTTPConnection(parts.netloc, timeout=TIMEOUT_SECONDS)
    try:
        connection.request("GET", parts.path + (f"?{parts.query}" if parts.query else ""))
        response = connection.getresponse()
        return response.status, response.read()
    finally:
        connection.close()


def why_not_healthy(url: str, *, authority: Path | None = None, client: str | None = None) -> str | None:
    """Return None if `url` answers 200, else the reason."""
    try:
        status, body = get(url, authority=authority, client=client)
    except (OSError, http.client.HTTPException) as error:
        return f"{url}: {error or type(error).__name__}"
    return None if status == http.client.OK else f"{url}: {status} {body[-300:].decode(errors='replace')}"


def why_not_listening(address: str | tuple[str, int]) -> str | None:
    """Return None if a server accepts a connection at the Unix socket path or (host, port), else the reason."""
    family = socket.AF_UNIX if isinstance(address, str) else socket.AF_INET
    with socket.socket(family, socket.SOCK_STREAM) as connection:
        connection.settimeout(TIMEOUT_SECONDS)
        try:
            connection.connect(address)
        except OSError as error:
            return f"{address}: {error}"
    return None


def get_object(path: str) -> Any | None:
    """Return the API object at `path`, read as the administrator; None without a response or object."""
    try:
        status, body = get(addresses.API_SERVER_URL + path, authority=pki.CA, client="admin")
    except (OSError, http.client.HTTPException):
        return None
    return json.loads(body) if status == http.client.OK else None
