"""The models that the server and the command line share."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from functools import cache
from typing import Any

from pydantic import TypeAdapter

from runway.api.models import JobList, PolicyView, Problem, QuotaView, ReadyView, UsageView
from runway.api.openapi import operations
from runway.app import create_app
from runway.jobs.diagnosis.codes import ConditionCode
from runway.jobs.models import ConditionView, JobView
from runway.policy import load_policy
from runway.settings import Settings
from tests.api.conftest import POLICY

MODELS: dict[str, Any] = {
    "submit_job 201": JobView, "list_jobs 200": JobList, "read_job 200": JobView, "cancel_job 202": JobView,
    "read_usage 200": UsageView, "read_quota 200": QuotaView, "read_policy 200": PolicyView, "readyz 200": ReadyView,
}  # fmt: skip


def test_models_import_without_server_packages() -> None:
    """`pip install .` has none of these packages."""
    code = "import sys, runway.api.models; print(*{'fastapi', 'starlette', 'msgspec', 'aiohttp'} & sys.modules.keys())"
    done = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)
    assert done.stdout.strip() == ""


adapter_of: Callable[[Any], TypeAdapter[Any]] = cache(TypeAdapter)


def test_models_decode_every_example() -> None:
    document = create_app(Settings(policy=POLICY), load_policy(POLICY)).openapi()
    for _, _, operation in operations(document):
        for status, response in operation["responses"].items():
            model: Any = Problem if int(status) >= 400 else MODELS.get(f"{operation['operationId']} {status}")
            for media in response.get("content", {}).values() if model else ():
                adapter = adapter_of(model)
                for example in media["examples"].values():
                    value = adapter.validate_json(json.dumps(example["value"]))
                    shown = adapter.dump_python(value, mode="json")
                    assert {name: shown[name] for name in example["value"]} == example["value"]


def test_models_accept_unknown_codes_and_fields() -> None:
    condition = {"code": "waiting_for_godot", "message": "?", "since": None, "since_version_9": True}
    assert TypeAdapter(ConditionView).validate_python(condition).code == "waiting_for_godot"
    known = TypeAdapter(ConditionView).validate_python(condition | {"code": "unschedulable"})
    assert known.code is ConditionCode.UNSCHEDULABLE
