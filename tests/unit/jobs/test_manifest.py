"""The manifest: golden files (see tests/unit/golden.py) and safety properties."""

from __future__ import annotations

import json
import re
from dataclasses import asdict
from decimal import Decimal
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from runway.admission.validation import validate
from runway.errors import InvalidSpec
from runway.jobs.annotations import ANNOTATION_REQUEST_HASH, ANNOTATION_SPEC, ANNOTATION_SPEC_HASH
from runway.jobs.manifest import INFRASTRUCTURE_RETRIES, Placement, escape_expansion, job_manifest, spec_hash_0_7
from runway.jobs.record import MAX_BYTES as MAX_RECORD_BYTES
from runway.jobs.spec import AdmittedSpec, read_draft
from runway.policy import TenantVolume
from runway.quantity import format_bytes, parse_bytes
from tests.support.builders import COST, JOB, NAMESPACE, document, policy, spec
from tests.support.jobs_0_7 import JOBS, JobOf07
from tests.unit.golden import assert_golden
from tests.unit.strategies import TEXT, specs

POLICY = policy(
    (
        "gpu: 4, gpu_type: a10g",
        """gpu: 4, gpu_type: a10g, node_selector: {karpenter.sh/nodepool: a10g},
        tolerations: [{key: nvidia.com/gpu, operator: Exists, effect: NoSchedule}, {key: team, value: vision}]""",
    ),
    (
        "rate: {per_minute: 600, burst: 100}",
        """rate: {per_minute: 600, burst: 100}
    volumes:
      datasets: {claim: datasets-v2, path: /data, read_only: true}
      checkpoints: {claim: checkpoints, path: /checkpoints}""",
    ),
)
VOLUMES_OF_TENANT = POLICY.tenants["vision"].volumes
MIB = 1 << 20
THREADS = ["OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS", "NUMEXPR_NUM_THREADS", "PYTHON_CPU_COUNT"]
REQUEST_HASH = "0" * 64
LABEL_VALUE = re.compile(r"([A-Za-z0-9]([-A-Za-z0-9_.]{0,61}[A-Za-z0-9])?)?")


def manifest(admitted: AdmittedSpec) -> dict[str, Any]:
    """Return the manifest of a spec in the pool of its GPU type."""
    pool = POLICY.pools[admitted.resources.gpu_type or "cpu"]
    placement = Placement(JOB, "vision", NAMESPACE, REQUEST_HASH, pool, COST, VOLUMES_OF_TENANT)
    return job_manifest(admitted, placement, POLICY.limits)


def pod_spec(admitted: AdmittedSpec) -> dict[str, Any]:
    found: dict[str, Any] = manifest(admitted)["spec"]["template"]["spec"]
    return found


def golden(admitted: AdmittedSpec) -> dict[str, Any]:
    """Return a manifest for a golden file without digests, which a secret scanner reports."""
    rendered = manifest(admitted)
    annotations = rendered["metadata"]["annotations"]
    assert annotations[ANNOTATION_SPEC_HASH] == spec_hash_0_7(admitted)
    assert annotations[ANNOTATION_REQUEST_HASH] == REQUEST_HASH
    annotations[ANNOTATION_SPEC_HASH] = "the hash of the specification in version 0.7"
    annotations[ANNOTATION_REQUEST_HASH] = "the hash of the request"
    return rendered


def test_manifest_of_a_small_cpu_job() -> None:
    assert_golden("job_cpu", golden(spec(command=("true",))))


def test_manifest_of_a_gpu_job_with_all_fields() -> None:
    everything = spec(
        name="train-resnet", image="runway.local/team/train:1.4", command=("python", "train.py"),
        args=("--cost=$5", "$(HOME)", "é"), env=(("EPOCHS", "3"), ("PROMPT", "a\nb $$")), cpu=4000, memory=16 << 30,
        gpu=1, gpu_type="a10g", timeout_seconds=7200, retries=2, grace_period_seconds=60, max_cost_usd=Decimal("12.50"),
        working_dir="/scratch/$(HOME)", user=65532, disk=50 << 30, shared_memory=8 << 30,
        secrets=(("HF_TOKEN", "huggingface/token"),), volumes=("datasets", "checkpoints"),
    )  # fmt: skip
    assert_golden("job_gpu", golden(everything))


