"""`python -m demo`: verify claims about Runway on a real Kubernetes.

Read in this order: `scenario` (a claim and its outcome), `testbed.context` (the actions of a scenario), `scenarios/`.
`testbed` has the sources of evidence: Runway, kubectl and the kernel. `recording` collects the evidence, and `page`
renders it as one HTML file. `tests/cluster` runs the same scenarios.
"""
