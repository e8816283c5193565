"""docs/api.md, made from the OpenAPI document: `python -m runway.api_reference docs/api.md`."""

from __future__ import annotations

import json
import shlex
import sys
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, Final

from runway.app import create_app
from runway.http.contract import fields, spec
from runway.http.contract.document import codes, operations
from runway.http.contract.examples import POLICY
from runway.http.problems import MEDIA_TYPE
from runway.settings import Settings

Json = dict[str, Any]

_HEAD = """# HTTP API

<!-- made by python -m runway.api_reference docs/api.md -->

{about}

The same as a page is at `/docs` of a running Runway, and as a document at `/openapi.json`. How Runway behaves behind
these calls is told in [features.md](features.md). The examples are real: the code that answers made them, for a small
policy with two tenants. The bounds of the policy in force come on top of those below: `GET /v1/policy`.

Every call takes the header `X-Request-ID`: {request_id}.
"""


_QUANTITY_RULES: Final = "https://kubernetes.io/docs/reference/kubernetes-api/common-definitions/quantity/"
_FORMS: Final = {
    spec.QUANTITY: ("quantity", f"a [Kubernetes quantity]({_QUANTITY_RULES})"),
    spec.LABEL: ("label", "what Kubernetes takes as the value of a label"),
    spec.IMAGE_REFERENCE: ("image reference", "a repository, with its registry where it has one, a tag, a digest"),
    fields.TENANT["pattern"]: ("tenant", "a tenant's name"),
    fields.JOB_ID["pattern"]: ("job id", "`rw-` and 20 letters and digits"),
    spec.PRICE: ("USD", "US dollars, as a decimal string"),
}
"""Patterns that have a name here, and what they are."""


def reference(document: Json) -> str:
    """The reference as Markdown."""
    calls = [(path, method, operation) for path, method, operation in operations(document)]
    request_id = document["components"]["parameters"]["X-Request-ID"]["description"]
    head = _HEAD.format(about=document["info"]["description"], request_id=request_id)
    parts = [head, "## Calls\n", _table(("call", "name", "what it does"), _index(calls))]
    parts += [_call(document, *call) for call in calls]
    parts += ["## Problems\n", *_problems(document), "## Types\n", *_types(document), "## Forms\n"]
    parts.append(
        _table(("form", "is", "pattern"), ((name, text, f"`{form}`") for form, (name, text) in _FORMS.items()))
    )
    return "\n".join(parts)


def main(path: str) -> None:
    """Write the file."""
    document = create_app(Settings(policy=Path()), POLICY).openapi()
    Path(path).write_text(reference(document), encoding="utf-8")


def _index(calls: list[tuple[str, str, Json]]) -> Iterator[tuple[str, ...]]:
    for path, method, operation in calls:
        summary = operation["summary"]
        yield f"`{method.upper()} {path}`", f"[{summary}](#{_anchor(summary)})", operation["description"].split("\n")[0]


def _call(document: Json, path: str, method: str, operation: Json) -> str:
    parts = [f"## {operation['summary']}\n", f"`{method.upper()} {path}`\n", operation["description"] + "\n"]
    parts.append(_table(("parameter", "in", "form", "meaning"), map(_parameter, _parameters(document, operation))))
    body = operation.get("requestBody", {}).get("content", {}).get("application/json")
    if body:
        parts += ["The body:\n", _table(("field", "form", "meaning"), _fields(document, body["schema"]))]
        for example in body["examples"].values():
            parts.append(_code(f"{example['summary']}:", "sh", _curl(path, method, operation, example["value"])))
    else:
        parts.append(_code("", "sh", _curl(path, method, operation, None)))
    answers = {status: one for status, one in operation["responses"].items() if int(status) < 400}
    parts += ["Answers:\n", _table(("status", "when", "body", "headers"), map(_answer, answers.items()))]
    parts += [_examples(answers)]
    errors = [row for status, response in operation["responses"].items() for row in _errors(status, response)]
    if errors:
        parts += ["Errors:\n", _table(("status", "code", "means", "do"), errors)]
    return "\n".join(part for part in parts if part)


def _parameters(document: Json, operation: Json) -> Iterator[Json]:
    found = (_target(document, parameter) for parameter in operation["parameters"])
    return (parameter for parameter in found if parameter["name"] != "X-Request-ID")  # Of every call: in the head.


def _parameter(parameter: Json) -> tuple[str, ...]:
    schema = parameter["schema"]
    kept = _form(schema) + (", required" if parameter["required"] else "")
    return f"`{parameter['name']}`", parameter["in"], kept, parameter["description"]


def _fields(document: Json, schema: Json, prefix: str = "") -> Iterator[tuple[str, ...]]:
    """A row for each field of an object; those of an object in line come after it."""
    schema = _target(document, schema)
    required = schema.get("required", [])
    for name, member in schema.get("properties", {}).items():
        kept = _form(member) + (", required" if name in required else "")
        yield f"`{prefix}{name}`", kept, member["description"]
        if member.get("type") == "object":
            yield from _fields(document, member, f"{prefix}{name}.")


