"""How one watch is doing."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(slots=True)
class WatchStatus:
    """How one reflector is doing. `heard` is monotonic seconds; `lost` says why contact is lost, if it is."""

    synced: bool = False
    last_event_at: float = 0.0
    disconnect_reason: str | None = None
    disconnected_at: float | None = None
    """When contact was lost, in monotonic seconds; None while it is not."""
    listed_at: float = float("-inf")
    """When the newest list that was taken in was asked for."""

    def mark_disconnected(self, reason: str, now: float) -> None:
        """Note that contact is lost, for this reason; the newest reason is kept, and the time of the first."""
        self.disconnect_reason = reason
        if self.disconnected_at is None:
            self.disconnected_at = now

    def mark_connected(self) -> None:
        """Note that contact is back."""
        self.disconnect_reason = self.disconnected_at = None