ALLOWED_VOLUMES = {
    "name", "configMap", "csi", "downwardAPI", "emptyDir", "ephemeral", "persistentVolumeClaim", "projected", "secret",
}  # fmt: skip


def restricted_faults(pod: dict[str, Any], labels: dict[str, str]) -> list[str]:
    """Return the rules of Pod Security "restricted", version 1.35, that a pod breaks.

    https://kubernetes.io/docs/concepts/security/pod-security-standards/#restricted
    """
    faults = [f"{name} is shared" for name in ("hostNetwork", "hostPID", "hostIPC") if pod.get(name)]
    faults += [f"volume {volume}" for volume in pod.get("volumes", []) if not volume.keys() <= ALLOWED_VOLUMES]
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
def test_every_manifest_satisfies_pod_security_restricted(admitted: AdmittedSpec) -> None:
    template = manifest(admitted)["spec"]["template"]
    assert restricted_faults(template["spec"], template["metadata"]["annotations"]) == []


def test_pod_security_check_detects_violations() -> None:
    """The check itself can fail: a pod with none of the settings breaks most of the rules."""
    volume = {"name": "node", "hostPath": {"path": "/"}}
    container = {"name": "job", "securityContext": {"privileged": True}}
    found = restricted_faults({"hostNetwork": True, "volumes": [volume], "containers": [container]}, {})
    assert {"hostNetwork is shared", "privileged", "privilege escalation", "capabilities", "seccomp"} <= set(found)
    assert f"volume {volume}" in found


@given(specs())
def test_every_manifest_is_bounded_and_grants_no_privileges(admitted: AdmittedSpec) -> None:
    job = manifest(admitted)["spec"]
    pod = job["template"]["spec"]
    (container,) = pod["containers"]
    assert pod["automountServiceAccountToken"] is False
    assert pod["enableServiceLinks"] is False
    assert pod["serviceAccountName"] == "runway-job"
    assert "imagePullSecrets" not in pod
    assert pod["restartPolicy"] == "Never"
    assert pod["terminationGracePeriodSeconds"] == admitted.grace_period_seconds
    assert container["terminationMessagePolicy"] == "FallbackToLogsOnError"
    assert container["resources"]["requests"] == container["resources"]["limits"]
    assert container["resources"]["limits"]["ephemeral-storage"] == format_bytes(admitted.resources.disk)
    assert job["backoffLimit"] == (admitted.retries or INFRASTRUCTURE_RETRIES)
    assert job["activeDeadlineSeconds"] == admitted.timeout_seconds
    # The Job controller acts before the kubelet, whose deadline counts from the start of the pod.
    assert pod["activeDeadlineSeconds"] == admitted.timeout_seconds + admitted.grace_period_seconds + 60
    assert job["ttlSecondsAfterFinished"] == 86_400
    assert job["podReplacementPolicy"] == "Failed"
    assert (job["parallelism"], job["completions"]) == (1, 1)
    actions = [rule["action"] for rule in job["podFailurePolicy"]["rules"]]
    assert actions == (["Ignore"] if admitted.retries else ["Ignore", "FailJob"])


@given(specs())
def test_pod_has_exactly_the_named_volumes_at_the_paths_of_the_policy(admitted: AdmittedSpec) -> None:
    pod = pod_spec(admitted)
    claims = {volume["name"]: volume["persistentVolumeClaim"] for volume in pod["volumes"] if "emptyDir" not in volume}
    mounts = {mount["name"]: mount for mount in pod["containers"][0]["volumeMounts"]}
    assert claims.keys() == {f"claim-{name}" for name in admitted.volumes}
    for name in admitted.volumes:
        volume = VOLUMES_OF_TENANT[name]
        assert claims[f"claim-{name}"] == {"claimName": volume.claim, "readOnly": volume.read_only}
        mounted = mounts.pop(f"claim-{name}")
        assert (mounted["mountPath"], mounted["readOnly"]) == (volume.path, volume.read_only)
    assert mounts.keys() == {"scratch", "shared-memory"}


