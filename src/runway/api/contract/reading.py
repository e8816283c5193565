"""The OpenAPI document in words: rows of text for the reference and the page. Pure.

The texts are Markdown: `code`, and links to anchors. `docs/api.md` takes them as they are, the page `/docs` as HTML.
"""

from __future__ import annotations

import json
import shlex
from collections.abc import Iterator
from typing import Any, Final

from runway.api.contract import fields, spec
from runway.api.contract.document import codes, operations
from runway.api.problems import MEDIA_TYPE

Json = dict[str, Any]
Row = tuple[str, ...]

_QUANTITY_RULES: Final = "https://kubernetes.io/docs/reference/kubernetes-api/common-definitions/quantity/"
FORMS: Final = {
    spec.QUANTITY: ("quantity", f"a [Kubernetes quantity]({_QUANTITY_RULES})"),
    spec.LABEL: ("label", "what Kubernetes takes as the value of a label"),
    spec.IMAGE_REFERENCE: ("image reference", "a repository, with its registry where it has one, a tag, a digest"),
    fields.TENANT["pattern"]: ("tenant", "a tenant's name"),
    fields.JOB_ID["pattern"]: ("job id", "`rw-` and 20 letters and digits"),
    spec.PRICE: ("USD", "US dollars, as a decimal string"),
}
"""Patterns that have a name here, and what they are."""


def parameters(document: Json, operation: Json) -> Iterator[Json]:
    """The parameters of a call, but for `X-Request-ID`, which every call takes."""
    found = (target(document, parameter) for parameter in operation["parameters"])
    return (parameter for parameter in found if parameter["name"] != "X-Request-ID")  # Of every call: in the head.


def parameter_row(parameter: Json) -> Row:
    """Name, place, form, meaning."""
    schema = parameter["schema"]
    kept = form(schema) + (", required" if parameter["required"] else "")
    return f"`{parameter['name']}`", parameter["in"], kept, parameter["description"]


def field_rows(document: Json, schema: Json, prefix: str = "") -> Iterator[Row]:
    """A row for each field of an object; those of an object in line come after it."""
    schema = target(document, schema)
    required = schema.get("required", [])
    for name, member in schema.get("properties", {}).items():
        kept = form(member) + (", required" if name in required else "")
        yield f"`{prefix}{name}`", kept, member["description"]
        if member.get("type") == "object":
            yield from field_rows(document, member, f"{prefix}{name}.")


def answer_row(item: tuple[str, Json]) -> Row:
    """Status, when, body, headers."""
    status, response = item
    bodies = [f"`{media}`: {form(content['schema'])}" for media, content in response.get("content", {}).items()]
    headers = [f"`{name}`" for name in response["headers"] if name != "X-Request-ID"]
    description = " ".join(response["description"].split())
    return status, description, "; ".join(bodies) or "none", ", ".join(headers)


def error_rows(status: str, response: Json) -> Iterator[Row]:
    """Status, code, meaning, what to do."""
    examples = response.get("content", {}).get(MEDIA_TYPE, {}).get("examples", {})
    for code in codes(response):
        example = examples[code]
        yield status, f"[`{code}`](#{code})", example["summary"], example["description"]


def answer_examples(answers: dict[str, Json]) -> list[tuple[str, str]]:
    """Title and text of each example of these answers."""
    return [
        (f"{status}: {example['summary']}", text_of(example["value"]))
        for status, response in answers.items()
        for media in response.get("content", {}).values()
        for example in media.get("examples", {}).values()
    ]


def problems_of(document: Json) -> tuple[list[Row], dict[str, Json]]:
    """The members that only some problems have, as rows of name, form and meaning; and an example of each code."""
    examples: dict[str, Json] = {}
    members: dict[str, Json] = {}
    for _, _, operation in operations(document):
        for response in operation["responses"].values():
            media = response.get("content", {}).get(MEDIA_TYPE, {})
            for code, example in media.get("examples", {}).items():
                examples.setdefault(code, example)
            more = media["schema"]["allOf"][1]["properties"] if media else {}
            members |= {name: member for name, member in more.items() if name != "code"}
    rows: list[Row] = [(f"`{name}`", form(member), member["description"]) for name, member in members.items()]
    return rows, dict(sorted(examples.items()))


