"""The OpenAPI document is complete and true: calls, errors, fields and examples."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jsonschema_rs
import pytest

from runway.api.openapi import codes, operations
from runway.api.problems import MEDIA_TYPE
from runway.app import create_app
from runway.errors import PublicError, Unavailable
from runway.policy import load_policy
from runway.settings import Settings
from tests.api.conftest import POLICY, Runway, job

Json = dict[str, Any]

NOT_OF_A_CALL = {"malformed_request", "method_not_allowed"}
"""Errors outside any operation: the description of the document names them."""


NOT_MEANT_TO_BE_SEEN = {"internal_error"}


def _document() -> Json:
    return create_app(Settings(policy=POLICY), load_policy(POLICY)).openapi()


DOCUMENT = _document()
OPERATIONS = {operation["operationId"]: operation for _, _, operation in operations(DOCUMENT)}


def _examples() -> Iterator[tuple[str, Json, Json, object]]:
    """Yield path, schema, request or response, and value of each example."""
    for name, operation in OPERATIONS.items():
        places = {f"{name} {status}": response for status, response in operation["responses"].items()}
        if "requestBody" in operation:
            places[f"{name} request"] = operation["requestBody"]
        for place, response in places.items():
            for media in response.get("content", {}).values():
                for key, example in media.get("examples", {}).items():
                    value = example["value"]
                    for each in _events(value) if "text/event-stream" in response["content"] else [value]:
                        yield f"{place} {key}", media["schema"], response, each


def _events(stream: str) -> list[Json]:
    """Return the events of a stream as lines."""
    blocks = [dict(line.split(": ", 1) for line in block.splitlines()) for block in stream.strip().split("\n\n")]
    return [block for block in blocks if "data" in block]


EXAMPLES = {where: (schema, response, value) for where, schema, response, value in _examples()}


def _resolved(schema: Json) -> Json:
    """Return a schema with its components that rejects undocumented fields."""
    components = {
        name: {**component, "additionalProperties": False} if "properties" in component else component
        for name, component in DOCUMENT["components"]["schemas"].items()
        if name != "Problem"
    }
    return {**schema, "components": {"schemas": components | {"Problem": DOCUMENT["components"]["schemas"]["Problem"]}}}


def _must_validate(schema: Json, value: object, where: str) -> None:
    faults = list(jsonschema_rs.Draft202012Validator(_resolved(schema), validate_formats=True).iter_errors(value))
    assert not faults, f"{where}: {[str(fault) for fault in faults]}"


def test_document_is_valid_and_describes_every_operation() -> None:
    assert DOCUMENT["openapi"].startswith("3.1")
    assert set(OPERATIONS) == {
        "submit_job", "list_jobs", "read_job", "cancel_job", "read_logs", "read_events", "read_usage", "read_quota",
        "read_policy", "healthz", "readyz", "metrics",
    }  # fmt: skip
    tags = {tag["name"] for tag in DOCUMENT["tags"]}
    for name, operation in OPERATIONS.items():
        assert operation["summary"], name
        assert operation["description"], name
        assert set(operation["tags"]) <= tags, name
        for parameter in operation["parameters"]:
            assert "$ref" in parameter or (parameter["description"] and parameter["schema"]), (name, parameter)


def test_every_field_has_a_description() -> None:
    schemas = DOCUMENT["components"]["schemas"]
    silent = [
        f"{name}.{field}"
        for name, schema in schemas.items()
        for field, member in schema.get("properties", {}).items()
        if not member.get("description")
    ]
    assert silent == []
    assert all(schema.get("description") for schema in schemas.values())


@pytest.mark.parametrize("where", EXAMPLES, ids=str)
def test_every_example_validates_against_its_schema(where: str) -> None:
    schema, _, value = EXAMPLES[where]
    _must_validate(schema, value, where)


def test_every_body_and_error_code_has_an_example() -> None:
    bare = []
    for name, operation in OPERATIONS.items():
        for status, response in operation["responses"].items():
            for media in response.get("content", {}).values():
                expected = set(codes(response)) if int(status) >= 400 else set(list(media.get("examples", {}))[:1])
                if not expected or set(media.get("examples", {})) < expected:
                    bare.append(f"{name} {status}")
    assert bare == []


def test_problem_example_has_the_status_of_its_response() -> None:
    for where, (_, _, value) in EXAMPLES.items():
        if isinstance(value, dict) and "request_id" in value:
            assert f" {value['status']} {value['code']}" in where


def test_problem_example_has_the_title_of_its_code_and_of_no_special_case() -> None:
    for where, (_, _, value) in EXAMPLES.items():
        if isinstance(value, dict) and value.get("code") in ("not_found", "job_not_found"):
            assert value["title"] in ("Unknown path", "Unknown job"), where
            assert "check the" in value["hint"], where


def _public(root: type[PublicError]) -> Iterator[type[PublicError]]:
    for child in root.__subclasses__():
        if hasattr(child, "code") and child.code not in NOT_MEANT_TO_BE_SEEN:
            yield child
        yield from _public(child)


def test_every_error_code_is_documented_with_its_status() -> None:
    documented = {
        (code, int(status))
        for operation in OPERATIONS.values()
        for status, response in operation["responses"].items()
        for code in codes(response)
    }
    raised = {(error.code, error.status) for error in _public(PublicError) if error.code not in NOT_OF_A_CALL}
    assert documented == raised
    assert all(code in DOCUMENT["info"]["description"] for code in NOT_OF_A_CALL)
    assert Unavailable in PublicError.__subclasses__()


@pytest.mark.parametrize("name", OPERATIONS, ids=str)
def test_errors_of_dependencies_are_documented(name: str) -> None:
    """Derive the errors of the dependencies from the parameters of each route."""
    operation = OPERATIONS[name]
    documented = {code for response in operation["responses"].values() for code in codes(response)}
    parameters = {parameter.get("name"): parameter["in"] for parameter in operation["parameters"] if "in" in parameter}
    if "X-Tenant-ID" in parameters:
        # The policy is known from the start, and no limit counts its reads.
        limits = set() if name == "read_policy" else {"rate_limited", "not_ready"}
        assert {"tenant_required", "unknown_tenant"} | limits <= documented
    if "path" in parameters.values():
        assert {"job_not_found", "not_found"} <= documented
    if "query" in parameters.values():
        assert "invalid_parameter" in documented


def test_headers_are_documented() -> None:
    for name, operation in OPERATIONS.items():
        for status, response in operation["responses"].items():
            assert "X-Request-ID" in response["headers"], (name, status)
            assert ("Retry-After" in response["headers"]) == (status in ("429", "503")), (name, status)
    assert {"Location", "Idempotent-Replay"} <= OPERATIONS["submit_job"]["responses"]["200"]["headers"].keys()
    sent = {parameter.get("name") for parameter in OPERATIONS["submit_job"]["parameters"]}
    assert {"X-Tenant-ID", "Idempotency-Key"} <= sent


async def test_responses_validate_against_the_document(runway: Runway) -> None:
    job_id = (await runway.submit(resources={"gpu": 1})).json()["id"]
    runway.kubernetes.start_pod(job_id)
    await runway.until_state(job_id, "running")
    calls = {
        "read_job": f"/v1/jobs/{job_id}",
        "list_jobs": "/v1/jobs",
        "read_quota": "/v1/quota",
        "read_policy": "/v1/policy",
        "read_usage": f"/v1/jobs/{job_id}/usage",
        "healthz": "/healthz",
        "readyz": "/readyz",
    }
    for name, path in calls.items():
        answer = await runway.client.get(path)
        schema = OPERATIONS[name]["responses"]["200"]["content"]["application/json"]["schema"]
        _must_validate(schema, answer.json(), name)
    dry = await runway.client.post("/v1/jobs?dry_run=true", json=job(), headers={"X-Tenant-ID": "vision"})
    _must_validate({"$ref": "#/components/schemas/DryRun"}, dry.json(), "a dry run")


async def test_problems_validate_against_the_document(runway: Runway) -> None:
    problems = {
        "submit_job": await runway.submit(resources={"gpu": 99}),
        "list_jobs": await runway.client.get("/v1/jobs?limit=0"),
        "read_job": await runway.client.get("/v1/jobs/rw-aaaaaaaaaaaaaaaaaaaa"),
    }
    await runway.submit(resources={"gpu": 3})
    problems["submit_job quota"] = await runway.submit(resources={"gpu": 3})
    for name, answer in problems.items():
        response = OPERATIONS[name.split()[0]]["responses"][str(answer.status_code)]
        _must_validate(response["content"][MEDIA_TYPE]["schema"], answer.json(), name)


async def test_document_and_docs_page_are_served(runway: Runway) -> None:
    assert (await runway.client.get("/openapi.json")).json() == DOCUMENT
    assert "/openapi.json" in (await runway.client.get("/docs")).text


def test_examples_have_no_local_paths() -> None:
    assert str(Path.home()) not in str(DOCUMENT)
