"""The alerts in a Prometheus that scrapes a real Runway: silent while all is well, and firing when it is not.

Thirteen of the nineteen. Not made here, and tested by promtool alone: RunwayExplanationsStale and RunwayEvidenceNotKept
(five real minutes of outage), RunwaySubmissionsSlow (an API server that is slow and answers), RunwayServerErrors (a
defect of Runway's own), RunwayGpuIdle (real GPUs), RunwayUndecodableObjects (test_hostile_objects.py makes the object).

The rules are those that are shipped, but for their patience: see `RULES`. One story is what every test looks at.
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
from tests.support.allowed import once_allowed
from tests.support.prometheus import Alarms, evaluating, hurried
from tests.support.tcp_proxy import TcpProxy

pytestmark = pytest.mark.cluster

RULES = hurried(
    rule_file(),
    fors=180,  # Half an hour is 10 s.
    windows=30,  # Half an hour is a minute; five minutes are 10 s, which is ten scrapes.
    # Waiting for half an hour is what this alert is about. All other thresholds are as they are shipped.
    thresholds={"RunwayJobsPendingLong": ("> 1800", "> 10")},
)
QUIET_SECONDS = 12.0
"""Longer than the longest `for`, so that what is wrong in a system at rest would have fired."""

ON_TENANTS: dict[str, dict[str, str]] = {
    "RunwayGpuQuotaNearFull": {"tenant": "vision"},
    "RunwayGpusHeldByTerminating": {"tenant": "speech"},
    "RunwayJobsPendingLong": {"tenant": "vision"},
    "RunwayJobsFailing": {"category": "infra"},
    "RunwaySubmissionsLimited": {"tenant": "speech"},
    "RunwayCostBurn": {"tenant": "vision"},
}
ON_FAULTS: dict[str, dict[str, str]] = {
    "RunwaySubmissionsStopped": {},
    "RunwayResyncDrift": {},
    "RunwayKubernetesErrors": {},
    "RunwaySubmissionsFailing": {},
    "RunwayNoWriter": {},
    "RunwayWatchStale": {},
    "RunwayNotSynced": {},
}
WITHOUT_FOR = {rule["alert"] for group in RULES["groups"] for rule in group["rules"] if "for" not in rule}

STAY = "trap 'exit 0' TERM; echo started; sleep 900 & wait"
STUBBORN = "trap '' TERM; echo started; while :; do sleep 1; done"
TOO_LARGE = {"cpu": "3", "memory": "32Mi"}
"""For the local node, which has two CPUs."""


def gpus(number: int) -> Document:
    return {"cpu": "100m", "memory": "32Mi", "gpu": number}


@dataclass(frozen=True, slots=True)
class Story:
    """What was seen: alerts by the end of each part, and all of them."""

    at_rest: set[str]
    in_use: set[str]
    alarms: Alarms
    after: set[str]


@dataclass(frozen=True, slots=True)
class Scene:
    """A Runway whose way to the API server can be broken, and the Prometheus that scrapes it."""

    runway: Server
    network: TcpProxy
    alarms: Alarms
    context: Context


@pytest.fixture(scope="module")
def story(
    server: Server, kubernetes: Kubectl, settings: Mapping[str, str], tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Story]:
    server.stop()
    try:
        with set_up(kubernetes, settings, tmp_path_factory.mktemp("alerts")) as scene:
            scene.alarms.watched_for(QUIET_SECONDS)
            at_rest = scene.alarms.names()
            running = use(scene)
            in_use = scene.alarms.names()
            break_it(scene, running)
            mended = {"RunwayWatchStale", "RunwayNotSynced", "RunwayNoWriter"}
            scene.alarms.until_quiet(mended, 20)
            yield Story(at_rest, in_use, scene.alarms, scene.alarms.now())
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


def use(scene: Scene) -> Document:
    """Tenants fill their quota, hang, wait, fail, submit too fast and commit money. Returns a job that runs on."""
    context = scene.context
    context.submit("vision", shell(STAY, resources=gpus(4), timeout_seconds=7 * 86400))
    stubborn = once_allowed(context, "speech", shell(STUBBORN, resources=gpus(1), grace_period_seconds=60))
    context.submit("vision", shell("true", resources=TOO_LARGE, timeout_seconds=600))
    for _ in range(6):
        context.submit("vision", shell("true", resources=TOO_LARGE, timeout_seconds=5))
    running = context.submit("vision", shell(STAY, timeout_seconds=600))
    context.until_log(stubborn["id"], "started")
    context.runway.cancel(stubborn["id"])
    # More GPUs than the quota has: each takes a place in the tenant's rate, and none makes a job.
    with submitting(scene.runway, "speech", shell("true", resources=gpus(4))):
        scene.alarms.until_firing(ON_TENANTS, 40)
    return running


def break_it(scene: Scene, running: Document) -> None:
    """Submissions are stopped, and the watches die silently; Kubernetes cannot be reached; Runway starts without it."""
    scene.context.until_log(running["id"], "started")
    pod = scene.context.pod(running)["metadata"]
    assert scene.network.silence() >= 4, "four watches are open"
    # Its end is told to nobody who still listens.
    scene.context.kubernetes.run("delete", "pod", pod["name"], f"--namespace={pod['namespace']}", "--wait=false")
    name, namespace = scene.runway.lease
    stop = ("annotate", "lease", name, f"--namespace={namespace}")
    scene.context.kubernetes.run(*stop, "--overwrite", "runway.internal/submissions-stopped=to see the alert")
    try:
        scene.alarms.until_firing(["RunwayResyncDrift", "RunwaySubmissionsStopped"], 60)
    finally:
        scene.context.kubernetes.run(*stop, "runway.internal/submissions-stopped-")
    scene.alarms.until_quiet(["RunwaySubmissionsStopped"], 20)
    assert scene.network.refuse() > 0
    with submitting(scene.runway, "vision", shell("true")):
        scene.alarms.until_firing(["RunwayKubernetesErrors", "RunwaySubmissionsFailing", "RunwayNoWriter"], 40)
    scene.alarms.until_firing(["RunwayWatchStale"], 130)
    scene.runway.kill()
    scene.runway.launch()
    scene.alarms.until_firing(["RunwayNotSynced"], 20)
    scene.network.accept()


@contextmanager
def submitting(runway: Server, tenant: str, spec: Document) -> Iterator[None]:
    """A client that submits four times a second, whatever it is told. It makes no job here."""
    over = threading.Event()
    answers: list[int] = []

    def submit() -> None:
        with httpx2.Client(base_url=runway.url, trust_env=False, timeout=20) as client:
            while not over.wait(0.25):
                answers.append(client.post("/v1/jobs", json=spec, headers={"X-Tenant-ID": tenant}).status_code)

    client = threading.Thread(target=submit, name="impatient client")
    client.start()
    try:
        yield
    finally:
        over.set()
        client.join(30)
    assert answers
    assert 201 not in answers


def test_at_rest_no_alert_is_even_pending(story: Story) -> None:
    assert story.at_rest == set()


def test_in_use_the_tenants_alerts_fire_and_none_on_runway_itself(story: Story) -> None:
    assert story.in_use == set(ON_TENANTS)


@pytest.mark.parametrize("alert", [*ON_TENANTS, *ON_FAULTS])
def test_an_alert_is_pending_then_fires_and_says_for_whom(alert: str, story: Story) -> None:
    fired = story.alarms.seen(alert, "firing")
    assert fired is not None
    pending = story.alarms.seen(alert, "pending")
    if alert in WITHOUT_FOR:
        assert pending is None
    else:
        assert pending is not None
        assert pending["at"] < fired["at"]
    labels = ON_TENANTS.get(alert, {}) | ON_FAULTS.get(alert, {})
    assert labels.items() <= fired["labels"].items()
    assert fired["labels"]["severity"] in {"page", "ticket"}
    assert fired["annotations"]["runbook_url"].endswith(f"#{alert.lower()}")
    # Templates are filled in: no label of the summary was missing.
    assert "<no value>" not in fired["annotations"]["summary"] + fired["annotations"]["description"]


def test_when_it_works_again_they_end(story: Story) -> None:
    assert story.after.isdisjoint({"RunwayNoWriter", "RunwayNotSynced", "RunwayWatchStale"})
