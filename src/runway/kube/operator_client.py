"""Calls of the operator's commands: read any object, apply it, ask for permissions.

They run with the operator's kubeconfig. The server never uses this module.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Mapping
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, TypeVar
from urllib.parse import quote

import msgspec

from runway.errors import AmbiguousOutcome, ConfigurationError, NotFound, Rejected
from runway.kube.client import KubeClient
from runway.kube.kubeconfig import load_access
from runway.kube.transport import AiohttpTransport, Response, Transport

CALL_SECONDS: Final = 10.0
AT_ONCE: Final = 8
"""Concurrent calls of one command."""
FIELD_MANAGER: Final = "runway"
"""The owner of the applied fields. https://kubernetes.io/docs/reference/using-api/server-side-apply/"""

PATHS: Final[Mapping[tuple[str, str], str]] = {
    ("v1", "Namespace"): "/api/v1/namespaces",
    ("v1", "LimitRange"): "/api/v1/namespaces/{namespace}/limitranges",
    ("v1", "PersistentVolumeClaim"): "/api/v1/namespaces/{namespace}/persistentvolumeclaims",
    ("v1", "ResourceQuota"): "/api/v1/namespaces/{namespace}/resourcequotas",
    ("v1", "ServiceAccount"): "/api/v1/namespaces/{namespace}/serviceaccounts",
    ("networking.k8s.io/v1", "NetworkPolicy"): "/apis/networking.k8s.io/v1/namespaces/{namespace}/networkpolicies",
    ("rbac.authorization.k8s.io/v1", "Role"): "/apis/rbac.authorization.k8s.io/v1/namespaces/{namespace}/roles",
    (
        "rbac.authorization.k8s.io/v1",
        "RoleBinding",
    ): "/apis/rbac.authorization.k8s.io/v1/namespaces/{namespace}/rolebindings",
    (
        "admissionregistration.k8s.io/v1",
        "ValidatingAdmissionPolicy",
    ): "/apis/admissionregistration.k8s.io/v1/validatingadmissionpolicies",
    (
        "admissionregistration.k8s.io/v1",
        "ValidatingAdmissionPolicyBinding",
    ): "/apis/admissionregistration.k8s.io/v1/validatingadmissionpolicybindings",
}
"""The collection of each kind that `runway.tenant_manifests` renders, by apiVersion and kind."""

Json = dict[str, Any]
_Item = TypeVar("_Item")
_Result = TypeVar("_Result")


@dataclass(frozen=True, slots=True)
class Permission:
    """One permission: a verb on a resource, in one namespace or in all."""

    verb: str
    resource: str
    group: str = ""
    subresource: str = ""
    namespace: str = ""
    name: str = ""

    @property
    def words(self) -> str:
        """`get pods/log` or `update leases runway-writer`."""
        resource = f"{self.resource}/{self.subresource}" if self.subresource else self.resource
        return f"{self.verb} {resource} {self.name}".rstrip()


