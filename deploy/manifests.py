"""The manifests of kustomize/, as kubectl renders them."""

from __future__ import annotations

from deploy.image import REPOSITORY
from localcluster import paths
from localcluster.cluster import LocalCluster

NAMESPACE = "runway"
PLACEHOLDER = f"{REPOSITORY}:local"
"""The image as the overlay `local` names it: which tag it is to be is known once it is built."""


def render(overlay: str, image: str | None = None) -> str:
    """The overlay as a YAML stream, with this image in place of the local placeholder.

    The policies are in config/, outside of the overlays: kustomize needs `LoadRestrictionsNone` for that.
    https://kubectl.docs.kubernetes.io/faq/kustomize/
    """
    folder = paths.this_checkout() / "deploy" / "kustomize" / "overlays" / overlay
    text = LocalCluster.default().kubectl("kustomize", "--load-restrictor=LoadRestrictionsNone", str(folder))
    return text if image is None else text.replace(PLACEHOLDER, image)
