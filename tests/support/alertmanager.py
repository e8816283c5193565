"""Debian's Alertmanager with the routing of the monitoring values, and the webhooks of its receivers.

`python -m tests.support.alertmanager` installs it if it is missing. Without it the tests fail; none is skipped.
"""

from __future__ import annotations

import copy
import http.server
import json
import re
import subprocess
import sys
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

import httpx2

from localcluster import LocalClusterError
from localcluster.packages import ensure_installed
from testbed.ports import ReservedPort
from testbed.waiting import GUARD_SECONDS, wait_for

EXECUTABLE: Final = Path("/usr/bin/prometheus-alertmanager")
AMTOOL: Final = Path("/usr/bin/amtool")
PACKAGES: Final = {"prometheus-alertmanager": str(EXECUTABLE)}
STOP_SECONDS: Final = 10.0
HURRIED: Final = {"group_wait": "500ms", "group_interval": "500ms"}
"""Shorter times; a heartbeat repeats at each interval."""

Json = dict[str, Any]


def hurried(config: Json, webhooks: str) -> Json:
    """Return the configuration with shorter times, whose receivers post to `webhooks`/NAME.

    Debian's version does not know `url_file`, whose files exist only in the cluster.
    """
    made = copy.deepcopy(config)
    for route in (made["route"], *made["route"]["routes"]):
        route |= HURRIED
        if route["receiver"] == "heartbeat":
            route["repeat_interval"] = HURRIED["group_interval"]
    for receiver in made["receivers"]:
        for webhook in receiver.get("webhook_configs", []):
            del webhook["url_file"]
            webhook["url"] = f"{webhooks}/{receiver['name']}"
    return made


class Webhooks:
    """A server that keeps the alerts which each receiver gets."""

    def __init__(self) -> None:
        received: dict[str, list[Json]] = {}
        self._received = received

        class Handler(http.server.BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
                received.setdefault(self.path.strip("/"), []).extend(body["alerts"])
                self.send_response(200)
                self.end_headers()

            def log_message(self, *_: object) -> None:
                pass

        self._server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._thread = threading.Thread(target=self._server.serve_forever, name="webhooks")

    def __enter__(self) -> Webhooks:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join(STOP_SECONDS)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self._server.server_port}"

    def names(self, receiver: str) -> list[str]:
        """Return the names of the firing alerts that a receiver has got, in order, repeats included."""
        got = list(self._received.get(receiver, []))
        return [alert["labels"]["alertname"] for alert in got if alert["status"] == "firing"]

    def until(self, receiver: str, alert: str, times: int = 1) -> None:
        """Wait until a receiver has got this alert `times` times."""
        wait_for(lambda: self.names(receiver).count(alert) >= times or None, f"{receiver} gets {alert} {times} times")


class Alertmanager:
    """The API of a running Alertmanager. https://github.com/prometheus/alertmanager/blob/main/api/v2/openapi.yaml"""

    def __init__(self, url: str) -> None:
        self.url = url
        self._http = httpx2.Client(base_url=url, trust_env=False, timeout=GUARD_SECONDS)

    def close(self) -> None:
        self._http.close()

    def is_ready(self) -> bool:
        try:
            return self._http.get("/-/ready").is_success
        except httpx2.TransportError:
            return False

    def fire(self, *alerts: Mapping[str, str]) -> None:
        """Send alerts with these labels, as Prometheus does."""
        self._http.post("/api/v2/alerts", json=[{"labels": dict(labels)} for labels in alerts]).raise_for_status()

    def inhibited(self) -> set[str]:
        """Return the names of the alerts that another alert inhibits now."""
        found = self._http.get("/api/v2/alerts").raise_for_status().json()
        return {alert["labels"]["alertname"] for alert in found if alert["status"]["inhibitedBy"]}

    def receivers(self, alert: str) -> set[str]:
        """Return the receivers to which the routes send an alert."""
        found = self._http.get("/api/v2/alerts").raise_for_status().json()
        return {each["name"] for one in found if one["labels"]["alertname"] == alert for each in one["receivers"]}


@contextmanager
def alertmanager(config: Json, folder: Path) -> Iterator[Alertmanager]:
    """Run an Alertmanager alone, without peers, until the context exits."""
    (folder / "alertmanager.json").write_text(json.dumps(config), encoding="utf-8")
    claim = ReservedPort()
    port = claim.number
    command = [
        str(EXECUTABLE),
        f"--config.file={folder / 'alertmanager.json'}",
        f"--storage.path={folder / 'data'}",
        f"--web.listen-address=127.0.0.1:{port}",
        "--cluster.listen-address=",
        "--log.level=warn",
    ]
    with (folder / "alertmanager.log").open("ab") as log:
        process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=log, stderr=subprocess.STDOUT)
    api = Alertmanager(f"http://127.0.0.1:{port}")
    try:
        wait_for(lambda: api.is_ready() or None, "Alertmanager is ready")
        yield api
    finally:
        api.close()
        process.terminate()
        process.wait(STOP_SECONDS)
        claim.release()


def check(config: Json, folder: Path) -> str:
    """Have amtool check a configuration, and return its output. Raises AssertionError if it refuses it."""
    file = folder / "checked.json"
    file.write_text(json.dumps(config), encoding="utf-8")
    done = subprocess.run(
        [AMTOOL, "check-config", file], capture_output=True, text=True, timeout=GUARD_SECONDS, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return re.sub(r"\s+", " ", done.stdout)


if __name__ == "__main__":
    try:
        ensure_installed(PACKAGES)
    except LocalClusterError as error:
        sys.exit(f"error: {error}")
