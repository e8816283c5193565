"""Hypothesis profile: few examples, and no deadline on shared machines."""

from __future__ import annotations

from hypothesis import settings

settings.register_profile("unit", deadline=None, max_examples=50)
settings.load_profile("unit")
