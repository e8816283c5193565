"""`python -m demo`: Runway on a real Kubernetes, each claim beside the evidence for it.

Read in this order: `scenario` (what a scenario is and when it counts as seen), `stage` (what a scenario may do), then
`scenarios/` (all of them). `server`, `kubectl` and `kernel` are the tools: Runway as a process of its own, and the two
other witnesses. `recording` takes everything down, and `page` makes a file of it that can be sent to someone.
`tests/cluster` holds Runway to the same scenarios.
"""