def _answer(item: tuple[str, Json]) -> tuple[str, ...]:
    status, response = item
    bodies = [f"`{media}`: {_form(content['schema'])}" for media, content in response.get("content", {}).items()]
    headers = [f"`{name}`" for name in response["headers"] if name != "X-Request-ID"]
    description = " ".join(response["description"].split())
    return status, description, "; ".join(bodies) or "none", ", ".join(headers)


def _errors(status: str, response: Json) -> Iterator[tuple[str, ...]]:
    examples = response.get("content", {}).get(MEDIA_TYPE, {}).get("examples", {})
    for code in codes(response):
        example = examples[code]
        yield status, f"[`{code}`](#{code})", example["summary"], example["description"]


def _examples(answers: dict[str, Json]) -> str:
    found = [
        (status, example)
        for status, response in answers.items()
        for media in response.get("content", {}).values()
        for example in media.get("examples", {}).values()
    ]
    return "\n".join(_details(f"{status}: {example['summary']}", example["value"]) for status, example in found)


def _problems(document: Json) -> Iterator[str]:
    yield document["components"]["schemas"]["Problem"]["description"] + "\n"
    yield _table(("field", "form", "meaning"), _fields(document, {"$ref": "#/components/schemas/Problem"}))
    seen: dict[str, Json] = {}
    extra: dict[str, Json] = {}
    for _, _, operation in operations(document):
        for response in operation["responses"].values():
            media = response.get("content", {}).get(MEDIA_TYPE, {})
            for code, example in media.get("examples", {}).items():
                seen.setdefault(code, example)
            more = media["schema"]["allOf"][1]["properties"] if media else {}
            extra |= {name: member for name, member in more.items() if name != "code"}
    yield "Some have members of their own:\n"
    yield _table(
        ("member", "form", "meaning"),
        ((f"`{name}`", _form(member), member["description"]) for name, member in extra.items()),
    )
    for code, example in sorted(seen.items()):
        told = f"{example['value']['status']}: {example['summary']}. What to do: {example['description']}."
        yield f"### {code}\n\n{told}\n"
        yield _details("An example", example["value"])


def _types(document: Json) -> Iterator[str]:
    for name, schema in document["components"]["schemas"].items():
        if name in ("Problem", "JobSpec"):
            continue
        yield f"### {name}\n\n{' '.join(schema['description'].split())}\n"
        if "enum" in schema:
            yield f"One of {', '.join(f'`{value}`' for value in schema['enum'])}.\n"
        else:
            yield _table(("field", "form", "meaning"), _fields(document, schema))


def _target(document: Json, schema: Json) -> Json:
    """What a reference refers to."""
    found: Any = schema
    while "$ref" in found:
        place: Any = document
        for step in found["$ref"].removeprefix("#/").split("/"):
            place = place[step]
        found = place
    return dict(found)


def _form(schema: Json) -> str:
    """A schema in a few words: its type and its bounds."""
    if "$ref" in schema:
        name = schema["$ref"].rsplit("/", 1)[1]
        return f"[{name}](#{name.lower()})"
    if "anyOf" in schema:
        return " or ".join(map(_form, schema["anyOf"]))
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
            f"[{_FORMS[schema['pattern']][0]}](#forms)" if schema["pattern"] in _FORMS else f"`{schema['pattern']}`"
        )
    bounds += [schema["format"]] if schema.get("format") not in (None, "uri") else []
    bounds += [f"by default `{json.dumps(schema['default'])}`"] if schema.get("default") is not None else []
    return ", ".join([" or ".join(words), *bounds])


def _kind(kind: str, schema: Json) -> str:
    if kind == "array":
        return f"list of {_form(schema['items'])}" if "$ref" in schema.get("items", {}) else "list of strings"
    inner = schema.get("additionalProperties")
    if kind == "object" and isinstance(inner, dict):
        return f"object of {_form(inner) if '$ref' in inner else inner.get('type', 'any') + 's'}"
    return kind


def _curl(path: str, method: str, operation: Json, body: Json | None) -> str:
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


def _details(summary: str, value: object) -> str:
    language, text = ("text", value) if isinstance(value, str) else ("json", json.dumps(value, indent=1))
    return f"<details><summary>{summary}</summary>\n\n```{language}\n{text.rstrip()}\n```\n\n</details>\n"


def _code(title: str, language: str, text: str) -> str:
    return (f"{title}\n\n" if title else "") + f"```{language}\n{text}\n```\n"


def _table(head: tuple[str, ...], rows: Iterable[tuple[str, ...]]) -> str:
    lines = [head, tuple("---" for _ in head), *rows]
    return "\n".join("| " + " | ".join(cell.replace("|", "\\|") for cell in line) + " |" for line in lines) + "\n"


def _anchor(heading: str) -> str:
    """How GitHub names a heading."""
    kept = "".join(letter for letter in heading.lower() if letter.isalnum() or letter in " -_")
    return kept.replace(" ", "-")


if __name__ == "__main__":
    main(sys.argv[1])
