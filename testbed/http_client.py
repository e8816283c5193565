"""An HTTP client for one Runway, and the specs of the jobs that it submits."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from typing import Any, Self

import httpx2

from testbed.waiting import GUARD_SECONDS

Document = dict[str, Any]

IMAGE = os.environ.get("DEMO_IMAGE", "runway.local/busybox:1")
"""A busybox image that the nodes have or can pull; by default the image of the local cluster."""
FINISHED = ("succeeded", "failed", "cancelled")
"""The final states of a job."""


JOB_SECONDS = 600
"""The timeout of a job that does not run into it, with its wait for a start on a busy machine."""


def shell(script: str, **fields: object) -> Document:
    """Return the spec of a small job that runs this shell script; `fields` replace the defaults."""
    spec: Document = {
        "image": IMAGE,
        "command": ["sh", "-c", script],
        "resources": {"cpu": "100m", "memory": "32Mi"},
        "timeout_seconds": JOB_SECONDS,
        "grace_period_seconds": 5,
    }
    return spec | fields


class RunwayClient:
    """Call one Runway. Every status is returned as a response; a missing response raises httpx2.HTTPError."""

    def __init__(self, url: str) -> None:
        # A server on this machine needs no proxy from the environment.
        self._http = httpx2.Client(base_url=url, timeout=GUARD_SECONDS, trust_env=False)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._http.close()

    def submit(self, tenant: str, spec: object, *, key: str | None = None, dry_run: bool = False) -> httpx2.Response:
        headers = {"X-Tenant-ID": tenant} | ({"Idempotency-Key": key} if key else {})
        query = {"dry_run": "true"} if dry_run else {}
        return self._http.post("/v1/jobs", json=spec, headers=headers, params=query)

    def get(self, path: str, **query: str | int | bool) -> httpx2.Response:
        return self._http.get(path, params=query)

    def job(self, job_id: str) -> Document:
        """Return the view of an existing job. Raises httpx2.HTTPStatusError."""
        return document(self._http.get(f"/v1/jobs/{job_id}"))

    def jobs(self, job_ids: Iterable[str]) -> list[Document]:
        """Return the views of these jobs, without those that Runway does not know."""
        answers = (self._http.get(f"/v1/jobs/{job_id}") for job_id in dict.fromkeys(job_ids))
        return [answer.json() for answer in answers if answer.status_code == 200]

    def log(self, job_id: str, **query: str | int | bool) -> httpx2.Response:
        return self._http.get(f"/v1/jobs/{job_id}/logs", params=query)

    def follow(self, job_id: str) -> Iterator[str]:
        """Yield the lines of a log as the job writes them, until the container terminates."""
        with self._http.stream("GET", f"/v1/jobs/{job_id}/logs", params={"follow": True}) as response:
            yield from response.iter_lines()

    def cancel(self, job_id: str) -> httpx2.Response:
        """Cancel a job as the tenant of its view. The response for an unknown job is that of the read."""
        view = self._http.get(f"/v1/jobs/{job_id}")
        if not view.is_success:
            return view
        return self._http.delete(f"/v1/jobs/{job_id}", headers={"X-Tenant-ID": view.json()["tenant"]})

    def quota(self, tenant: str) -> Document:
        """Return the quota of a tenant: limit, used, reserved, and the jobs that use it."""
        return dict(document(self._http.get("/v1/quota", headers={"X-Tenant-ID": tenant}))["tenants"][0])

    def policy(self, tenant: str | None = None) -> Document:
        """Return the limits, pools, prices and tenants in force; with a tenant, also its volumes and Secrets."""
        headers = {"X-Tenant-ID": tenant} if tenant else {}
        return document(self._http.get("/v1/policy", headers=headers))


def document(response: httpx2.Response) -> Document:
    """Return the JSON object of a successful response. Raises httpx2.HTTPStatusError with the problem otherwise."""
    if not response.is_success:
        problem = f"{response.request.method} {response.url.path}: {response.status_code} {response.text[:1000]}"
        raise httpx2.HTTPStatusError(problem, request=response.request, response=response)
    return dict(response.json())
