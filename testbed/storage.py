"""Provide the claims and Secrets that the policy names, as an operator does: `python -m testbed.storage POLICY`.

The volumes are static: directories of this machine, so only the local cluster has them. `datasets` holds the samples of
the demo. The group of every job may write to each directory, since Kubernetes changes no owner in a hostPath volume:
https://kubernetes.io/docs/concepts/storage/volumes/#hostpath
"""

from __future__ import annotations

import array
import json
import os
import random
import sys
from collections.abc import Iterable
from pathlib import Path

from localcluster import LocalCluster, paths
from runway.jobs.manifest import GROUP_ID
from runway.policy import load_policy
from testbed.kubectl import Document, Kubectl

DATASETS = "datasets"
SAMPLES = "samples.f32"
"""A file of rows of float32: FEATURES features and a label, their weighted sum."""
FEATURES = 8
ROWS = 4096
SECRET_VALUE = "a-token-of-the-demo"  # noqa: S105 (not secret)  # pragma: allowlist secret
"""The value of key `token` in every Secret."""
BOUND_SECONDS = 180


def provide_storage(kubernetes: Kubectl, policy: Path) -> None:
    """Create each tenant's claims, with volumes, and its Secrets. Its namespace must exist. Raises KubectlFailed."""
    objects: list[Document] = []
    claims: list[tuple[str, str]] = []
    for tenant in load_policy(policy).tenants.values():
        found = sorted({volume.claim for volume in tenant.volumes.values()})
        claims += [(tenant.namespace, claim) for claim in found]
        objects += [item for claim in found for item in bound_claim(tenant.namespace, claim)]
        objects += [_secret(tenant.namespace, name) for name in tenant.secrets]
    if objects:
        kubernetes.apply(json.dumps({"apiVersion": "v1", "kind": "List", "items": objects}))
    for namespace, claim in claims:
        wait_until_bound(kubernetes, namespace, claim)


def wait_until_bound(kubernetes: Kubectl, namespace: str, claim: str) -> None:
    """Wait for a claim. Raises KubectlFailed.

    If the controller manager sees a claim before its volume, it binds them only when it looks again, after 15 s. Pods
    that use the claim wait meanwhile.
    """
    bound = ("--for=jsonpath={.status.phase}=Bound", f"--timeout={BOUND_SECONDS}s")
    kubernetes.run("wait", f"persistentvolumeclaim/{claim}", f"--namespace={namespace}", *bound)


def volume_directory(namespace: str, claim: str) -> Path:
    """Return the directory of this machine that a claim's volume is."""
    return paths.VOLUME_DIR / namespace / claim


def bound_claim(namespace: str, claim: str, *, node_affinity: Document | None = None) -> Iterable[Document]:
    """Make the directory, and return a volume for this claim only, and the claim for this volume only.

    https://kubernetes.io/docs/concepts/storage/persistent-volumes/#reserving-a-persistentvolume
    """
    directory = volume_directory(namespace, claim)
    directory.mkdir(parents=True, exist_ok=True)
    os.chown(directory, 0, GROUP_ID)
    # With the set-group-ID bit, files get the directory's group, so that each user of the group can replace them.
    directory.chmod(0o2775)
    if claim == DATASETS:
        write_samples(directory / SAMPLES)
    common = {"accessModes": ["ReadWriteMany"], "storageClassName": ""}
    volume = {
        **common,
        "capacity": {"storage": "1Gi"},
        "persistentVolumeReclaimPolicy": "Retain",
        "claimRef": {"namespace": namespace, "name": claim},
        "hostPath": {"path": str(directory), "type": "Directory"},
        **({"nodeAffinity": node_affinity} if node_affinity else {}),
    }
    name = f"{namespace}-{claim}"
    request = {**common, "volumeName": name, "resources": {"requests": {"storage": "1Gi"}}}
    yield {"apiVersion": "v1", "kind": "PersistentVolume", "metadata": {"name": name}, "spec": volume}
    claimed = {"name": claim, "namespace": namespace}
    yield {"apiVersion": "v1", "kind": "PersistentVolumeClaim", "metadata": claimed, "spec": request}


def write_samples(file: Path) -> None:
    """Write the same samples each time, unless the file exists."""
    if file.exists():
        return
    random_numbers = random.Random(1)  # noqa: S311 (samples, not a secret)
    rows = array.array("f")
    for _ in range(ROWS):
        features = [random_numbers.gauss(0, 1) for _ in range(FEATURES)]
        rows.extend([*features, sum(weight * value for weight, value in enumerate(features, start=1))])
    file.write_bytes(rows.tobytes())


def _secret(namespace: str, name: str) -> Document:
    metadata = {"name": name, "namespace": namespace}
    return {"apiVersion": "v1", "kind": "Secret", "metadata": metadata, "stringData": {"token": SECRET_VALUE}}


if __name__ == "__main__":
    provide_storage(Kubectl(LocalCluster.default().kubeconfig), Path(sys.argv[1]))
