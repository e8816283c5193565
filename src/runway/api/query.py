"""Query parameters: those that a route declares, each once unless it takes several."""

from __future__ import annotations

from typing import Any, get_args, get_origin

from fastapi import Request
from fastapi.routing import APIRoute

from runway.errors import InvalidParameter, Violation


async def only_known_parameters(request: Request) -> None:
    """Refuse a parameter that the route does not declare, or that is sent twice. Raises InvalidParameter.

    A slip must not be taken for something else: `?dryrun=true` would submit a job.
    """
    names = [name for name, _ in request.query_params.multi_items()]
    if not names:
        return
    known = _declared(request)
    here = f"parameters here: {', '.join(known)}" if known else "there are no parameters here"
    strangers = [name for name in dict.fromkeys(names) if name not in known]
    violations = [
        Violation(_shown(name), "unknown_parameter", "is not known here", hint=here) for name in strangers[:20]
    ]
    violations += [
        Violation(name, "repeated_parameter", f"is sent {names.count(name)} times", hint="send it once")
        for name, several in known.items()
        if names.count(name) > 1 and not several
    ]
    if violations:
        raise InvalidParameter("a query parameter is not acceptable", violations=tuple(violations))


def _declared(request: Request) -> dict[str, bool]:
    """The parameters of the route, and which of them takes several."""
    route = request.scope["route"]
    assert isinstance(route, APIRoute)  # noqa: S101 (this is a dependency of API routes only)
    return {field.alias: _is_list(field.field_info.annotation) for field in route.dependant.query_params}


def _is_list(annotation: Any) -> bool:
    """Whether a parameter's type is a list, or may be one."""
    return get_origin(annotation) is list or any(map(_is_list, get_args(annotation)))


def _shown(name: str) -> str:
    """A name of the caller's made fit to be shown."""
    return "".join(letter if letter.isprintable() else f"\\u{ord(letter):04x}" for letter in name[:80]) or '""'
