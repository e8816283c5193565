"""Alerts of a Prometheus with a real Runway: silent at rest, firing on faults.

This covers 15 of the alerts. Only promtool tests the others, because they need:

- RunwayExplanationsStale, RunwayEvidenceNotKept: an outage of five real minutes
- RunwaySubmissionsSlow: a slow API server
- RunwayErrorBudgetBurning: days of submissions
- RunwayMemoryHigh, RunwayQuotaMismatch: kube-state-metrics
- RunwayRestarting: a second crash
- RunwayAutoscalerDown, RunwayScaleUpsFailing: a cluster autoscaler
- RunwayServerErrors: a defect in Runway
- RunwayGpuIdle, RunwayGpuHardware, RunwayGpuXid, RunwayGpuMemoryErrors, RunwayGpusNotRegistered: real GPUs
- RunwayGpuMetricsMissing: fires at rest, since the local cluster has no DCGM exporter
- RunwayGpuNodesEmpty: fires at rest, unless other tests use the GPUs
- RunwayStartDeadlinesFailing: patches that fail for five minutes
- RunwayPoolNodesUndersized, RunwayGpusStranded, RunwayNodeCostUncharged: nodes of another size or number
- RunwayUndecodableObjects: a broken object, as in test_hostile_objects.py

The rules are the shipped ones with shorter times, see `RULES`. All tests assert on the one run of `history`.
"""

from __future__ import annotations

import json
import threading
import urllib.parse
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import httpx2
import pytest
import yaml

from deploy.export_rules import rule_file
from testbed.context import Context, Tools
from testbed.http_client import Document, RunwayClient, shell
from testbed.kubectl import Kubectl
from testbed.server import Server
from testbed.storage import bound_claim
from testbed.waiting import GUARD_SECONDS
from tests.support.allowed import once_allowed
from tests.support.prometheus import Alarms, evaluating, hurried
from tests.support.tcp_proxy import TcpProxy

pytestmark = pytest.mark.cluster

RULES = hurried(
    rule_file(),
    fors=180,  # Half an hour is 10 s.
    windows=30,  # Half an hour is a minute; five minutes are 10 s, which is ten scrapes.
    # The thresholds of these alerts are waiting times. All other thresholds are the shipped ones.
    thresholds={"RunwayJobsPendingLong": ("> 1800", "> 30"), "RunwayWatchStale": ("> 120", "> 60")},
)
QUIET_SECONDS = 12.0
"""Longer than the longest `for`, so that a false alert at rest would fire."""

TENANT_ALERTS: dict[str, dict[str, str]] = {
    "RunwayGpuQuotaNearFull": {"tenant": "vision"},
    "RunwayBudgetNearlySpent": {"tenant": "vision"},
    "RunwayGpusHeldByTerminating": {"tenant": "speech"},
    "RunwayJobsPendingLong": {"tenant": "vision"},
    "RunwayRegistryFailing": {"severity": "page"},
    "RunwayJobsFailing": {"category": "infra"},
    "RunwaySubmissionsLimited": {"tenant": "speech"},
    "RunwayCostBurn": {"tenant": "vision"},
}
FAULT_ALERTS: dict[str, dict[str, str]] = {
    "RunwaySubmissionsStopped": {},
    "RunwayResyncDrift": {},
    "RunwayKubernetesErrors": {},
    "RunwaySubmissionsFailing": {},
    "RunwayNoWriter": {},
    "RunwayWatchStale": {},
    "RunwayNotSynced": {},
}
WITHOUT_FOR = {rule["alert"] for group in RULES["groups"] for rule in group["rules"] if "for" not in rule}

SLEEP = "trap 'exit 0' TERM; echo started; sleep 900 & wait"
IGNORE_SIGTERM = "trap '' TERM; echo started; while :; do sleep 1; done"
AT_REST = {"RunwayGpuNodesEmpty", "RunwayGpusStranded", "RunwayGpuMetricsMissing"}
"""The local node has simulated GPUs: no autoscaler removes it without GPU pods, pods of other tests use its two CPUs,
and no exporter measures its GPUs."""
NODES = {"cpu": "1", "memory": "1Gi"}
"""The size of a node in the policy of this test, which the local node exceeds."""
NO_NODES = {"instance_type": "none", "hourly_usd": "1", **NODES, "node_selector": {"runway.local/size": "none"}}
"""A pool without nodes: its jobs wait."""
DEAD_REGISTRY = "127.0.0.1:1/team/train:1"
UNBOUND = "unbound"
"""A volume of tenant vision whose claim has no PersistentVolume."""
BUDGET = {"usd": "1100", "hours": 24}
"""Four GPUs for a week commit more than four fifths of it."""


