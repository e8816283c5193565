"""Resources use arguments of the pinned provider and declared references."""

from __future__ import annotations

import re
from graphlib import TopologicalSorter

import pytest

from tests.terraform import provider
from tests.terraform.hcl import MODULE, Module, load, parse

ADDRESS = re.compile(r"(?<![\w.])((?:data\.)?aws_[a-z0-9_]+\.[a-z0-9_]+)")
NAMED = re.compile(r"(?<![\w.])(var|local)\.([a-z0-9_]+)")


def test_arguments_exist_in_provider_schema(module: Module) -> None:
    for checked in (module, load(MODULE / "bootstrap")):
        assert checked.resources
        assert provider.faults(checked) == []


def test_state_bucket_is_private_versioned_and_encrypted() -> None:
    resources = load(MODULE / "bootstrap").resources
    blocked = resources["aws_s3_bucket_public_access_block.state"]
    assert {name for name, value in blocked.items() if value is True} == {
        "block_public_acls", "block_public_policy", "ignore_public_acls", "restrict_public_buckets",
    }  # fmt: skip
    assert resources["aws_s3_bucket_versioning.state"]["versioning_configuration"] == [{"status": "Enabled"}]
    assert "aws_s3_bucket_server_side_encryption_configuration.state" in resources
    assert resources["aws_s3_bucket.state"]["lifecycle"] == [{"prevent_destroy": True}]


def test_provider_schema_is_of_pinned_version(module: Module) -> None:
    pinned = [required["aws"] for settings in module.settings for required in settings["required_providers"]]
    assert pinned == [{"source": "hashicorp/aws", "version": provider.VERSION}]


@pytest.mark.parametrize(
    ("text", "fault"),
    [
        ('resource "aws_vpcs" "a" {}', "aws_vpcs.a: no such resource"),
        ('resource "aws_subnet" "a" {\n vpc = "b"\n vpc_id = "c"\n}', "aws_subnet.a: no argument vpc"),
        ('resource "aws_subnet" "a" {}', "aws_subnet.a: vpc_id is required"),
        (
            'resource "aws_launch_template" "a" {\n metadata_options {\n  http_token = "required"\n }\n}',
            "aws_launch_template.a.metadata_options: no argument http_token",
        ),
        (
            'resource "aws_flow_log" "a" {\n dynamic "destination_options" {\n  content {\n   file = 1\n  }\n }\n}',
            "aws_flow_log.a.destination_options: no argument file",
        ),
    ],
)
def test_unknown_argument_is_reported(text: str, fault: str) -> None:
    assert provider.faults(parse(text)) == [fault]


def test_references_are_declared(module: Module) -> None:
    text = source()
    declared = module.resources.keys() | module.data.keys()
    assert set(ADDRESS.findall(text)) - declared == set()

    names = {"var": module.variables.keys(), "local": module.local_values.keys()}
    assert [(kind, name) for kind, name in NAMED.findall(text) if name not in names[kind]] == []


def test_resources_have_no_dependency_cycles(module: Module) -> None:
    everything = {**module.resources, **module.data}
    graph = {address: set(ADDRESS.findall(repr(body))) - {address} for address, body in everything.items()}
    assert len(list(TopologicalSorter(graph).static_order())) == len(everything)


def source() -> str:
    """Return the text of the module without comments."""
    text = "\n".join(path.read_text(encoding="utf-8") for path in sorted(MODULE.glob("*.tf")))
    return re.sub(r"^\s*#.*$", "", text, flags=re.MULTILINE)
