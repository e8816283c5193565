"""The environment of a demo for its report, without any path of this machine."""

from __future__ import annotations

import json
import platform

from demo.scenarios.admission import SIMULATED_LABEL
from runway import __version__
from testbed.kubectl import Kubectl, KubectlFailed


def describe_environment(kubernetes: Kubectl, *, deployed: bool, here: bool) -> tuple[list[tuple[str, str]], bool]:
    """Return names with values, and whether GPUs are simulated. `here`: the jobs ran on this machine.

    Raises KubectlFailed.
    """
    server = json.loads(kubernetes.run("version", "--output=json"))["serverVersion"]
    try:
        nodes = kubernetes.select("nodes")
    except KubectlFailed:  # Only administrators may list nodes.
        nodes = []
    ready = f"{len(nodes)} node{'s' if len(nodes) != 1 else ''}"
    kernels = sorted({node["status"]["nodeInfo"]["kernelVersion"] for node in nodes})
    place = "a Deployment with its own service account" if deployed else "a process outside the cluster"
    facts = [
        ("Runway", f"{__version__}, {place}"),
        (
            "Kubernetes",
            f"{server['gitVersion']}, {ready}, context {kubernetes.run('config', 'current-context').strip()}",
        ),
        ("Linux", ", ".join(kernels) + ("" if here else "; log not read (another machine)")),
        ("Python", platform.python_version()),
    ]
    return facts, any(SIMULATED_LABEL in node["metadata"]["labels"] for node in nodes)
