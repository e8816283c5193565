"""The list of jobs: its filters and order, which its address holds, so that links keep them.

The list is in pages of the newest jobs. Another order than newest first sorts the jobs of a larger page.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import asdict, dataclass, replace
from decimal import Decimal
from typing import Annotated, Any, Final
from urllib.parse import urlencode

from fastapi import Query

from runway.jobs.annotations import usd
from runway.jobs.models import JobState, JobView

PAGE_SIZE: Final = 50
"""Jobs on a page, newest first."""
SORTED_PAGE_SIZE: Final = 100
"""Jobs on a page in another order: they are read before they are sorted."""
_STATES: Final = [str(state) for state in JobState]


@dataclass(frozen=True, slots=True)
class ListAddress:
    """The parameters of the list as the caller sent them; empty ones are not set."""

    tenant: str = ""
    state: str = ""
    q: str = ""
    sort: str = ""
    cursor: str = ""

    @property
    def is_filtered(self) -> bool:
        return bool(self.tenant or self.state or self.q)

    @property
    def page_size(self) -> int:
        return SORTED_PAGE_SIZE if self.sort else PAGE_SIZE

    def url(self, **changes: str) -> str:
        """Return the address of the list with these changes."""
        return f"/jobs{self.query(**changes)}"

    def sorted_by(self, sort: str) -> str:
        """Return the address of the first page in this order."""
        return self.url(sort=sort, cursor="")

    def in_words(self) -> str:
        """Describe the filter: `vision, failed, "train"`."""
        return ", ".join(filter(None, (self.tenant, self.state, self.q and f'"{self.q}"')))

    def query(self, **changes: str) -> str:
        """Return the query. On the page of a job it leads back to this place in the list."""
        query = urlencode({name: value for name, value in asdict(replace(self, **changes)).items() if value})
        return f"?{query}" if query else ""


async def list_address(
    tenant: Annotated[str, Query(max_length=63)] = "",
    state: Annotated[str, Query(max_length=20)] = "",
    q: Annotated[str, Query(max_length=63, description="A part of the name, or the start of the id")] = "",
    sort: Annotated[str, Query(max_length=20)] = "",
    cursor: Annotated[str, Query(max_length=400)] = "",
) -> ListAddress:
    """Read the parameters. An empty one is not set: a form sends it. FastAPI runs a plain function in a thread."""
    return ListAddress(tenant, state, q.strip(), sort, cursor)


def in_order(views: Iterable[JobView], sort: str) -> list[JobView]:
    """Sort jobs that are newest first; equal ones stay so."""
    return sorted(views, key=SORTS[sort]) if sort else list(views)


def _gpus(view: JobView) -> int:
    return view.spec.resources.gpu if view.spec else 0


def _cost(view: JobView) -> Decimal:
    """Return the cost that the list shows; 0 where it is unknown."""
    return (usd(view.cost.actual or view.cost.ceiling) if view.cost else None) or Decimal()


SORTS: Final[dict[str, Callable[[JobView], Any]]] = {
    "name": lambda view: (view.name or view.id).lower(),
    "state": lambda view: _STATES.index(view.state),
    "gpu": lambda view: -_gpus(view),
    "cost": lambda view: -_cost(view),
}
"""The orders of the list besides newest first."""
