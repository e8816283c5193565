"""The manifest: whole against golden files (tests/unit/golden.py says how to renew them), harmless for every spec."""

from __future__ import annotations

import json
import re
from decimal import Decimal
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from runway.jobs.identity import ANNOTATION_SPEC, ANNOTATION_SPEC_HASH, spec_hash
from runway.jobs.manifest import Placement, escape_expansion, job_manifest
from runway.jobs.spec import JobSpec
from tests.support.builders import COST, JOB, NAMESPACE, policy, spec
from tests.unit.golden import assert_golden
from tests.unit.strategies import TEXT, specs

POLICY = policy(
    (
        "gpu: 4, gpu_type: a10g",
        """gpu: 4, gpu_type: a10g, node_selector: {karpenter.sh/nodepool: a10g},
        tolerations: [{key: nvidia.com/gpu, operator: Exists, effect: NoSchedule}, {key: team, value: vision}]""",
    )
)
LABEL_VALUE = re.compile(r"([A-Za-z0-9]([-A-Za-z0-9_.]{0,61}[A-Za-z0-9])?)?")


def manifest(admitted: JobSpec) -> dict[str, Any]:
    """The manifest of a specification in the pool of its GPU type."""
    pool = POLICY.pools[admitted.resources.gpu_type or "cpu"]
    return job_manifest(admitted, Placement(JOB, "vision", NAMESPACE, pool, COST), POLICY.limits)


def pod_spec(admitted: JobSpec) -> dict[str, Any]:
    found: dict[str, Any] = manifest(admitted)["spec"]["template"]["spec"]
    return found


def golden(admitted: JobSpec) -> dict[str, Any]:
    """The manifest for a golden file, with words in place of the hash: to a secret scanner every digest is a secret."""
    rendered = manifest(admitted)
    assert rendered["metadata"]["annotations"][ANNOTATION_SPEC_HASH] == spec_hash(admitted)
    rendered["metadata"]["annotations"][ANNOTATION_SPEC_HASH] = "the hash of the specification"
    return rendered


def test_the_manifest_of_a_small_cpu_job() -> None:
    assert_golden("job_cpu", golden(spec(command=("true",))))


def test_the_manifest_of_a_gpu_job_with_everything_set() -> None:
    everything = spec(
        name="train-resnet", image="runway.local/team/train:1.4", command=("python", "train.py"),
        args=("--cost=$5", "$(HOME)", "é"), env=(("EPOCHS", "3"), ("PROMPT", "a\nb $$")), cpu=4000, memory=16 << 30,
        gpu=1, gpu_type="a10g", timeout_seconds=7200, retries=2, grace_period_seconds=60, max_cost_usd=Decimal("12.50"),
    )  # fmt: skip
    assert_golden("job_gpu", golden(everything))


def restricted_faults(pod: dict[str, Any], labels: dict[str, str]) -> list[str]:
    """What of Pod Security "restricted", version 1.35, a pod breaks.

    https://kubernetes.io/docs/concepts/security/pod-security-standards/#restricted
    """
    faults = [f"{name} is shared" for name in ("hostNetwork", "hostPID", "hostIPC") if pod.get(name)]
    faults += [f"volume {volume}" for volume in pod.get("volumes", []) if "hostPath" in volume]
    whole = pod.get("securityContext", {})
    if whole.get("sysctls") or whole.get("windowsOptions") or whole.get("seLinuxOptions"):
        faults.append("sysctls, Windows or SELinux options")
    for container in [*pod["containers"], *pod.get("initContainers", []), *pod.get("ephemeralContainers", [])]:
        own = {**whole, **container.get("securityContext", {})}
        capabilities = own.get("capabilities", {})
        broken = {
            "privileged": own.get("privileged", False),
            "privilege escalation": own.get("allowPrivilegeEscalation") is not False,
            "capabilities": capabilities.get("drop") != ["ALL"] or bool(capabilities.get("add")),
            "may run as root": own.get("runAsNonRoot") is not True or own.get("runAsUser") == 0,
            "seccomp": own.get("seccompProfile", {}).get("type") not in ("RuntimeDefault", "Localhost"),
            "procMount": own.get("procMount", "Default") != "Default",
            "host ports": any("hostPort" in port for port in container.get("ports", [])),
        }
        faults += [name for name, is_so in broken.items() if is_so]
    faults += [label for label in labels if label.startswith("container.apparmor.security.beta.kubernetes.io/")]
    return faults


@given(specs())
def test_every_manifest_keeps_pod_security_restricted(admitted: JobSpec) -> None:
    template = manifest(admitted)["spec"]["template"]
    assert restricted_faults(template["spec"], template["metadata"]["annotations"]) == []


def test_the_check_of_pod_security_sees_what_is_broken() -> None:
    """The check itself can fail: a pod with none of the settings breaks most of the rules."""
    bare = {"hostNetwork": True, "containers": [{"name": "job", "securityContext": {"privileged": True}}]}
    found = restricted_faults(bare, {})
    assert {"hostNetwork is shared", "privileged", "privilege escalation", "capabilities", "seccomp"} <= set(found)


