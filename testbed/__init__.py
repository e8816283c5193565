"""The test bed: drive a Runway and its cluster from tests, demo and bench.

Read in this order: `server` (Runway as a process), `http_client`, `kubectl` and `kernel_log` (the sources of evidence),
`context` (submits jobs and waits for them). It imports neither demo, deploy, bench nor tests.
"""
