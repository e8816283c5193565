"""Set, end and show the emergency stop with the operator's kubeconfig: `runway stop` and `runway resume`.

The stop is an annotation of Runway's Lease (`runway.controllers.leadership`). A second annotation says who set it and
when. It counts only beside the reason that it names, since kubectl can change the reason alone.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Final, TypeVar
from urllib.parse import quote

from runway.controllers.leadership import ANNOTATION_SUBMISSIONS_STOPPED, LEASE_NAME
from runway.errors import Conflict, NotFound, Rejected
from runway.kube.operator_client import Json, OperatorClient, connect
from runway.text import one_line

ANNOTATION_STOPPED_BY: Final = "runway.internal/submissions-stopped-by"
"""JSON with `reason`, `by` and `at`."""
NAMESPACES: Final = ("runway", "default")
"""Where the Lease is searched: the namespace of the chart, and that of `make serve`."""
MAX_CONFLICTS: Final = 5
"""Runway renews the Lease every 3 s, so a few attempts are enough."""

_Outcome = TypeVar("_Outcome")


@dataclass(frozen=True, slots=True)
class Stop:
    """A stop in force. `by` and `at` are None if kubectl set the reason."""

    reason: str
    by: str | None = None
    at: str | None = None


@dataclass(frozen=True, slots=True)
class State:
    """The Lease's namespace, the Runway that holds it, and the stop; None without one."""

    namespace: str
    holder: str | None
    stop: Stop | None

    @property
    def lease(self) -> str:
        return f"{self.namespace}/{LEASE_NAME}"


@dataclass(frozen=True, slots=True)
class Result:
    """The states before and after a command."""

    before: State
    after: State

    @property
    def is_refused(self) -> bool:
        """Whether another stop is in force, which only `replace` overwrites."""
        return self.before.stop is not None and self.after == self.before


def show(namespace: str | None) -> State:
    """Read the state. Raises ConfigurationError and ClusterError."""

    async def read(client: OperatorClient) -> State:
        return _state(await _find(client, namespace))

    return _run(read)


def stop(reason: str, namespace: str | None, *, replace: bool, now: Callable[[], datetime]) -> Result:
    """Stop all submissions. Another reason in force stays, unless `replace`. Raises as `show` does."""

    async def change(client: OperatorClient) -> Result:
        lease = await _find(client, namespace)
        by = await client.user_name()
        at = now().astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
        about = json.dumps({"reason": reason, "by": by, "at": at})
        annotations = {ANNOTATION_SUBMISSIONS_STOPPED: reason, ANNOTATION_STOPPED_BY: about}

        def may_change(state: State) -> bool:
            return state.stop is None or (replace and state.stop.reason != reason)

        return await _annotate(client, lease, annotations, may_change)

    return _run(change)


def resume(namespace: str | None) -> Result:
    """End the stop, if there is one. Raises as `show` does."""

    async def change(client: OperatorClient) -> Result:
        annotations = {ANNOTATION_SUBMISSIONS_STOPPED: None, ANNOTATION_STOPPED_BY: None}
        return await _annotate(
            client, await _find(client, namespace), annotations, lambda state: state.stop is not None
        )

    return _run(change)


def _run(action: Callable[[OperatorClient], Awaitable[_Outcome]]) -> _Outcome:
    async def connected() -> _Outcome:
        async with connect() as client:
            return await action(client)

    return asyncio.run(connected())


async def _find(client: OperatorClient, namespace: str | None) -> Json:
    """Return the only Lease of a Runway. Raises NotFound, and Rejected if two namespaces have one."""
    searched = (namespace,) if namespace else NAMESPACES
    found: list[Json] = []
    forbidden: list[Rejected] = []
    for each in searched:
        try:
            lease = await client.get_path(_path(each))
        except Rejected as error:
            forbidden.append(error)  # A role may cover only the namespace of Runway.
            continue
        found += [] if lease is None else [lease]
    if len(found) == 1:
        return found[0]
    if found:
        raise Rejected(f"the namespaces {_names(searched)} each have a Lease {LEASE_NAME}: choose one of them")
    if forbidden:
        raise forbidden[0]
    raise NotFound(f"there is no Lease {LEASE_NAME} in {_names(searched)}, so no Runway has run there")


async def _annotate(
    client: OperatorClient,
    lease: Json,
    annotations: Mapping[str, str | None],
    may_change: Callable[[State], bool],
) -> Result:
    """Change annotations of the version of the Lease that was judged, so that no other change is lost."""
    before = _state(lease)
    path = _path(before.namespace)
    for _ in range(MAX_CONFLICTS):
        if not may_change(before):
            return Result(before, before)
        metadata = {"resourceVersion": lease["metadata"]["resourceVersion"], "annotations": annotations}
        try:
            return Result(before, _state(await client.merge(path, {"metadata": metadata})))
        except Conflict:
            lease = await _find(client, before.namespace)
            before = _state(lease)
    raise Conflict(f"the Lease changed {MAX_CONFLICTS} times meanwhile")


def _state(lease: Json) -> State:
    metadata = lease.get("metadata") or {}
    annotations = metadata.get("annotations") or {}
    reason = annotations.get(ANNOTATION_SUBMISSIONS_STOPPED)
    stop = None if reason is None else Stop(reason, *_author(annotations.get(ANNOTATION_STOPPED_BY), reason))
    return State(metadata.get("namespace", ""), (lease.get("spec") or {}).get("holderIdentity") or None, stop)


def _author(text: str | None, reason: str) -> tuple[str | None, str | None]:
    """Return who set this reason, and when; None for another reason and for text that is not Runway's."""
    try:
        about = json.loads(text or "")
    except (ValueError, RecursionError):
        return None, None
    if not isinstance(about, dict) or about.get("reason") != reason:
        return None, None
    by, at = (one_line(value) if isinstance(value := about.get(name), str) else None for name in ("by", "at"))
    return by, at


def _path(namespace: str) -> str:
    return f"/apis/coordination.k8s.io/v1/namespaces/{quote(namespace, safe='')}/leases/{LEASE_NAME}"


def _names(namespaces: Sequence[str]) -> str:
    return " and ".join(namespaces)
