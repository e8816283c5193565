"""Runway in the local cluster, as it is deployed for real: the image, the manifests of kustomize/, and its own RBAC.

`python -m deploy up | down | image`. Read in this order: `base_image` and `image` (what is built, and what is kept for
next time), `manifests` (what is applied), `deployment` (up, down, and the deployed Runway for demo and tests).
"""
