"""The Prometheus operator's CustomResourceDefinitions, pinned by operator/go.sum."""

from __future__ import annotations

import json
import re
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from testbed.kubectl import Kubectl
from testbed.waiting import GUARD_SECONDS
from tests.support.locks import one_at_a_time

MODULE: Final = "github.com/prometheus-operator/prometheus-operator"
FOLDER: Final = Path(__file__).parent / "operator"
KINDS: Final = ("servicemonitors", "prometheusrules")


def definitions() -> list[Path]:
    """Return the files of the CustomResourceDefinitions; Go downloads the source unless it has it.

    https://go.dev/ref/mod#go-mod-download
    """
    pinned = re.search(rf"{re.escape(MODULE)} (v\S+)", (FOLDER / "go.mod").read_text())
    assert pinned, "operator/go.mod names no version"
    done = subprocess.run(
        ["go", "mod", "download", "-json", f"{MODULE}@{pinned[1]}"],
        cwd=FOLDER,
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    source = Path(json.loads(done.stdout)["Dir"], "example", "prometheus-operator-crd")
    return [source / f"monitoring.coreos.com_{kind}.yaml" for kind in KINDS]


@contextmanager
def operator_kinds(kubernetes: Kubectl) -> Iterator[None]:
    """Install the kinds in the API server, and remove them afterwards unless they existed before."""
    with one_at_a_time("operator-kinds"):
        yield from _known(kubernetes)


def _known(kubernetes: Kubectl) -> Iterator[None]:
    names = [f"crd/{kind}.monitoring.coreos.com" for kind in KINDS]
    before = kubernetes.run("get", *names, "--ignore-not-found", "--output=name").split()
    try:
        for path in definitions():
            kubernetes.run("apply", "--server-side", f"--filename={path}")
        kubernetes.run("wait", "--for=condition=Established", *names, f"--timeout={GUARD_SECONDS:.0f}s")
        yield
    finally:
        if not before:
            kubernetes.run("delete", *names, "--ignore-not-found", f"--timeout={GUARD_SECONDS:.0f}s")