def gpus(number: int) -> Document:
    return {"cpu": "100m", "memory": "32Mi", "gpu": number}


@dataclass(frozen=True, slots=True)
class History:
    """The alerts that have fired by the end of each phase, all of them, and those that fire after the recovery."""

    at_rest: set[str]
    in_use: set[str]
    alarms: Alarms
    after: set[str]


@dataclass(frozen=True, slots=True)
class Scene:
    """A Runway behind a proxy to the API server, and the Prometheus that scrapes it."""

    runway: Server
    network: TcpProxy
    alarms: Alarms
    context: Context


@pytest.fixture(scope="module")
def history(
    server: Server, kubernetes: Kubectl, settings: Mapping[str, str], tmp_path_factory: pytest.TempPathFactory
) -> Iterator[History]:
    server.stop()
    try:
        with set_up(kubernetes, settings, tmp_path_factory.mktemp("alerts")) as scene:
            scene.alarms.watched_for(QUIET_SECONDS)
            at_rest = scene.alarms.fired()
            running = generate_load(scene)
            in_use = scene.alarms.fired()
            inject_faults(scene, running)
            resolved = {"RunwayWatchStale", "RunwayNotSynced", "RunwayNoWriter"}
            scene.alarms.until_quiet(resolved)
            yield History(at_rest, in_use, scene.alarms, scene.alarms.now())
    finally:
        server.start()


@contextmanager
def set_up(kubernetes: Kubectl, settings: Mapping[str, str], folder: Path) -> Iterator[Scene]:
    config = yaml.safe_load(Path(settings["KUBECONFIG"]).read_text())
    cluster = config["clusters"][0]["cluster"]
    address = urllib.parse.urlsplit(cluster["server"])
    assert address.hostname is not None
    assert address.port is not None
    policy = yaml.safe_load(Path(settings["RUNWAY_POLICY"]).read_text())
    # A week, so that four GPUs can commit more than the 250 USD of the rule.
    policy["limits"]["timeout_seconds"]["max"] = 7 * 86400
    policy["images"]["allow"].append("127.0.0.1:1/*")
    policy["pools"]["a10g"].pop("per_gpu", None)
    vision = policy["tenants"]["vision"]
    vision["budget"] = BUDGET
    vision["volumes"][UNBOUND] = {"claim": UNBOUND, "path": "/unbound"}
    _, claim = bound_claim(vision["namespace"], UNBOUND)
    kubernetes.apply(json.dumps(claim))
    policy["pools"] = {name: pool | NODES for name, pool in policy["pools"].items()} | {"none": NO_NODES}
    (folder / "policy.yaml").write_text(yaml.safe_dump(policy))
    with TcpProxy(address.hostname, address.port) as network:
        cluster["server"] = f"https://127.0.0.1:{network.port}"
        (folder / "kubeconfig").write_text(json.dumps(config))
        (folder / "kubeconfig").chmod(0o600)
        environment = {
            **settings,
            "KUBECONFIG": str(folder / "kubeconfig"),
            "RUNWAY_POLICY": str(folder / "policy.yaml"),
            "RUNWAY_RESYNC_SECONDS": "10",
        }
        with Server(folder / "runway.log", environment) as runway, RunwayClient(runway.url) as api:
            runway.start()
            context = Context(Tools(api, kubernetes, None, runway), show=lambda *_: None)
            try:
                with evaluating(RULES, urllib.parse.urlsplit(runway.url).netloc, folder) as alarms:
                    yield Scene(runway, network, alarms, context)
            finally:
                network.accept()
                runway.stop()
                runway.start()
                context.cancel_jobs()
                kubernetes.run("delete", "pvc", UNBOUND, f"--namespace={vision['namespace']}", "--wait=false")


