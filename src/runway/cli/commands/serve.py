"""`runway serve`: the HTTP server in this process."""

from __future__ import annotations

from typing import Annotated

import typer

from runway.cli.context import Exit
from runway.cli.output import Screen

HTTP_PROTOCOL = "runway.http_server.protocol:BoundedHttpProtocol"
"""The protocol that limits requests, by name: the command line imports nothing of the server."""
SHUTDOWN_SECONDS = 10
"""Open requests, including followed logs, may take this long to end after SIGTERM."""


def serve(
    host: Annotated[str, typer.Option("--host", help="Address to listen on.")] = "127.0.0.1",
    port: Annotated[int, typer.Option("--port", min=1, max=65_535, help="TCP port to listen on.")] = 8000,
) -> None:
    """Serve the HTTP API. RUNWAY_* variables configure it; KUBECONFIG or the service account names the cluster."""
    # The other commands start faster without uvicorn. The app is named, not imported: contract "the command line
    # talks HTTP".
    try:
        import uvicorn
    except ModuleNotFoundError as error:
        Screen().err("Error: `runway serve` needs the server's packages: pip install '.[server]'", style="bold red")
        raise typer.Exit(Exit.USAGE) from error

    uvicorn.run(
        "runway.app:create",
        factory=True,
        host=host,
        port=port,
        http=HTTP_PROTOCOL,
        ws="none",
        timeout_graceful_shutdown=SHUTDOWN_SECONDS,
    )
