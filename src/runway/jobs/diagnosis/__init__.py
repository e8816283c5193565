"""Why an attempt or a job does not start, was disrupted or failed. Pure.

Reading order: `codes`; `disruption` and `container_exit`; `references` and `container_start`; `attempts` for each pod;
then `outcome` for the job, and `log_hints` for hints from the end of its log.
"""
