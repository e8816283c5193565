"""`runway stop` and `runway resume` against an API server."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from runway.controllers.leadership import ANNOTATION_SUBMISSIONS_STOPPED
from runway.emergency_stop import ANNOTATION_STOPPED_BY, MAX_CONFLICTS
from tests.support.cli import runway
from tests.support.fake_api_server import FakeApiServer, fake_api_server, kubeconfig

Json = dict[str, Any]

REASON = "GPU driver rollout, back at 15:00"


def path(namespace: str) -> str:
    return f"/apis/coordination.k8s.io/v1/namespaces/{namespace}/leases/runway-writer"


def lease(namespace: str, **annotations: str) -> Json:
    return {
        "metadata": {
            "name": "runway-writer",
            "namespace": namespace,
            "resourceVersion": "7",
            "annotations": {"other.example/note": "kept"} | annotations,
        },
        "spec": {"holderIdentity": "runway-5d4f"},
    }


def annotations_of(cluster: FakeApiServer, namespace: str = "runway") -> Json:
    return dict(cluster.objects[path(namespace)]["metadata"]["annotations"])


@pytest.fixture
def cluster(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[FakeApiServer]:
    """A cluster with a Runway in namespace runway, and the kubeconfig of an operator."""
    with fake_api_server(tmp_path) as (fake, file):
        fake.objects[path("runway")] = lease("runway")
        monkeypatch.setenv("KUBECONFIG", str(file))
        monkeypatch.delenv("RUNWAY_LEASE_NAMESPACE", raising=False)
        yield fake


def test_stop_sets_the_reason_and_shows_who_and_when(cluster: FakeApiServer) -> None:
    result = runway("stop", REASON)
    assert result.exit_code == 0
    assert result.stdout == (
        f'Submissions are stopped by ada since 2026-11-24T08:10:00Z: "{REASON}" (Lease runway/runway-writer, held by '
        "runway-5d4f).\n"
    )
    found = annotations_of(cluster)
    assert found[ANNOTATION_SUBMISSIONS_STOPPED] == REASON
    assert found["other.example/note"] == "kept"
    assert runway("stop", "--show").stdout == result.stdout


def test_stop_of_a_user_whom_the_api_server_does_not_name(cluster: FakeApiServer) -> None:
    cluster.user = None
    assert "stopped by an unknown user since 2026" in runway("stop", REASON).stdout


def test_another_reason_stays_without_replace(cluster: FakeApiServer) -> None:
    runway("stop", REASON)
    result = runway("stop", "the registry is down")
    assert result.exit_code == 1
    assert result.stdout == ""
    assert f'stopped by ada since 2026-11-24T08:10:00Z: "{REASON}"' in result.stderr
    assert annotations_of(cluster)[ANNOTATION_SUBMISSIONS_STOPPED] == REASON
    assert runway("stop", "the registry is down", "--replace").exit_code == 0
    assert annotations_of(cluster)[ANNOTATION_SUBMISSIONS_STOPPED] == "the registry is down"


def test_same_reason_again_changes_nothing(cluster: FakeApiServer) -> None:
    runway("stop", REASON)
    before = annotations_of(cluster)
    cluster.user = "bob"
    for options in ([], ["--replace"]):
        result = runway("stop", REASON, *options)
        assert (result.exit_code, annotations_of(cluster)) == (0, before)
        assert "stopped by ada" in result.stdout


def test_stop_by_kubectl_has_no_author(cluster: FakeApiServer) -> None:
    """kubectl changes only the reason, so the author of an earlier one does not count."""
    runway("stop", REASON)
    cluster.objects[path("runway")]["metadata"]["annotations"][ANNOTATION_SUBMISSIONS_STOPPED] = "by\nhand"
    assert 'by an unknown user since an unknown time: "by hand"' in runway("stop", "--show").stdout


@pytest.mark.parametrize("text", ["", "{", "[]", '{"reason": "by hand", "by": 1, "at": []}', "[" * 100_000])
def test_author_that_cannot_be_read_is_unknown(cluster: FakeApiServer, text: str) -> None:
    stopped = {ANNOTATION_SUBMISSIONS_STOPPED: "by hand", ANNOTATION_STOPPED_BY: text}
    cluster.objects[path("runway")] = lease("runway", **stopped)
    assert "by an unknown user since an unknown time" in runway("stop", "--show").stdout


def test_resume_ends_the_stop_and_shows_it(cluster: FakeApiServer) -> None:
    runway("stop", REASON)
    result = runway("resume")
    assert result.exit_code == 0
    assert result.stdout.startswith(f'Ended: Submissions are stopped by ada since 2026-11-24T08:10:00Z: "{REASON}"')
    assert annotations_of(cluster) == {"other.example/note": "kept"}
    assert runway("resume").stdout == "Submissions are open (Lease runway/runway-writer, held by runway-5d4f).\n"
    assert json.loads(runway("stop", "--show", "-o", "json").stdout) == {
        "namespace": "runway", "holder": "runway-5d4f", "stop": None, "submissions": "open"
    }  # fmt: skip


def test_renewed_lease_does_not_lose_the_stop(cluster: FakeApiServer) -> None:
    cluster.conflicts = MAX_CONFLICTS - 1
    assert runway("stop", REASON).exit_code == 0
    assert annotations_of(cluster)[ANNOTATION_SUBMISSIONS_STOPPED] == REASON
    cluster.conflicts = MAX_CONFLICTS
    result = runway("resume")
    assert result.exit_code == 69
    assert f"changed {MAX_CONFLICTS} times meanwhile" in result.stderr


def test_lease_of_make_serve_is_found(cluster: FakeApiServer) -> None:
    cluster.objects[path("default")] = lease("default") | {"spec": {}}
    del cluster.objects[path("runway")]
    result = runway("stop", REASON)
    assert "(Lease default/runway-writer, which no Runway holds now)" in result.stdout
    assert result.stderr == "warning: no Runway holds this Lease: check --lease-namespace\n"


def test_two_leases_need_a_choice(cluster: FakeApiServer) -> None:
    cluster.objects[path("default")] = lease("default")
    result = runway("stop", REASON)
    assert result.exit_code == 1
    assert "namespaces runway and default each have a Lease" in result.stderr
    assert runway("stop", REASON, "--lease-namespace", "default").exit_code == 0
    assert ANNOTATION_SUBMISSIONS_STOPPED not in annotations_of(cluster)


def test_missing_lease_names_the_namespaces(cluster: FakeApiServer) -> None:
    cluster.objects.clear()
    result = runway("resume")
    assert result.exit_code == 1
    assert "no Lease runway-writer in runway and default" in result.stderr
    assert "--lease-namespace" in result.stderr


def test_role_of_one_namespace_is_enough(cluster: FakeApiServer) -> None:
    cluster.forbidden = ("/apis/coordination.k8s.io/v1/namespaces/default",)
    assert runway("stop", REASON).exit_code == 0
    for forbidden in ("/apis/coordination", path("runway")):
        cluster.forbidden = (forbidden,)
        result = runway("stop", REASON)
        assert result.exit_code == 1
        assert "forbidden: GET" in result.stderr


def test_operator_without_a_kubeconfig_learns_what_to_set(tmp_path: Path) -> None:
    nowhere = {"KUBECONFIG": None, "KUBERNETES_SERVICE_HOST": None, "HOME": str(tmp_path)}
    result = runway("stop", REASON, variables=nowhere)
    assert (result.exit_code, result.stdout) == (2, "")
    assert result.stderr == "Error: no cluster is named: set KUBECONFIG, or create ~/.kube/config\n"


def test_unreachable_api_server_is_an_outage(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("KUBECONFIG", str(kubeconfig(tmp_path, "http://127.0.0.1:1")))
    result = runway("stop", REASON)
    assert result.exit_code == 69
    assert "runway stop --show" in result.stderr


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "Give either a reason"),
        (["--show", REASON], "Give either a reason"),
        ([""], "two words or more"),
        (["rw-agkyxsiunucc5lqpeogd"], "to end a job, use `runway cancel JOB`"),
        (["a " * 201], "402 characters; at most 400"),
        (["a\nb c"], "one line of printable text"),
        (["a \x1b[31mb"], "one line of printable text"),
    ],
)
def test_stop_without_a_usable_reason_is_refused(cluster: FakeApiServer, arguments: list[str], message: str) -> None:
    result = runway("stop", *arguments)
    assert result.exit_code == 2
    assert message in " ".join(result.stderr.split())
    assert ANNOTATION_SUBMISSIONS_STOPPED not in annotations_of(cluster)
