"""Property tests here try a modest number of examples; timings on a shared machine say nothing, so none fails one."""

from __future__ import annotations

from hypothesis import settings

settings.register_profile("unit", deadline=None, max_examples=50)
settings.load_profile("unit")
