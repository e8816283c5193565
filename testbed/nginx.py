"""Debian's nginx in front of a server, for tests of streams.

`python -m testbed.nginx` installs it if it is missing. Without it the tests fail; none is skipped.
"""

from __future__ import annotations

import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from localcluster import LocalClusterError
from localcluster.packages import ensure_installed
from testbed.ports import ReservedPort
from testbed.waiting import wait_for

EXECUTABLE: Final = Path("/usr/sbin/nginx")
PACKAGES: Final = {"nginx-light": str(EXECUTABLE)}
STOP_SECONDS: Final = 10.0

CONFIGURATION: Final = """
daemon off;
master_process off;
pid {directory}/nginx.pid;
error_log {directory}/error.log info;
events {{ worker_connections 64; }}
http {{
    access_log off;
    client_body_temp_path {directory}/body;
    proxy_temp_path {directory}/proxy;
    fastcgi_temp_path {directory}/fastcgi;
    scgi_temp_path {directory}/scgi;
    uwsgi_temp_path {directory}/uwsgi;
    gzip on;
    gzip_types text/plain text/event-stream;
    gzip_proxied any;
    server {{
        listen 127.0.0.1:{port};
        location / {{
            proxy_pass {upstream};
            proxy_read_timeout {idle_seconds}s;
            {options}
        }}
    }}
}}
"""


@contextmanager
def nginx(directory: Path, upstream: str, *, idle_seconds: int = 60, options: str = "") -> Iterator[str]:
    """Run nginx with its default buffering until the context exits, and yield its URL."""
    claim = ReservedPort()
    port = claim.number
    settings = {"directory": directory, "port": port, "upstream": upstream, "idle_seconds": idle_seconds}
    file = directory / "nginx.conf"
    file.write_text(CONFIGURATION.format(**settings, options=options), encoding="utf-8")
    errors = directory / "error.log"
    process = subprocess.Popen([EXECUTABLE, "-c", file, "-p", directory, "-e", errors], stdin=subprocess.DEVNULL)
    try:
        wait_for(lambda: _answers(port) or None, "nginx listens")
        yield f"http://127.0.0.1:{port}"
    finally:
        process.terminate()
        process.wait(STOP_SECONDS)
        claim.release()


def _answers(port: int) -> bool:
    try:
        with socket.create_connection(("127.0.0.1", port), timeout=1):
            return True
    except OSError:
        return False


if __name__ == "__main__":
    try:
        ensure_installed(PACKAGES)
    except LocalClusterError as error:
        sys.exit(f"error: {error}")
