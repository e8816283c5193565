"""Why a job waits, failed or was disrupted. Pure.

Reading order: `codes`; `disruption`, `scheduling` and `container_exit`; `container_start`; `attempts` for each pod;
then `outcome` for the job and `conditions` for the wait.
"""
