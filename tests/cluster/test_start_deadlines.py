"""Jobs that cannot start, on a real kubelet: each cause ends its job at its limit, and frees its GPUs.

The images come from a registry on loopback. Runway runs with short limits.
"""

from __future__ import annotations

import copy
import json
import shutil
import time
import uuid
from collections.abc import Iterator, Mapping
from contextlib import ExitStack
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from pathlib import Path
from typing import Final

import pytest

from localcluster.images import BUSYBOX_IMAGE, ctr, image_layer
from testbed.context import Context, Tools
from testbed.http_client import Document, RunwayClient, document, shell
from testbed.kubectl import Kubectl
from testbed.server import Server
from testbed.tenants import apply_tenants
from testbed.waiting import wait_for
from tests.support.registry import Mode, Registry

pytestmark = pytest.mark.cluster

IMAGE_SECONDS: Final = 12
REGISTRY_SECONDS: Final = 28
CONFIG_SECONDS: Final = 12
UNSCHEDULABLE_SECONDS: Final = 10
TIMEOUT_SECONDS: Final = 300
"""Of each job: far later than every limit, also on a busy machine."""
LIMITS: Final = (
    f"start_timeout_seconds: {{image: {IMAGE_SECONDS}, registry: {REGISTRY_SECONDS}, config: {CONFIG_SECONDS}, "
    f"unschedulable: {UNSCHEDULABLE_SECONDS}}}"
)
GPUS: Final = {"cpu": "100m", "memory": "32Mi", "gpu": 4}


@pytest.fixture(scope="module")
def registry() -> Iterator[Registry]:
    busybox = shutil.which("busybox")
    assert busybox, "busybox is not installed"
    layer = image_layer(Path(busybox).read_bytes(), ["bin/sh", "bin/sleep", "bin/echo"])
    with Registry(layer).serving() as serving:
        yield serving
    for reference in ctr("images", "list", "--quiet").split():
        if reference.startswith(serving.host):
            ctr("images", "rm", reference)