def test_volumes_of_one_claim_share_one_volume_of_the_pod() -> None:
    """The kubelet may never start a pod with two volumes of one claim."""
    shared = {
        "read": TenantVolume(claim="shared", path="/read", read_only=True),
        "write": TenantVolume(claim="shared", path="/write"),
        "other": TenantVolume(claim="other", path="/other", read_only=True),
    }
    placement = Placement(JOB, "vision", NAMESPACE, REQUEST_HASH, POLICY.pools["cpu"], COST, shared)
    rendered: Any = job_manifest(spec(volumes=("read", "write", "other")), placement, POLICY.limits)
    pod = rendered["spec"]["template"]["spec"]
    claims = {volume["name"]: volume.get("persistentVolumeClaim") for volume in pod["volumes"]}
    assert [claim for claim in claims.values() if claim] == [
        {"claimName": "shared", "readOnly": False},
        {"claimName": "other", "readOnly": True},
    ]
    mounts = {mount["mountPath"]: mount for mount in pod["containers"][0]["volumeMounts"]}
    assert [(claims[mounts[path]["name"]]["claimName"], mounts[path]["readOnly"]) for path in ("/read", "/write")] == [
        ("shared", True),
        ("shared", False),
    ]


@given(specs())
def test_secrets_are_references_and_set_each_variable_once(admitted: AdmittedSpec) -> None:
    env = pod_spec(admitted)["containers"][0]["env"]
    referred = {item["name"]: item["valueFrom"]["secretKeyRef"] for item in env if "valueFrom" in item}
    assert {name: f"{ref['name']}/{ref['key']}" for name, ref in referred.items()} == dict(admitted.secrets)
    assert all(ref.keys() == {"name", "key"} for ref in referred.values())
    assert len({item["name"] for item in env}) == len(env)


def test_variable_from_a_secret_replaces_the_default() -> None:
    env = pod_spec(spec(secrets=(("HOME", "paths/home"), ("OMP_NUM_THREADS", "tuning/threads"))))["containers"][0][
        "env"
    ]
    values = {item["name"]: item.get("value") for item in env}
    assert (values["HOME"], values["OMP_NUM_THREADS"]) == (None, None)
    assert "MKL_NUM_THREADS" not in values


@given(specs())
def test_job_has_scratch_disk_and_shared_memory_of_its_sizes(admitted: AdmittedSpec) -> None:
    pod = pod_spec(admitted)
    volumes = {volume["name"]: volume.get("emptyDir") for volume in pod["volumes"]}
    mounts = {mount["mountPath"]: volumes[mount["name"]] for mount in pod["containers"][0]["volumeMounts"]}
    assert mounts["/scratch"] == {"sizeLimit": format_bytes(admitted.resources.disk)}
    shared = mounts["/dev/shm"]  # noqa: S108
    assert shared["medium"] == "Memory"
    size = parse_bytes(shared["sizeLimit"])
    assert admitted.resources.shared_memory <= size < admitted.resources.shared_memory + MIB
    assert size % MIB == 0, "the kubelet would evict a job that fills the last page"


@given(specs())
def test_every_user_has_the_same_group(admitted: AdmittedSpec) -> None:
    context = pod_spec(admitted)["securityContext"]
    assert context["runAsUser"] == admitted.user
    assert (context["runAsGroup"], context["fsGroup"]) == (1000, 1000)
    assert context["fsGroupChangePolicy"] == "OnRootMismatch"


@given(specs())
def test_main_process_is_not_pid_1(admitted: AdmittedSpec) -> None:
    assert pod_spec(admitted)["shareProcessNamespace"] is True


@given(specs())
def test_working_directory_is_that_of_the_spec_or_the_image(admitted: AdmittedSpec) -> None:
    assert pod_spec(admitted)["containers"][0].get("workingDir") == admitted.working_dir


def environment_of(admitted: AdmittedSpec) -> dict[str, str]:
    return {item["name"]: item["value"] for item in pod_spec(admitted)["containers"][0]["env"]}