@given(specs())
def test_every_manifest_is_bounded_and_trusts_the_job_with_nothing(admitted: JobSpec) -> None:
    job = manifest(admitted)["spec"]
    pod = job["template"]["spec"]
    (container,) = pod["containers"]
    assert pod["automountServiceAccountToken"] is False
    assert pod["enableServiceLinks"] is False
    assert "volumes" not in pod
    assert "serviceAccountName" not in pod
    assert pod["restartPolicy"] == "Never"
    assert pod["terminationGracePeriodSeconds"] == admitted.grace_period_seconds
    assert container["terminationMessagePolicy"] == "FallbackToLogsOnError"
    assert container["resources"]["requests"] == container["resources"]["limits"]
    assert container["resources"]["limits"]["ephemeral-storage"] == "10Gi"
    assert job["backoffLimit"] == admitted.retries
    assert job["activeDeadlineSeconds"] == admitted.timeout_seconds
    assert job["ttlSecondsAfterFinished"] == 86_400
    assert job["podReplacementPolicy"] == "Failed"
    assert (job["parallelism"], job["completions"]) == (1, 1)
    assert [rule["action"] for rule in job["podFailurePolicy"]["rules"]] == ["Ignore"]


@given(specs())
def test_gpus_are_asked_for_exactly_where_the_job_asks(admitted: JobSpec) -> None:
    pod = pod_spec(admitted)
    asked = pod["containers"][0]["resources"]["limits"].get("nvidia.com/gpu")
    assert asked == (str(admitted.resources.gpu) if admitted.resources.gpu else None)
    on_gpu_pool = admitted.resources.gpu_type == "a10g"
    assert ("nodeSelector" in pod) == ("tolerations" in pod) == on_gpu_pool


@given(specs())
def test_no_autoscaler_takes_the_node_away_under_a_job(admitted: JobSpec) -> None:
    assert manifest(admitted)["spec"]["template"]["metadata"]["annotations"] == {
        "cluster-autoscaler.kubernetes.io/safe-to-evict": "false",
        "karpenter.sh/do-not-disrupt": "true",
    }


@given(specs())
def test_labels_are_valid_and_pods_carry_them_too(admitted: JobSpec) -> None:
    job = manifest(admitted)
    labels = job["metadata"]["labels"]
    assert job["spec"]["template"]["metadata"]["labels"] == labels
    assert labels["app.kubernetes.io/managed-by"] == "runway"
    assert labels["runway.internal/job"] == JOB
    assert labels["runway.internal/tenant"] == "vision"
    assert labels.get("runway.internal/name") == admitted.name
    assert all(LABEL_VALUE.fullmatch(value) for value in labels.values())


@given(specs())
def test_a_manifest_carries_all_that_a_restart_needs(admitted: JobSpec) -> None:
    annotations = manifest(admitted)["metadata"]["annotations"]
    assert json.loads(annotations[ANNOTATION_SPEC]) == admitted.to_json()
    assert annotations[ANNOTATION_SPEC_HASH] == spec_hash(admitted)
    assert json.loads(annotations["runway.internal/cost"]) == COST


@given(specs(), st.dictionaries(st.sampled_from(["HOME", "EPOCHS", "A"]), TEXT))
def test_the_process_gets_command_arguments_and_environment_as_submitted(
    admitted: JobSpec, environment: dict[str, str]
) -> None:
    container = pod_spec(admitted)["containers"][0]
    assert tuple(expand(part, environment) for part in container.get("command", [])) == admitted.command
    assert tuple(expand(part, environment) for part in container.get("args", [])) == admitted.args
    env = [(item["name"], expand(item["value"], environment)) for item in container["env"]]
    assert env == [*admitted.env, ("RUNWAY_JOB_ID", JOB), ("RUNWAY_TENANT", "vision")]
    assert len({name for name, _ in env}) == len(env)


@given(st.text("$()A ") | TEXT, st.dictionaries(st.sampled_from(["A", "", "A A"]), TEXT))
@example("$$(A)", {"A": "x"})
@example("$($(A))", {"A": "x"})
@example("$", {})
@example("$é", {})
def test_verbatim_is_the_inverse_of_what_kubernetes_expands(text: str, environment: dict[str, str]) -> None:
    assert expand(escape_expansion(text), environment) == text


@pytest.mark.parametrize(
    ("text", "expanded"),
    [
        ("$(A)", "x"),
        ("a$(A)b", "axb"),
        ("$$(A)", "$(A)"),
        ("$$$(A)", "$x"),
        ("$(B)", "$(B)"),
        ("$(A", "$(A"),
        ("$A", "$A"),
        ("$", "$"),
        ("a$", "a$"),
        ("$$", "$"),
    ],
)
def test_the_reference_expansion_is_that_of_kubernetes(text: str, expanded: str) -> None:
    assert expand(text, {"A": "x"}) == expanded


def expand(text: str, environment: dict[str, str]) -> str:
    """What a process is handed for a string in a manifest: `$(A)` is replaced where A is known, `$$` is one `$`.

    https://kubernetes.io/docs/reference/kubernetes-api/workload-resources/pod-v1/#entrypoint
    """

    def one(match: re.Match[str]) -> str:
        if match[0] == "$$":
            return "$"
        return environment.get(match["name"], match[0])

    return re.sub(r"\$\$|\$\((?P<name>[^)]*)\)", one, text)