@pytest.fixture(scope="module")
def runway(
    registry: Registry,
    server: Server,
    kubernetes: Kubectl,
    settings: Mapping[str, str],
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[tuple[Server, RunwayClient]]:
    """Stop the shared Runway, and run one with short limits, the registry and a Secret that does not exist."""
    folder = tmp_path_factory.mktemp("starts")
    original, policy = Path(settings["RUNWAY_POLICY"]), folder / "policy.yaml"
    lines = original.read_text(encoding="utf-8").splitlines(keepends=True)
    text = "".join(f"  {LIMITS}\n" if line.startswith("  start_timeout_seconds:") else line for line in lines).replace(
        'allow: ["runway.local/*"', f'allow: ["{registry.host}/*", "runway.local/*"'
    )
    assert text.count(LIMITS) == text.count(registry.host) == 1
    policy.write_text(text, encoding="utf-8")
    server.stop()
    with ExitStack() as running:
        own = running.enter_context(Server(folder / "runway.log", {**settings, "RUNWAY_POLICY": str(policy)}))
        own.start()
        yield own, running.enter_context(RunwayClient(own.url))
    apply_tenants(kubernetes, original)
    server.start()


@pytest.fixture
def starts(runway: tuple[Server, RunwayClient], kubernetes: Kubectl) -> Iterator[Context]:
    own, client = runway
    used = Context(Tools(client, kubernetes, None, own), show=lambda *_: None)
    yield used
    used.cancel_jobs()


def job(script: str = "echo started; sleep 600", **fields: object) -> Document:
    return shell(script, **{"timeout_seconds": TIMEOUT_SECONDS, "grace_period_seconds": 2, **fields})


def fresh() -> str:
    """Return the name of a repository that no node has pulled."""
    return f"team/{uuid.uuid4().hex[:12]}"


def seconds_of(view: Document) -> float:
    """Return the seconds from the acceptance to the final state."""
    created, finished = (datetime.fromisoformat(view[name]) for name in ("created_at", "finished_at"))
    return (finished - created).total_seconds()


def used_gpus(starts: Context) -> int:
    return int(starts.runway.quota("vision")["used"]["gpu"])


CAUSES: Final = {
    "image not found": (Mode.MISSING, "image", IMAGE_SECONDS, "image_not_found"),
    "image access denied": (Mode.DENIED, "image", IMAGE_SECONDS, "image_access_denied"),
    "registry down": (Mode.DOWN, "registry", REGISTRY_SECONDS, "registry_unavailable"),
    "no node": (None, "unschedulable", UNSCHEDULABLE_SECONDS, "unschedulable"),
}


@pytest.fixture(scope="module")
def ended(
    runway: tuple[Server, RunwayClient], kubernetes: Kubectl, registry: Registry
) -> Iterator[dict[str, tuple[Document, datetime]]]:
    """Run a job of each cause at the same time, and return each finished job's view with the time of the read."""
    used = Context(Tools(runway[1], kubernetes, None, runway[0]), show=lambda *_: None)
    specs = {
        name: job(pool="large", resources={"cpu": "8", "memory": "32Mi"})
        if mode is None
        else job(image=registry.image(fresh(), mode))
        for name, (mode, *_) in CAUSES.items()
    }
    try:
        ids = {name: used.submit("vision", spec)["id"] for name, spec in specs.items()}
        yield {name: (used.until_finished(job_id), datetime.now(UTC)) for name, job_id in ids.items()}
    finally:
        used.cancel_jobs()


@pytest.mark.parametrize("name", CAUSES)
def test_job_is_ended_at_the_limit_of_its_cause(name: str, ended: dict[str, tuple[Document, datetime]]) -> None:
    _, limit, seconds, code = CAUSES[name]
    view, read_at = ended[name]
    failure = view["failure"]
    assert (view["state"], failure["code"]) == ("failed", code), failure
    evidence = {key: failure["evidence"][key] for key in ("cause", "limit", "limit_seconds", "job_reason")}
    assert evidence == {
        "cause": code, "limit": limit, "limit_seconds": str(seconds), "job_reason": "DeadlineExceeded"
    }  # fmt: skip
    assert seconds <= seconds_of(view) < TIMEOUT_SECONDS
    # Kubernetes' times are whole seconds, and an attempt ends no later than the read saw it.
    latest = min(read_at, datetime.fromisoformat(view["finished_at"]) + timedelta(seconds=1))
    ends = [datetime.fromisoformat(each["finished_at"]) for each in view["attempts"] if each["finished_at"]]
    assert [end for end in ends if end > latest] == [], view
    assert 0 <= Decimal(view["cost"]["actual"]) <= Decimal(view["cost"]["ceiling"])


def test_missing_secret_is_ended_at_the_limit_of_the_configuration(starts: Context, kubernetes: Kubectl) -> None:
    """A Job with Runway's manifest and a reference that the policy does not offer."""
    view = create_edited(starts, kubernetes, job(), {
        "env": [{"name": "TOKEN", "valueFrom": {"secretKeyRef": {"name": "nosuch", "key": "token"}}}]
    })  # fmt: skip
    view = starts.until_finished(view["id"])
    failure = view["failure"]
    assert (failure["code"], failure["evidence"]["limit"]) == ("container_config_error", "config"), failure
    assert "nosuch" in failure["message"]


def test_typo_in_an_image_frees_its_gpus_for_the_next_job(starts: Context, registry: Registry) -> None:
    typo = starts.submit("vision", job(image=registry.image(fresh(), Mode.MISSING), resources=GPUS))
    assert starts.try_to_submit("vision", job(resources=GPUS)).json()["code"] == "quota_exceeded"
    view = starts.until_finished(typo["id"])
    assert view["failure"]["code"] == "image_not_found"
    assert used_gpus(starts) == 0
    following = starts.submit("vision", job("echo started", resources=GPUS))
    assert starts.until_finished(following["id"])["state"] == "succeeded"


def test_slow_pull_is_not_ended(starts: Context, registry: Registry) -> None:
    view = starts.submit("vision", job("echo started", image=registry.image(fresh(), Mode.HELD)))
    time.sleep(IMAGE_SECONDS + 10)  # Longer than each limit of an image.
    assert starts.runway.job(view["id"])["state"] == "pending"
    registry.release()
    assert starts.until_finished(view["id"])["state"] == "succeeded"


def test_image_that_appears_a_second_before_its_limit(starts: Context, registry: Registry) -> None:
    """The kubelet may or may not pull it in time; the outcome is consistent in both cases."""
    repository = fresh()
    view = starts.submit("vision", job("echo started", image=registry.image(repository, Mode.MISSING), resources=GPUS))
    starts.until(view["id"], lambda seen: bool(seen["conditions"]), "cannot pull its image")
    time.sleep(IMAGE_SECONDS - 1)
    registry.modes[repository] = Mode.PUBLISHED
    view = starts.until_finished(view["id"])
    annotations = starts.job(view)["metadata"]["annotations"]
    if view["state"] == "succeeded":
        assert "runway.internal/start-timeout" not in annotations
        assert view["attempts"][-1]["exit_code"] == 0
    else:
        started = view["attempts"][-1]["started_at"] is not None
        assert view["failure"]["code"] == ("start_timeout" if started else "image_not_found")
        assert view["failure"]["evidence"]["limit"] == "image"
        assert json.loads(annotations["runway.internal/start-timeout"])["cause"] == "image_not_found"
    assert used_gpus(starts) == 0


def test_image_that_appears_in_time_runs(starts: Context, registry: Registry) -> None:
    repository = fresh()
    view = starts.submit("vision", job("echo started", image=registry.image(repository, Mode.DOWN)))
    starts.until(view["id"], lambda seen: bool(seen["conditions"]), "cannot pull its image")
    registry.modes[repository] = Mode.PUBLISHED
    view = starts.until_finished(view["id"])
    assert (view["state"], len(view["attempts"])) == ("succeeded", 1)


def test_own_start_timeout_ends_a_pull(starts: Context, registry: Registry) -> None:
    image = registry.image(fresh(), Mode.DOWN)
    view = starts.submit("vision", job(image=image, start_timeout_seconds=REGISTRY_SECONDS - 2))
    view = starts.until_finished(view["id"])
    failure = view["failure"]
    assert (failure["code"], failure["evidence"]["limit"]) == ("registry_unavailable", "job"), failure


def test_killed_runway_lengthens_the_wait_and_ends_the_job(
    starts: Context, runway: tuple[Server, RunwayClient], registry: Registry
) -> None:
    view = starts.submit("vision", job(image=registry.image(fresh(), Mode.MISSING)))
    starts.until(view["id"], lambda seen: bool(seen["conditions"]), "cannot pull its image")
    time.sleep(IMAGE_SECONDS / 2)
    runway[0].kill()
    killed = time.monotonic()
    runway[0].start()
    view = starts.until_finished(view["id"])
    assert view["failure"]["code"] == "image_not_found"
    assert time.monotonic() - killed >= IMAGE_SECONDS


def test_rejected_pod_is_replaced_without_retries(starts: Context, kubernetes: Kubectl) -> None:
    view = create_edited(starts, kubernetes, job(), {"resources": {"limits": {"cpu": "8", "memory": "32Mi"}}},
                         {"nodeName": "runway-local"})  # fmt: skip
    view = starts.until(view["id"], lambda seen: len(seen["attempts"]) >= 2, "a second attempt")
    assert [attempt["cause"] for attempt in view["attempts"][:1]] == ["admission_rejected"]
    assert view["state"] == "pending"
    assert starts.runway.cancel(view["id"]).status_code == 202
    assert starts.until_finished(view["id"])["state"] == "cancelled"


def test_exit_code_fails_a_job_without_retries_at_once(starts: Context) -> None:
    view = starts.until_finished(starts.submit("vision", job("exit 3"))["id"])
    failure = view["failure"]
    assert (failure["code"], failure["evidence"]["job_reason"]) == ("exit_nonzero", "PodFailurePolicy"), failure
    assert len(view["attempts"]) == 1


def create_edited(
    starts: Context, kubernetes: Kubectl, spec: Document, container: Document, pod: Document | None = None
) -> Document:
    """Create a Job with Runway's manifest and edits that no spec can make; return its view."""
    manifest = copy.deepcopy(document(starts.runway.submit("vision", spec, dry_run=True))["manifest"])
    name = "rw-" + uuid.uuid4().hex[:20].translate(str.maketrans("0189", "abcd"))
    manifest["metadata"]["name"] = name
    template = manifest["spec"]["template"]["spec"]
    template |= pod or {}
    edited = template["containers"][0]
    assert edited["image"] == BUSYBOX_IMAGE
    if "env" in container:
        container = {**container, "env": edited["env"] + container["env"]}
    if "resources" in container:
        container = {"resources": {"requests": container["resources"]["limits"], **container["resources"]}}
    edited |= container
    starts.track(name)
    kubernetes.run("create", "-f", "-", stdin=json.dumps(manifest))
    wait_for(lambda: starts.runway.get(f"/v1/jobs/{name}").status_code == 200 or None, f"{name} known")
    return starts.runway.job(name)
