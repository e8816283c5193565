"""Check a module against the argument names of the AWS provider.

`aws-provider-arguments.json` lists the arguments and nested blocks of version 6.62.0 for services that such a cluster
could use, from published typed bindings. It replaces `terraform validate`, which needs the provider. The check covers
neither values nor computed attributes.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from tests.terraform.hcl import Body, Module

ARGUMENTS: dict[str, Any] = json.loads(
    (Path(__file__).parent / "aws-provider-arguments.json").read_text(encoding="utf-8")
)
VERSION = str(ARGUMENTS["provider"]).partition(" ")[2]

# https://developer.hashicorp.com/terraform/language/meta-arguments
META = {"count", "depends_on", "dynamic", "for_each", "lifecycle", "provider", "timeouts"}


def faults(module: Module) -> list[str]:
    """List unknown and missing types, arguments and blocks, one line each."""
    found: list[str] = []
    for kind, bodies in (("resource", module.resources), ("data", module.data)):
        for address, body in bodies.items():
            schema = ARGUMENTS[kind].get(address.split(".")[-2])
            if schema is None:
                found.append(f"{address}: no such {kind}")
            else:
                found += _faults_of(address, body, schema)
    return found


def _faults_of(where: str, body: Body, schema: dict[str, Any]) -> list[str]:
    given = {**body, **_dynamic_blocks(body)}
    found = [f"{where}: no argument {name}" for name in sorted(given.keys() - META - schema.keys())]
    for name, rule in schema.items():
        if rule.get("required") and name not in given:
            found.append(f"{where}: {name} is required")
        if "block" in rule and name in given:
            blocks = given[name] if isinstance(given[name], list) else [given[name]]
            for block in blocks:
                if isinstance(block, dict):
                    found += _faults_of(f"{where}.{name}", block, rule["block"])
    return found


def _dynamic_blocks(body: Body) -> Body:
    return {name: dynamic["content"] for entry in body.get("dynamic", []) for name, dynamic in entry.items()}