def text_of(example: object) -> str:
    """An example as people read it."""
    return (example if isinstance(example, str) else json.dumps(example, indent=1)).rstrip()


def target(document: Json, schema: Json) -> Json:
    """What a reference refers to."""
    found: Any = schema
    while "$ref" in found:
        place: Any = document
        for step in found["$ref"].removeprefix("#/").split("/"):
            place = place[step]
        found = place
    return dict(found)


def form(schema: Json) -> str:
    """A schema in a few words: its type and its bounds."""
    if "$ref" in schema:
        name = schema["$ref"].rsplit("/", 1)[1]
        return f"[{name}](#{name.lower()})"
    if "anyOf" in schema:
        return " or ".join(map(form, schema["anyOf"]))
    kinds = schema.get("type", [])
    kinds = [kinds] if isinstance(kinds, str) else list(kinds)
    words = [_kind(kind, schema) for kind in kinds]
    bounds = [f"one of {', '.join(f'`{value}`' for value in schema['enum'])}"] if "enum" in schema else []
    bounds += [f"`{schema['const']}`"] if "const" in schema else []
    low, high = schema.get("minimum"), schema.get("maximum")
    if low is not None and high is not None and high < 2**31 - 1:
        bounds.append(f"{low} to {high}")
    elif low is not None and low > -(2**31):
        bounds.append(f"from {low}")
    names = {"maxLength": "characters", "maxItems": "entries", "maxProperties": "entries"}
    bounds += [f"at most {schema[key]} {what}" for key, what in names.items() if key in schema]
    if "pattern" in schema:
        bounds.append(
            f"[{FORMS[schema['pattern']][0]}](#forms)" if schema["pattern"] in FORMS else f"`{schema['pattern']}`"
        )
    bounds += [schema["format"]] if schema.get("format") not in (None, "uri") else []
    bounds += [f"by default `{json.dumps(schema['default'])}`"] if schema.get("default") is not None else []
    return ", ".join([" or ".join(words), *bounds])


def _kind(kind: str, schema: Json) -> str:
    if kind == "array":
        return f"list of {form(schema['items'])}" if "$ref" in schema.get("items", {}) else "list of strings"
    inner = schema.get("additionalProperties")
    if kind == "object" and isinstance(inner, dict):
        return f"object of {form(inner) if '$ref' in inner else inner.get('type', 'any') + 's'}"
    return kind


def curl(path: str, method: str, operation: Json, body: Json | None) -> str:
    """The call as a command; `RUNWAY_URL` is where Runway is. Each body has its own key: under another's it is 409."""
    names = {parameter.get("name"): parameter for parameter in operation["parameters"]}
    for name, parameter in names.items():
        if parameter.get("in") == "path":
            path = path.replace(f"{{{name}}}", parameter["example"])
    command = "curl -N" if operation["operationId"] in ("read_events", "read_logs") else "curl"
    parts = [
        f'{command} "$RUNWAY_URL{path}"' if method == "get" else f'{command} -X {method.upper()} "$RUNWAY_URL{path}"'
    ]
    if "X-Tenant-ID" in names:
        parts.append(f"-H 'X-Tenant-ID: {names['X-Tenant-ID']['example']}'")
    if body is not None:
        parts += [f"-H 'Idempotency-Key: {body['name']}-2026-11-24'", "-H 'Content-Type: application/json'"]
        parts.append(f"-d {shlex.quote(json.dumps(body, indent=1))}")
    return " \\\n  ".join(parts)


def anchor(heading: str) -> str:
    """How GitHub names a heading."""
    kept = "".join(letter for letter in heading.lower() if letter.isalnum() or letter in " -_")
    return kept.replace(" ", "-")
