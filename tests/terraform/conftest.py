"""The parsed Terraform module, and its variables and locals, evaluated.

The evaluation needs no provider: `variables.tf` and `locals.tf` use no data from AWS. They are copied into a new
directory with an output per local value and planned there. Terraform creates nothing.
"""

from __future__ import annotations

import email
import json
import re
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import pytest

from tests.terraform import tools
from tests.terraform.hcl import MODULE, Module, load

REQUIRED: dict[str, Any] = {
    "account_id": "123456789012",
    "admin_role_arns": ["arn:aws:iam::123456789012:role/platform-admin"],
    "budget_emails": ["platform@example.com"],
    "monthly_budget_usd": 5000,
}


@dataclass(frozen=True, slots=True)
class Evaluation:
    """The result for a set of variables: the locals by name, or Terraform's error."""

    values: dict[str, Any]
    refusal: str


Evaluate = Callable[..., Evaluation]
UserData = Callable[..., dict[str, str]]


@pytest.fixture(scope="session")
def module() -> Module:
    return load()


@pytest.fixture(scope="session")
def evaluate(module: Module, tmp_path_factory: pytest.TempPathFactory) -> Evaluate:
    """Return a function that evaluates variables; those without a default have example values."""
    directory = tmp_path_factory.mktemp("evaluate")
    for name in ("variables.tf", "locals.tf"):
        shutil.copy(MODULE / name, directory)
    locals_here = load(directory).local_values
    [version] = {settings["required_version"] for settings in module.settings}
    outputs = [f'output "{name}" {{\n  value = local.{name}\n}}\n' for name in locals_here]
    header = f'terraform {{\n  required_version = "{version}"\n}}\n'
    (directory / "evaluate.tf").write_text(header + "".join(outputs), encoding="utf-8")
    started = tools.run("terraform", "init", "-input=false", cwd=directory)
    assert started.returncode == 0, started.stderr

    def evaluated(**variables: Any) -> Evaluation:
        (directory / "case.tfvars.json").write_text(json.dumps({**REQUIRED, **variables}), encoding="utf-8")
        plan = ["-input=false", "-lock=false", "-var-file=case.tfvars.json", "-out=case.tfplan"]
        planned = tools.run("terraform", "plan", *plan, cwd=directory)
        if planned.returncode != 0:
            return Evaluation({}, " ".join(planned.stderr.replace("\u2502", " ").split()))
        shown = tools.run("terraform", "show", "-json", "case.tfplan", cwd=directory)
        outputs = json.loads(shown.stdout)["planned_values"]["outputs"]
        return Evaluation({name: output.get("value") for name, output in outputs.items()}, "")

    return evaluated


@pytest.fixture(scope="session")
def user_data(module: Module, tmp_path_factory: pytest.TempPathFactory) -> UserData:
    """Return a function that renders the user data of a node as Terraform does: its parts by content type."""
    directory = tmp_path_factory.mktemp("user-data")
    [template] = re.findall(r"path\.module}/([\w.-]+)", str(module.resources["aws_launch_template.node"]["user_data"]))
    shutil.copy(MODULE / template, directory)
    text = f'templatefile("{template}", {{ gpu = var.gpu, local_disk = var.local_disk }})'
    variables = "".join(f'variable "{name}" {{\n  type = bool\n}}\n' for name in ("gpu", "local_disk"))
    (directory / "main.tf").write_text(f'{variables}output "text" {{\n  value = {text}\n}}\n', encoding="utf-8")
    assert tools.run("terraform", "init", "-input=false", cwd=directory).returncode == 0

    def rendered(*, gpu: bool, local_disk: bool) -> dict[str, str]:
        given = [f"-var=gpu={str(gpu).lower()}", f"-var=local_disk={str(local_disk).lower()}"]
        applied = tools.run("terraform", "apply", "-input=false", "-auto-approve", *given, cwd=directory)
        assert applied.returncode == 0, applied.stderr
        shown = tools.run("terraform", "output", "-raw", "text", cwd=directory)
        message = email.message_from_string(shown.stdout)
        parts = [part for part in message.walk() if not part.is_multipart()]
        return {part.get_content_type(): str(part.get_payload()) for part in parts}

    return rendered


@pytest.fixture(scope="session")
def defaults(evaluate: Evaluate) -> dict[str, Any]:
    """Return the locals with all defaults."""
    found = evaluate()
    assert found.refusal == ""
    return found.values