def generate_load(scene: Scene) -> Document:
    """Have tenants fill their quota, hang, wait, fail, exceed their rate and commit money.

    Returns a job that keeps running.
    """
    context = scene.context
    context.submit("vision", shell(SLEEP, resources=gpus(4), timeout_seconds=7 * 86400))
    stubborn = once_allowed(context, "speech", shell(IGNORE_SIGTERM, resources=gpus(1), grace_period_seconds=60))
    context.submit("vision", shell("true", pool="none", timeout_seconds=600))
    # The alert needs three of them at the same time, also on a node that starts pods slowly.
    for _ in range(3):
        context.submit("vision", shell("true", image=DEAD_REGISTRY, timeout_seconds=600))
    # Failed pulls do not count in RunwayJobsFailing, and unbound volumes do.
    for _ in range(6):
        context.submit("vision", shell("true", volumes=[UNBOUND], timeout_seconds=25))
    running = context.submit("vision", shell(SLEEP, timeout_seconds=600))
    context.until_log(stubborn["id"], "started")
    context.runway.cancel(stubborn["id"])
    # More GPUs than the quota has: each request counts against the tenant's rate, and none creates a job.
    refused = shell("true", resources=gpus(4))
    with submitting(scene.runway, "speech", refused), submitting(scene.runway, "vision", refused):
        scene.alarms.until_firing(TENANT_ALERTS)
    return running


def inject_faults(scene: Scene, running: Document) -> None:
    """Stop submissions, stall the watches, cut off the API server, and restart Runway without it."""
    scene.context.until_log(running["id"], "started")
    pod = scene.context.pod(running)["metadata"]
    assert scene.network.silence() >= 4, "four watches are open"
    # The stalled watches do not report this deletion.
    scene.context.kubernetes.run("delete", "pod", pod["name"], f"--namespace={pod['namespace']}", "--wait=false")
    name, namespace = scene.runway.lease
    stop = ("annotate", "lease", name, f"--namespace={namespace}")
    scene.context.kubernetes.run(*stop, "--overwrite", "runway.internal/submissions-stopped=to see the alert")
    try:
        scene.alarms.until_firing(["RunwayResyncDrift", "RunwaySubmissionsStopped"])
    finally:
        scene.context.kubernetes.run(*stop, "runway.internal/submissions-stopped-")
    scene.alarms.until_quiet(["RunwaySubmissionsStopped"])
    assert scene.network.refuse() > 0
    with submitting(scene.runway, "vision", shell("true")):
        scene.alarms.until_firing(["RunwayKubernetesErrors", "RunwaySubmissionsFailing", "RunwayNoWriter"])
    scene.alarms.until_firing(["RunwayWatchStale"])
    scene.runway.kill()
    scene.runway.launch()
    scene.alarms.until_firing(["RunwayNotSynced"])
    scene.network.accept()


@contextmanager
def submitting(runway: Server, tenant: str, spec: Document) -> Iterator[None]:
    """Submit four times a second, whatever the response. No submission creates a job."""
    stop = threading.Event()
    answers: list[int] = []

    def submit() -> None:
        with httpx2.Client(base_url=runway.url, trust_env=False, timeout=GUARD_SECONDS) as client:
            while not stop.wait(0.25):
                answers.append(client.post("/v1/jobs", json=spec, headers={"X-Tenant-ID": tenant}).status_code)

    client = threading.Thread(target=submit, name="impatient client")
    client.start()
    try:
        yield
    finally:
        stop.set()
        client.join(30)
    assert answers
    assert 201 not in answers


def test_only_the_gpu_node_is_reported_at_rest(history: History) -> None:
    assert history.at_rest <= AT_REST


def test_tenant_load_fires_only_tenant_alerts(history: History) -> None:
    assert history.in_use - AT_REST == set(TENANT_ALERTS)


@pytest.mark.parametrize("alert", [*TENANT_ALERTS, *FAULT_ALERTS])
def test_alert_goes_from_pending_to_firing_with_expected_labels(alert: str, history: History) -> None:
    fired = history.alarms.seen(alert, "firing")
    assert fired is not None
    pending = history.alarms.seen(alert, "pending")
    if alert in WITHOUT_FOR:
        assert pending is None
    else:
        assert pending is not None
        assert pending["at"] < fired["at"]
    labels = TENANT_ALERTS.get(alert, {}) | FAULT_ALERTS.get(alert, {})
    assert labels.items() <= fired["labels"].items()
    assert fired["labels"]["severity"] in {"page", "ticket"}
    assert fired["annotations"]["runbook_url"].endswith(f"#{alert.lower()}")
    # No label of the templates is missing.
    assert "<no value>" not in fired["annotations"]["summary"] + fired["annotations"]["description"]


def test_alerts_resolve_after_recovery(history: History) -> None:
    assert history.after.isdisjoint({"RunwayNoWriter", "RunwayNotSynced", "RunwayWatchStale"})
