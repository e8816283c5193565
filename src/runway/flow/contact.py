"""How one watch is doing."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(slots=True)
class Watch:
    """How one reflector is doing. `heard` is monotonic seconds; `lost` says why contact is lost, if it is."""

    synced: bool = False
    heard: float = 0.0
    lost: str | None = None
    lost_since: float | None = None
    """When contact was lost, in monotonic seconds; None while it is not."""
    listed: float = float("-inf")
    """When the newest list that was taken in was asked for."""

    def lose(self, reason: str, now: float) -> None:
        """Note that contact is lost, for this reason; the newest reason is kept, and the time of the first."""
        self.lost = reason
        if self.lost_since is None:
            self.lost_since = now

    def regain(self) -> None:
        """Note that contact is back."""
        self.lost = self.lost_since = None
