"""`/healthz`, `/readyz` and `/metrics`: for the kubelet and Prometheus."""

from __future__ import annotations

from typing import Final

from fastapi import APIRouter, Request
from fastapi.responses import Response
from prometheus_client import CONTENT_TYPE_LATEST, generate_latest

from runway.api.dependencies import app_state, json_response
from runway.api.models import HealthView, ReadyView, UndecodableView
from runway.api.problems import operation_id, responses
from runway.errors import ClusterError, KubernetesUnavailable, NotReady, TooBusy
from runway.fair_share import FairQueue

router = APIRouter(tags=["platform"], generate_unique_id_function=operation_id)

MAX_UNDECODABLE_SHOWN: Final = 20
"""Undecodable objects that `/readyz` names, of each namespace in turn."""
FRESH_SECONDS: Final = 3.0
"""A watch event of this age shows that Kubernetes is in contact."""
PING_SECONDS: Final = 0.8
"""Less than the second that a kubelet waits for a probe."""


@router.get(
    "/healthz",
    response_model=HealthView,
    summary="Is it alive?",
    response_description="Alive",
    responses=responses(NotReady),
)
async def healthz(request: Request) -> Response:
    """Return 200 unless the start or the sync loop has failed: only a restart repairs that."""
    broken = app_state(request).cluster.failure
    if broken:
        raise NotReady(broken)
    return json_response(HealthView("alive"))


@router.get(
    "/readyz",
    response_model=ReadyView,
    summary="Is it ready?",
    response_description="Ready, as the leader or as a reader",
    responses=responses(NotReady, KubernetesUnavailable),
)
async def readyz(request: Request) -> Response:
    """Return 200 after the first lists, while Kubernetes is in contact: by a recent watch event or a request."""
    use = app_state(request)
    cluster = use.cluster
    cluster.require_synced()
    lost = [f"{kind}: {watch.disconnect_reason}" for kind, watch in cluster.watches.items() if watch.disconnect_reason]
    if lost:
        raise KubernetesUnavailable("contact is lost: " + "; ".join(lost))
    if min(cluster.age(watch) for watch in cluster.watches.values()) > FRESH_SECONDS:
        try:
            await use.kubernetes.ping(PING_SECONDS)
        except (ClusterError, TooBusy) as error:
            raise KubernetesUnavailable(f"contact is lost: {error}") from error
    undecodable: FairQueue[tuple[str, str, str, tuple[str, ...]]] = FairQueue()
    for kind, watch in cluster.all_watches.items():
        for (namespace, name), fields in watch.undecodable.items():
            undecodable.put(namespace, (kind, namespace, name, fields))
    reason = use.leadership.stop_reason
    return json_response(
        ReadyView(
            status="ready",
            role="writer" if use.leadership.is_leader else "reader",
            submissions="open" if reason is None else "stopped",
            stop_reason=reason,
            policy_hash=use.policy_hash,
            watch_age_seconds={kind: round(cluster.age(watch), 1) for kind, watch in cluster.watches.items()},
            jobs=len(cluster.store),
            undecodable_objects=sum(len(watch.undecodable) for watch in cluster.all_watches.values()),
            undecodable=[
                UndecodableView(kind, namespace, name, list(fields))
                for kind, namespace, name, fields in undecodable.take_up_to(MAX_UNDECODABLE_SHOWN)
            ],
        )
    )


@router.get(
    "/metrics",
    response_class=Response,
    summary="Read the metrics",
    responses={200: {"description": "All metrics", "content": {"text/plain": {"schema": {"type": "string"}}}}},
)
async def metrics(request: Request) -> Response:
    """Read the metrics in the text format of Prometheus."""
    return Response(generate_latest(app_state(request).metrics.registry), headers={"Content-Type": CONTENT_TYPE_LATEST})
