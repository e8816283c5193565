"""The scenarios that a plain cluster cannot show say what they need, and submit nothing."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from demo.scenario import Scenario, play
from demo.scenarios.admission import BUDGET, GPU_QUOTA, STRANDED_GPUS
from demo.scenarios.reliability import ABSENCE, RESTART
from demo.scenarios.starts import TYPO
from demo.scenarios.training import TRAINING
from runway.api.policy import policy_view
from runway.policy import Policy, load_policy, parse_policy
from testbed.context import Context, Tools
from testbed.http_client import RunwayClient
from testbed.kubectl import Kubectl

CONFIG = Path(__file__).parents[3] / "config"
PLAIN, LOCAL = (load_policy(CONFIG / f"policy.{name}.yaml") for name in ("any-cluster", "local"))


class PolicyOnly(RunwayClient):
    """A Runway that answers questions about its policy only: it is at no address."""

    def __init__(self, policy: Policy) -> None:
        super().__init__("http://127.0.0.1:1")
        self._policy = policy

    def policy(self, tenant: str | None = None) -> dict[str, Any]:
        return policy_view(self._policy, tenant)


class NoCluster(Kubectl):
    """A kubectl without a cluster."""

    def __init__(self) -> None:
        self._command = ["/nonexistent/kubectl"]


def needs(scenario: Scenario, policy: Policy) -> tuple[str | None, str | None]:
    """Return what the scenario needs, and what contradicts it, on a cluster that is not the local one."""
    shown: list[str] = []
    with PolicyOnly(policy) as runway:
        context = Context(Tools(runway, NoCluster(), None), lambda _, text: shown.append(text))
        outcome = play(scenario, context)
    assert shown == []
    return outcome.needs, outcome.missing


GPUS = "a pool with GPUs in the policy, and a quota of {} GPUs or more for tenant vision"


@pytest.mark.parametrize(
    ("scenario", "need"),
    [
        (GPU_QUOTA, GPUS.format(4)),
        (TYPO, GPUS.format(4)),
        (STRANDED_GPUS, GPUS.format(1)),
        (BUDGET, "a budget of tenant research, and pool large without nodes, in the policy"),
        (TRAINING, "the volumes datasets and checkpoints and the Secret huggingface of tenant vision"),
        (RESTART, "a Runway that the demo has started, so that it can kill it"),
        (ABSENCE, "the local cluster, whose API server the demo can freeze"),
    ],
    ids=lambda value: value.title if isinstance(value, Scenario) else "",
)
def test_scenario_says_what_a_plain_cluster_lacks(scenario: Scenario, need: str) -> None:
    assert needs(scenario, PLAIN) == (need, None)


def test_training_needs_an_image_that_another_cluster_can_pull() -> None:
    assert needs(TRAINING, LOCAL) == ("an image with Python and numpy, which DEMO_TRAIN_IMAGE names", None)


def test_stranded_gpus_need_a_bound_for_each_gpu() -> None:
    text = (CONFIG / "policy.local.yaml").read_text(encoding="utf-8")
    unbounded = parse_policy(text.replace("per_gpu: {cpu: 500m, memory: 1Gi}, ", ""))
    assert needs(STRANDED_GPUS, unbounded) == ("pool a10g with `per_gpu` in the policy", None)