class OperatorClient(KubeClient):
    """`KubeClient` with the calls of the operator's commands. Errors are those of `runway.errors`."""

    def __init__(self, transport: Transport, seconds: float = CALL_SECONDS) -> None:
        super().__init__(transport, seconds)

    async def get_object(self, manifest: Mapping[str, Any]) -> Json | None:
        """Get the object that a manifest names; None without one."""
        return await self.get_path(_path(manifest))

    async def get_path(self, path: str) -> Json | None:
        """Get the object at a path of the API; None without one."""
        try:
            return _json(await self._call("get", "objects", path))
        except NotFound:
            return None

    async def apply(self, manifest: Mapping[str, Any], *, dry_run: bool = False) -> None:
        """Create an object, or update the fields that the manifest has. Deletes nothing; a dry run changes nothing.

        `force` takes the fields from other owners, such as an earlier `kubectl apply`.
        https://kubernetes.io/docs/reference/using-api/server-side-apply/#conflicts
        """
        query = {"fieldManager": FIELD_MANAGER, "force": "true"} | ({"dryRun": "All"} if dry_run else {})
        # JSON is YAML, and every version of the API server accepts this type.
        content_type = "application/apply-patch+yaml"
        await self._call("patch", "objects", _path(manifest), query=query, body=manifest, content_type=content_type)

    async def merge(self, path: str, patch: Mapping[str, Any]) -> Json:
        """Apply a merge patch to the object at a path. Raises Conflict if it names a version that has changed."""
        content_type = "application/merge-patch+json"
        return _json(await self._call("patch", "objects", path, body=patch, content_type=content_type))

    async def user_name(self) -> str | None:
        """Return the name under which the API server knows the caller; None if it does not say.

        https://kubernetes.io/docs/reference/access-authn-authz/authentication/#self-subject-review
        """
        body = {"apiVersion": "authentication.k8s.io/v1", "kind": "SelfSubjectReview"}
        path = "/apis/authentication.k8s.io/v1/selfsubjectreviews"
        try:
            answer = _json(await self._call("create", "reviews", path, body=body))
        except (NotFound, Rejected):
            return None
        user = (answer.get("status") or {}).get("userInfo") or {}
        return str(user["username"]) if user.get("username") else None

    async def is_allowed(self, permission: Permission, service_account: tuple[str, str] | None = None) -> bool:
        """Ask whether the caller, or a service account (namespace, name), has a permission.

        https://kubernetes.io/docs/reference/access-authn-authz/authorization/#checking-api-access
        """
        attributes = {
            "verb": permission.verb,
            "group": permission.group,
            "resource": permission.resource,
            "subresource": permission.subresource,
            "namespace": permission.namespace,
            "name": permission.name,
        }
        kind, spec = "SelfSubjectAccessReview", {"resourceAttributes": attributes}
        if service_account is not None:
            namespace, name = service_account
            groups = ["system:serviceaccounts", f"system:serviceaccounts:{namespace}", "system:authenticated"]
            kind = "SubjectAccessReview"
            spec |= {"user": f"system:serviceaccount:{namespace}:{name}", "groups": groups}  # type: ignore[dict-item]
        body = {"apiVersion": "authorization.k8s.io/v1", "kind": kind, "spec": spec}
        path = f"/apis/authorization.k8s.io/v1/{kind.lower()}s"
        answer = _json(await self._call("create", "reviews", path, body=body))
        return (answer.get("status") or {}).get("allowed") is True


@asynccontextmanager
async def connect() -> AsyncIterator[OperatorClient]:
    """Connect as kubectl does: `KUBECONFIG`, else ~/.kube/config, else the pod's service account.

    Raises ConfigurationError.
    """
    kubeconfig = os.environ.get("KUBECONFIG") or _kubeconfig_at_home()
    if kubeconfig is None and not os.environ.get("KUBERNETES_SERVICE_HOST"):
        raise ConfigurationError("no cluster is named: set KUBECONFIG, or create ~/.kube/config")
    transport = AiohttpTransport(load_access(kubeconfig), AT_ONCE)
    try:
        yield OperatorClient(transport)
    finally:
        await transport.close()


async def for_all(items: Iterable[_Item], call: Callable[[_Item], Awaitable[_Result]]) -> list[_Result]:
    """Return the results of `call` for each item in order, `AT_ONCE` calls at a time. Raises the first error."""
    slots = asyncio.Semaphore(AT_ONCE)

    async def one(item: _Item) -> _Result:
        async with slots:
            return await call(item)

    try:
        async with asyncio.TaskGroup() as group:
            tasks = [group.create_task(one(item)) for item in items]
    except BaseExceptionGroup as errors:
        raise errors.exceptions[0] from None
    return [task.result() for task in tasks]


def _kubeconfig_at_home() -> str | None:
    """Return the path of ~/.kube/config; None without one, and where the home directory is unknown or unreadable."""
    with suppress(OSError, RuntimeError):
        path = Path.home() / ".kube" / "config"
        return str(path) if path.exists() else None
    return None


def _path(manifest: Mapping[str, Any]) -> str:
    collection = PATHS[str(manifest["apiVersion"]), str(manifest["kind"])]
    metadata = manifest["metadata"]
    path = collection.format(namespace=quote(str(metadata.get("namespace", "")), safe=""))
    return f"{path}/{quote(str(metadata['name']), safe='')}"


def _json(answer: Response) -> Json:
    try:
        document = msgspec.json.decode(answer.body)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise AmbiguousOutcome(f"the answer of Kubernetes could not be read: {error}") from error
    if not isinstance(document, dict):
        raise AmbiguousOutcome("the answer of Kubernetes is no object")
    return document