def test_job_has_a_home_and_a_user_name() -> None:
    found = environment_of(spec())
    assert (found["HOME"], found["USER"], found["LOGNAME"]) == ("/scratch", "job", "job")


@pytest.mark.parametrize(("cpu", "threads"), [(1, "1"), (999, "1"), (1000, "1"), (1001, "2"), (4000, "4")])
def test_libraries_get_as_many_threads_as_the_job_has_cpus(cpu: int, threads: str) -> None:
    found = environment_of(spec(cpu=cpu))
    assert {name: found[name] for name in THREADS} == dict.fromkeys(THREADS, threads)


def test_numexpr_gets_at_most_as_many_threads_as_it_accepts() -> None:
    """With more, `import numexpr` fails, also if only OMP_NUM_THREADS is larger."""
    found = environment_of(spec(cpu=96_000))
    assert (found["OMP_NUM_THREADS"], found["NUMEXPR_NUM_THREADS"]) == ("96", "64")


@pytest.mark.parametrize("name", ["HOME", "USER", "LOGNAME", *THREADS])
def test_variable_of_the_spec_wins(name: str) -> None:
    assert environment_of(spec(env=((name, "mine"),)))[name] == "mine"


def test_libraries_follow_the_openmp_threads_of_the_spec() -> None:
    """MKL, OpenBLAS and numexpr prefer their own variables, so these must be absent."""
    found = environment_of(spec(cpu=8000, env=(("OMP_NUM_THREADS", "1"),)))
    assert {name for name in found if name.endswith("_NUM_THREADS")} == {"OMP_NUM_THREADS"}
    assert found["PYTHON_CPU_COUNT"] == "8"


@given(specs())
def test_gpus_are_requested_only_by_gpu_jobs(admitted: AdmittedSpec) -> None:
    pod = pod_spec(admitted)
    asked = pod["containers"][0]["resources"]["limits"].get("nvidia.com/gpu")
    assert asked == (str(admitted.resources.gpu) if admitted.resources.gpu else None)
    on_gpu_pool = admitted.resources.gpu_type == "a10g"
    assert ("nodeSelector" in pod) == ("tolerations" in pod) == on_gpu_pool


@given(specs())
def test_only_pods_of_gpu_pools_prefer_nodes_with_pods_of_their_pool(admitted: AdmittedSpec) -> None:
    job = manifest(admitted)
    affinity = job["spec"]["template"]["spec"].get("affinity")
    if not admitted.resources.gpu:
        assert affinity is None
        return
    assert set(affinity) == {"podAffinity"}
    assert set(affinity["podAffinity"]) == {"preferredDuringSchedulingIgnoredDuringExecution"}  # Nothing is required.
    ((preference,)) = affinity["podAffinity"]["preferredDuringSchedulingIgnoredDuringExecution"]
    selected = preference["podAffinityTerm"]["labelSelector"]["matchLabels"]
    assert selected.items() <= job["spec"]["template"]["metadata"]["labels"].items()
    assert preference["podAffinityTerm"]["topologyKey"] == "kubernetes.io/hostname"


@given(specs())
def test_pods_are_protected_from_autoscalers(admitted: AdmittedSpec) -> None:
    assert manifest(admitted)["spec"]["template"]["metadata"]["annotations"] == {
        "cluster-autoscaler.kubernetes.io/safe-to-evict": "false",
        "karpenter.sh/do-not-disrupt": "true",
    }


@given(specs())
def test_labels_are_valid_on_job_and_pod(admitted: AdmittedSpec) -> None:
    job = manifest(admitted)
    labels = job["metadata"]["labels"]
    assert job["spec"]["template"]["metadata"]["labels"] == labels
    assert labels["app.kubernetes.io/managed-by"] == "runway"
    assert labels["runway.internal/job"] == JOB
    assert labels["runway.internal/tenant"] == "vision"
    assert labels["runway.internal/pool"] == admitted.pool
    assert labels.get("runway.internal/name") == admitted.name
    assert all(LABEL_VALUE.fullmatch(value) for value in labels.values())


