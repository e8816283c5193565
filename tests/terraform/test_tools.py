"""terraform fmt, tflint with every rule, checkov with every policy."""

from __future__ import annotations

import json
import re

from tests.terraform import tools
from tests.terraform.hcl import CHECKOUT, MODULE

SKIP = re.compile(r"checkov:skip=(?P<id>[A-Z0-9_]+)(?P<reason>:.*)?")


def test_terraform_files_are_formatted() -> None:
    checked = tools.run("terraform", "fmt", "-check", "-recursive", "-diff", "infra/terraform", cwd=CHECKOUT)
    assert (checked.returncode, checked.stdout) == (0, "")


def test_tflint_reports_no_findings() -> None:
    checked = tools.run("tflint", "--format=compact", cwd=MODULE)
    assert (checked.returncode, checked.stdout, checked.stderr) == (0, "", "")


def test_checkov_reports_no_unsuppressed_findings() -> None:
    arguments = ("--framework", "terraform", "--skip-download", "--output", "json", "--directory", ".")
    checked = tools.run("checkov", *arguments, cwd=MODULE)
    report = json.loads(checked.stdout)
    failed = [f"{check['check_id']} {check['resource']}" for check in report["results"]["failed_checks"]]
    assert failed == []
    assert report["summary"]["parsing_errors"] == 0
    assert report["summary"]["passed"] > 0
    assert report["summary"]["skipped"] == len(suppressions())
    assert checked.returncode == 0


def test_every_checkov_suppression_has_a_reason() -> None:
    assert [found["id"] for found in suppressions() if not (found["reason"] or "").strip(": ")] == []


def suppressions() -> list[re.Match[str]]:
    return [found for path in MODULE.rglob("*.tf") for found in SKIP.finditer(path.read_text(encoding="utf-8"))]
