"""Comparison of job views."""

from __future__ import annotations

import re

from testbed.http_client import Document


def but_for_free_capacity(view: Document) -> Document:
    """Return a view without the free capacity of nodes, which depends on the jobs of other tests."""
    conditions = [
        condition | {"message": re.sub(r"the most free on one node is [^;]*", "", condition["message"])}
        for condition in view["conditions"]
    ]
    return view | {"conditions": conditions}
