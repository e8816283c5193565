"""The docstrings of fields, which are their descriptions in OpenAPI.

`use_attribute_docstrings` of pydantic parses the module again for each use of a class, at import: a quarter of the
CPU time of the server's start. This reads each module once, when the document is made.
"""

from __future__ import annotations

import ast
import inspect
import sys
from collections.abc import Iterator, Mapping
from functools import cache
from itertools import pairwise


def field_docstrings(cls: type) -> dict[str, str]:
    """Return the docstrings of the fields of a class and its bases, by field."""
    found: dict[str, str] = {}
    for base in reversed(cls.__mro__):
        found |= _by_class(base.__module__).get(base.__qualname__, {})
    return found


@cache
def _by_class(module: str) -> Mapping[str, dict[str, str]]:
    """Return the docstrings of the fields of each class at the top of a module."""
    if not module.startswith("runway."):
        return {}
    tree = ast.parse(inspect.getsource(sys.modules[module]))
    return {node.name: dict(_docstrings(node)) for node in tree.body if isinstance(node, ast.ClassDef)}


def _docstrings(node: ast.ClassDef) -> Iterator[tuple[str, str]]:
    for field, following in pairwise(node.body):
        match field, following:
            case ast.AnnAssign(target=ast.Name(id=name)), ast.Expr(value=ast.Constant(value=str(text))):
                yield name, inspect.cleandoc(text)
