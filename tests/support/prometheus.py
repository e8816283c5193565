"""A private Prometheus that scrapes one Runway, and a record of its alerts."""

from __future__ import annotations

import copy
import json
import re
import shutil
import subprocess
import threading
import time
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx2
import yaml

from testbed.ports import ReservedPort
from testbed.waiting import GUARD_SECONDS, wait_for

Json = dict[str, Any]

SECONDS = {"s": 1, "m": 60, "h": 3600, "d": 86400}
POLL_SECONDS = 0.25
SHORTEST_FOR_SECONDS = 5
"""Five scrapes. On a busy machine one scrape can fail, and no shipped alert fires for a single one."""


def hurried(rules: Json, *, fors: int, windows: int, thresholds: Mapping[str, tuple[str, str]]) -> Json:
    """Return the rules with shorter durations.

    Every `for` is divided by `fors`, to at least SHORTEST_FOR_SECONDS, and every range in an expression by `windows`,
    to at least 1 s, both to whole seconds.
    `thresholds` replaces comparisons, for alerts whose threshold is a waiting time.
    """
    made = copy.deepcopy(rules)
    for rule in (rule for group in made["groups"] for rule in group["rules"]):
        if "for" in rule:
            rule["for"] = _divided(rule["for"], fors, SHORTEST_FOR_SECONDS)
        rule["expr"] = re.sub(r"\[(\w+)\]", lambda found: f"[{_divided(found[1], windows)}]", rule["expr"])
        if rule["alert"] in thresholds:
            before, after = thresholds[rule["alert"]]
            assert rule["expr"].count(before) == 1, f"{rule['alert']} has no {before}"
            rule["expr"] = rule["expr"].replace(before, after)
    return made


class Alarms:
    """Samples the alerts four times a second, and keeps the first sample of each alert and state."""

    def __init__(self, url: str) -> None:
        self._http = httpx2.Client(base_url=url, trust_env=False, timeout=GUARD_SECONDS)
        self._lock = threading.Lock()
        self._seen: dict[tuple[str, str], Json] = {}
        self._now: set[tuple[str, str]] = set()
        self._rounds = 0
        self._stopped = threading.Event()
        self._thread = threading.Thread(target=self._look, name="alarms")

    def __enter__(self) -> Alarms:
        wait_for(self._scraped, "Runway scraped and the rules evaluated")
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stopped.set()
        self._thread.join(20)
        self._http.close()

    def seen(self, alert: str, state: str) -> Json | None:
        """Return the first sample of an alert in this state with its time as `at`, or None."""
        with self._lock:
            return self._seen.get((alert, state))

    def fired(self) -> set[str]:
        """Return all alerts that have been firing."""
        with self._lock:
            return {name for name, state in self._seen if state == "firing"}

    def now(self) -> set[str]:
        """Return the alerts that are firing."""
        with self._lock:
            return {name for name, state in self._now if state == "firing"}

    def until_firing(self, alerts: Iterable[str]) -> None:
        """Wait until each of them has fired."""
        for alert in alerts:
            wait_for(lambda alert=alert: self.seen(alert, "firing"), f"{alert} fires")  # type: ignore[misc]

    def until_quiet(self, alerts: Iterable[str]) -> None:
        """Wait until none of them is firing."""
        wanted = set(alerts)
        wait_for(lambda: True if not wanted & self.now() else None, f"{sorted(wanted)} resolved")

    def watched_for(self, seconds: float) -> None:
        """Sample for at least `seconds`."""
        with self._lock:
            begun = self._rounds
        needed = begun + int(seconds / POLL_SECONDS)
        wait_for(lambda: True if self._rounds >= needed else None, f"{needed - begun} samples", seconds * 3 + 10)

    def _look(self) -> None:
        while not self._stopped.wait(POLL_SECONDS):
            found = self._http.get("/api/v1/alerts").raise_for_status().json()["data"]["alerts"]
            with self._lock:
                self._now = {(alert["labels"]["alertname"], alert["state"]) for alert in found}
                self._rounds += 1
                for alert in found:
                    key = (alert["labels"]["alertname"], alert["state"])
                    self._seen.setdefault(key, alert | {"at": time.monotonic()})

    def _scraped(self) -> bool | None:
        """Return True after the first scrape. Before it, RunwayNoWriter fires."""
        try:
            up = self._http.get("/api/v1/query", params={"query": "up == 1"})
            alerts = self._http.get("/api/v1/alerts")
        except httpx2.TransportError:
            return None
        if not (up.is_success and alerts.is_success and up.json()["data"]["result"]):
            return None
        names = {alert["labels"]["alertname"] for alert in alerts.json()["data"]["alerts"]}
        return "RunwayNoWriter" not in names or None


@contextmanager
def evaluating(rules: Json, target: str, folder: Path) -> Iterator[Alarms]:
    """Run a Prometheus that scrapes the Runway at "host:port" and evaluates the rules, both once a second."""
    binary = shutil.which("prometheus")
    assert binary, "prometheus is not installed: `make cluster-up` installs it"
    (folder / "rules.yaml").write_text(yaml.safe_dump(rules, sort_keys=False))
    config = {
        "global": {"scrape_interval": "1s", "scrape_timeout": "1s", "evaluation_interval": "1s"},
        "rule_files": ["rules.yaml"],
        "scrape_configs": [{"job_name": "runway", "static_configs": [{"targets": [target]}]}],
    }
    (folder / "prometheus.json").write_text(json.dumps(config))
    claim = ReservedPort()
    port = claim.number
    command = [
        binary,
        f"--config.file={folder / 'prometheus.json'}",
        f"--storage.tsdb.path={folder / 'data'}",
        f"--web.listen-address=127.0.0.1:{port}",
        "--log.level=warn",
    ]
    with (folder / "prometheus.log").open("ab") as log:
        process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=log, stderr=subprocess.STDOUT)
    try:
        with Alarms(f"http://127.0.0.1:{port}") as alarms:
            yield alarms
    finally:
        process.terminate()
        try:
            process.wait(10)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait(10)
        claim.release()


def _divided(duration: str, by: int, least: int = 1) -> str:
    found = re.fullmatch(r"(\d+)([smhd])", duration)
    assert found, f"unknown duration: {duration}"
    return f"{max(least, round(int(found[1]) * SECONDS[found[2]] / by))}s"