@given(specs())
def test_manifest_has_all_that_a_restart_needs(admitted: AdmittedSpec) -> None:
    annotations = manifest(admitted)["metadata"]["annotations"]
    assert json.loads(annotations[ANNOTATION_SPEC]) == admitted.to_json()
    assert annotations[ANNOTATION_REQUEST_HASH] == REQUEST_HASH
    assert json.loads(annotations["runway.internal/cost"]) == asdict(COST)


@pytest.mark.parametrize("old", JOBS.values(), ids=lambda old: old.key)
def test_version_0_7_reads_and_recognises_the_job_after_a_roll_back(old: JobOf07) -> None:
    one_gpu_type = policy((", gpu: 8, gpu_type: h100", ""))
    annotations = manifest(validate(read_draft(old.request), one_gpu_type, "vision").spec)["metadata"]["annotations"]
    assert annotations[ANNOTATION_SPEC_HASH] == old.annotations[ANNOTATION_SPEC_HASH]
    stored, stored_0_7 = (json.loads(each[ANNOTATION_SPEC]) for each in (annotations, old.annotations))
    assert stored.keys() >= stored_0_7.keys()
    assert stored["resources"].items() >= stored_0_7["resources"].items()
    assert {name: stored[name] for name in stored_0_7 if name != "resources"} == {
        name: value for name, value in stored_0_7.items() if name != "resources"
    }


def test_annotations_of_the_largest_job_leave_room_for_its_record() -> None:
    texts: dict[str, Any] = {
        "command": ["\x01" * 7000, "\x01" * 6500],
        "args": ["\x01" * 11_900],
        "env": {"A": "\x01" * 10_000},
    }
    largest = validate(
        read_draft(document(name="n" * 63, image=f"ghcr.io/acme/train:{'t' * 128}", **texts)), POLICY, "vision"
    )
    texts["args"].append("\x01" * 100)
    with pytest.raises(InvalidSpec):
        validate(read_draft(document(**texts)), POLICY, "vision")
    annotations = manifest(largest.spec)["metadata"]["annotations"]
    size = sum(len(name) + len(value.encode()) for name, value in annotations.items())
    assert 200 * 1024 < size < 256 * 1024 - MAX_RECORD_BYTES - 16 * 1024


@given(specs(), st.dictionaries(st.sampled_from(["HOME", "EPOCHS", "A"]), TEXT))
def test_process_gets_command_args_and_env_unchanged(admitted: AdmittedSpec, environment: dict[str, str]) -> None:
    container = pod_spec(admitted)["containers"][0]
    assert tuple(expand(part, environment) for part in container.get("command", [])) == admitted.command
    assert tuple(expand(part, environment) for part in container.get("args", [])) == admitted.args
    env = {item["name"]: expand(item["value"], environment) for item in container["env"] if "value" in item}
    assert env.items() >= {*admitted.env, ("RUNWAY_JOB_ID", JOB), ("RUNWAY_TENANT", "vision")}
    assert len(env) + len(admitted.secrets) == len(container["env"])


@given(st.text("$()A ") | TEXT, st.dictionaries(st.sampled_from(["A", "", "A A"]), TEXT))
@example("$$(A)", {"A": "x"})
@example("$($(A))", {"A": "x"})
@example("$", {})
@example("$é", {})
def test_escape_expansion_is_the_inverse_of_kubernetes_expansion(text: str, environment: dict[str, str]) -> None:
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
def test_reference_expansion_equals_that_of_kubernetes(text: str, expanded: str) -> None:
    assert expand(text, {"A": "x"}) == expanded


def expand(text: str, environment: dict[str, str]) -> str:
    """Expand a manifest string as Kubernetes does: `$(A)` if A is known, `$$` to `$`.

    https://kubernetes.io/docs/reference/kubernetes-api/workload-resources/pod-v1/#entrypoint
    """

    def one(match: re.Match[str]) -> str:
        if match[0] == "$$":
            return "$"
        return environment.get(match["name"], match[0])

    return re.sub(r"\$\$|\$\((?P<name>[^)]*)\)", one, text)
