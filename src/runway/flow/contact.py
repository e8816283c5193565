"""How one watch is doing."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(slots=True)
class Watch:
    """How one reflector is doing. `heard` is monotonic seconds; `lost` says why contact is lost, if it is."""

    synced: bool = False
    heard: float = 0.0
    lost: str | None = None
    listed: float = float("-inf")
    """When the newest list that was taken in was asked for."""
