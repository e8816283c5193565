"""Schemathesis hooks for rules that JSON Schema cannot express."""

from __future__ import annotations

import json
import re
from typing import Any

import schemathesis
from schemathesis.core.failures import Failure
from schemathesis.core.transport import Response

BY_POLICY = {
    "image_not_allowed", "unknown_gpu_type", "gpu_type_without_gpu", "never_fits", "over_max_cost", "too_small",
    "too_large", "secret_in_env", "over_gpu_share", "pool_mismatch", "unknown_pool",
}  # fmt: skip
"""Violations of the policy by a spec that conforms to the schema."""


@schemathesis.hook
def map_case(_context: Any, case: Any) -> Any:
    """Give a valid spec an image and resources that the policy allows, so that Runway creates a job."""
    if case.meta is not None and case.meta.generation.mode.is_positive and isinstance(case.body, dict):
        case.body["image"] = "runway.local/busybox:1"
        case.body["resources"] = {"cpu": "100m", "memory": "64Mi"}
        # The policy has few names, and random ones are unknown.
        for name in ("max_cost_usd", "volumes", "secrets", "pool"):
            case.body.pop(name, None)
        case.headers = {**(case.headers or {}), "X-Tenant-ID": "vision"}
    return case


@schemathesis.hook
def filter_failure(_context: Any, failure: Failure, _case: Any, response: Response) -> bool:
    """Return False for a failure to ignore."""
    if failure.code == "ST201":
        return not _rejected_by_dry_run(response)
    if failure.code == "ST202":
        return not _rejected_by_policy(response)
    return True


def _rejected_by_dry_run(response: Response) -> bool:
    """Return whether a dry run reports a rejection, which has status 200."""
    return response.status_code == 200 and _document(response).get("decision") == "refused"


def _rejected_by_policy(response: Response) -> bool:
    problem = _document(response)
    if problem.get("code") == "invalid_spec":
        return all(map(_beyond_schema, problem["violations"]))
    # A valid attempt number may name no attempt.
    return problem.get("code") == "invalid_parameter" and all(
        violation["message"] == "there is no such attempt" for violation in problem["violations"]
    )


def _beyond_schema(violation: dict[str, Any]) -> bool:
    """Return whether the schema allows the value: a policy bound, a fraction of a unit, or `3.0` as an integer."""
    return (
        violation["code"] in BY_POLICY
        or re.search(r"finer than 1m|whole number of bytes", violation["message"]) is not None
        or re.fullmatch(r"-?[0-9]+\.0", violation["observed"] or "") is not None
    )


def _document(response: Response) -> dict[str, Any]:
    try:
        found = json.loads(response.content)
    except ValueError:
        return {}
    return found if isinstance(found, dict) else {}
