"""Render the manifests of kustomize/ with kubectl."""

from __future__ import annotations

from deploy.image import REPOSITORY
from localcluster import paths
from localcluster.cluster import LocalCluster

NAMESPACE = "runway"
PLACEHOLDER = f"{REPOSITORY}:local"
"""The image of the overlay `local`, a placeholder: the tag is known after the build."""


def render(overlay: str, image: str | None = None) -> str:
    """Return the overlay as a YAML stream, with this image instead of the placeholder.

    The policies are in config/, outside the overlays, so kustomize needs `LoadRestrictionsNone`.
    https://kubectl.docs.kubernetes.io/faq/kustomize/
    """
    folder = paths.this_checkout() / "deploy" / "kustomize" / "overlays" / overlay
    text = LocalCluster.default().kubectl("kustomize", "--load-restrictor=LoadRestrictionsNone", str(folder))
    return text if image is None else text.replace(PLACEHOLDER, image)
