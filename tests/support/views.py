"""Job views, compared."""

from __future__ import annotations

import re

from testbed.http_client import Document


def but_for_free_capacity(view: Document) -> Document:
    """A view without what it says of the node's free capacity, which changes with the jobs of other tests."""
    conditions = [
        condition | {"message": re.sub(r"the most that is free on one node is [^;]*", "", condition["message"])}
        for condition in view["conditions"]
    ]
    return view | {"conditions": conditions}
