"""Deploy Runway in the local cluster with its image and its chart.

`python -m deploy up | down | image | tools`. Read in this order: `base_image` and `image` (the build and its cache),
`go_tools` and `helm`, `deployment` (up, down, and the deployed Runway for demo and tests).
"""
