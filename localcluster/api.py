"""How this package asks a component how it is: a GET over HTTP(S), a connection, and the administrator's GET."""

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
    """GET `url`: status and body. `authority` verifies the server; `client` names the certificate shown to it.

    Raises OSError or http.client.HTTPException when there is no answer within 2 s. No proxy setting is honoured: the
    servers are on this machine.
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
    """None when `url` answers 200, else the reason."""
    try:
        status, body = get(url, authority=authority, client=client)
    except (OSError, http.client.HTTPException) as error:
        return f"{url}: {error or type(error).__name__}"
    return None if status == http.client.OK else f"{url}: {status} {body[-300:].decode(errors='replace')}"


def why_not_listening(address: str | tuple[str, int]) -> str | None:
    """None when something accepts a connection at the Unix socket path or the (host, port), else the reason."""
    family = socket.AF_UNIX if isinstance(address, str) else socket.AF_INET
    with socket.socket(family, socket.SOCK_STREAM) as connection:
        connection.settimeout(TIMEOUT_SECONDS)
        try:
            connection.connect(address)
        except OSError as error:
            return f"{address}: {error}"
    return None


def get_object(path: str) -> Any | None:
    """The object at `path` of the API server, as the administrator; None when it does not answer or has none."""
    try:
        status, body = get(addresses.API_SERVER_URL + path, authority=pki.CA, client="admin")
    except (OSError, http.client.HTTPException):
        return None
    return json.loads(body) if status == http.client.OK else None
