"""The simulation of GPU packing, and the table in its decision record."""

from __future__ import annotations

from pathlib import Path

from bench.packing import affinity, measure, spread, table

DECISION = Path(__file__).parents[3] / "docs" / "decisions" / "012-packing.md"


def test_affinity_and_gpu_share_strand_fewer_gpus() -> None:
    default, packed, bounded = (
        measure(spread, per_gpu=False, seeds=2),
        measure(affinity, per_gpu=False, seeds=2),
        measure(affinity, per_gpu=True, seeds=2),
    )
    assert default.stranded > packed.stranded > bounded.stranded
    assert default.whole_node_wait > bounded.whole_node_wait


def test_decision_record_has_the_simulated_table() -> None:
    assert table() in DECISION.read_text(encoding="utf-8")
