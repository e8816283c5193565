"""docs/api.md, made from the OpenAPI document: `python -m runway.api_reference docs/api.md`."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from runway.api.contract.document import operations
from runway.api.contract.examples import POLICY
from runway.api.contract.reading import (
    FORMS,
    anchor,
    answer_examples,
    answer_row,
    curl,
    error_rows,
    field_rows,
    parameter_row,
    parameters,
    problems_of,
    text_of,
)
from runway.app import create_app
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


def reference(document: Json) -> str:
    """The reference as Markdown."""
    calls = [(path, method, operation) for path, method, operation in operations(document)]
    request_id = document["components"]["parameters"]["X-Request-ID"]["description"]
    head = _HEAD.format(about=document["info"]["description"], request_id=request_id)
    parts = [head, "## Calls\n", _table(("call", "name", "what it does"), _index(calls))]
    parts += [_call(document, *call) for call in calls]
    parts += ["## Problems\n", *_problems(document), "## Types\n", *_types(document), "## Forms\n"]
    parts.append(_table(("form", "is", "pattern"), ((name, text, f"`{form}`") for form, (name, text) in FORMS.items())))
    return "\n".join(parts)


def main(path: str) -> None:
    """Write the file."""
    document = create_app(Settings(policy=Path()), POLICY).openapi()
    Path(path).write_text(reference(document), encoding="utf-8")


def _index(calls: list[tuple[str, str, Json]]) -> Iterator[tuple[str, ...]]:
    for path, method, operation in calls:
        summary = operation["summary"]
        yield f"`{method.upper()} {path}`", f"[{summary}](#{anchor(summary)})", operation["description"].split("\n")[0]


def _call(document: Json, path: str, method: str, operation: Json) -> str:
    parts = [f"## {operation['summary']}\n", f"`{method.upper()} {path}`\n", operation["description"] + "\n"]
    parts.append(_table(("parameter", "in", "form", "meaning"), map(parameter_row, parameters(document, operation))))
    body = operation.get("requestBody", {}).get("content", {}).get("application/json")
    if body:
        parts += ["The body:\n", _table(("field", "form", "meaning"), field_rows(document, body["schema"]))]
        for example in body["examples"].values():
            parts.append(_code(f"{example['summary']}:", "sh", curl(path, method, operation, example["value"])))
    else:
        parts.append(_code("", "sh", curl(path, method, operation, None)))
    answers = {status: one for status, one in operation["responses"].items() if int(status) < 400}
    parts += ["Answers:\n", _table(("status", "when", "body", "headers"), map(answer_row, answers.items()))]
    parts.append("\n".join(_details(title, text) for title, text in answer_examples(answers)))
    errors = [row for status, response in operation["responses"].items() for row in error_rows(status, response)]
    if errors:
        parts += ["Errors:\n", _table(("status", "code", "means", "do"), errors)]
    return "\n".join(part for part in parts if part)


def _problems(document: Json) -> Iterator[str]:
    yield document["components"]["schemas"]["Problem"]["description"] + "\n"
    yield _table(("field", "form", "meaning"), field_rows(document, {"$ref": "#/components/schemas/Problem"}))
    members, examples = problems_of(document)
    yield "Some have members of their own:\n"
    yield _table(("member", "form", "meaning"), members)
    for code, example in examples.items():
        told = f"{example['value']['status']}: {example['summary']}. What to do: {example['description']}."
        yield f"### {code}\n\n{told}\n"
        yield _details("An example", text_of(example["value"]))


def _types(document: Json) -> Iterator[str]:
    for name, schema in document["components"]["schemas"].items():
        if name in ("Problem", "JobSpec"):
            continue
        yield f"### {name}\n\n{' '.join(schema['description'].split())}\n"
        if "enum" in schema:
            yield f"One of {', '.join(f'`{value}`' for value in schema['enum'])}.\n"
        else:
            yield _table(("field", "form", "meaning"), field_rows(document, schema))


def _details(summary: str, text: str) -> str:
    language = "json" if text.startswith("{") else "text"
    return f"<details><summary>{summary}</summary>\n\n```{language}\n{text}\n```\n\n</details>\n"


def _code(title: str, language: str, text: str) -> str:
    return (f"{title}\n\n" if title else "") + f"```{language}\n{text}\n```\n"


def _table(head: tuple[str, ...], rows: Iterable[tuple[str, ...]]) -> str:
    lines = [head, tuple("---" for _ in head), *rows]
    return "\n".join("| " + " | ".join(cell.replace("|", "\\|") for cell in line) + " |" for line in lines) + "\n"


if __name__ == "__main__":
    main(sys.argv[1])
