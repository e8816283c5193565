"""Deploy Runway in the local cluster with its image, manifests and RBAC.

`python -m deploy up | down | image`. Read in this order: `base_image` and `image` (the build and its cache),
`manifests` (rendering), `deployment` (up, down, and the deployed Runway for demo and tests).
"""
