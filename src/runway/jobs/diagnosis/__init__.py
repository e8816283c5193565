"""Why a job waits, failed or was disrupted. Pure.

Reading order: `codes`; `disruption`, `scheduling` and `container_exit`; `container_start`; `attempt_failure`; then
`outcome` for the job, `attempts` for each pod and `conditions` for the wait.
"""
