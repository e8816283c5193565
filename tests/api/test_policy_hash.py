"""The policy in force: its hash, and its comparison with a file."""

from __future__ import annotations

from runway.cli.policy_diff import compare
from runway.policy import load_policy, parse_policy, policy_hash
from tests.api.conftest import POLICY, Runway


async def test_policy_and_readiness_have_the_hash_of_the_file(runway: Runway) -> None:
    expected = policy_hash(load_policy(POLICY))
    assert (await runway.client.get("/readyz")).json()["policy_hash"] == expected
    assert (await runway.client.get("/v1/policy")).json()["hash"] == expected


async def test_file_in_force_changes_nothing_even_without_the_hash(runway: Runway) -> None:
    """Every field that both the file and `GET /v1/policy` have is the same text."""
    sent = (await runway.client.get("/v1/policy")).json()
    del sent["hash"]
    found = compare(sent, load_policy(POLICY), "", [])
    assert (found.changes, found.effects, found.is_same) == ((), (), None)


async def test_price_and_node_of_a_pool_are_compared(runway: Runway) -> None:
    sent = (await runway.client.get("/v1/policy")).json()
    text = POLICY.read_text()
    assert '"0.096", cpu: "2"' in text
    policy = parse_policy(text.replace('"0.096", cpu: "2"', '"0.0961", cpu: 1500m, max_nodes: 3'))
    found = {(each.field, each.running, each.file, each.kind) for each in compare(sent, policy, "", []).changes}
    assert found == {
        ("pools.cpu.hourly_usd", "0.096", "0.0961", "up"),
        ("pools.cpu.node.cpu", "2", "1500m", "down"),
        ("pools.cpu.max_nodes", None, "3", "added"),
    }
