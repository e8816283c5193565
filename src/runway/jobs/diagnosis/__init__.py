"""Why a job waits, failed or was disrupted. Pure."""
