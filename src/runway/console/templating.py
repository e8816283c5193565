"""How a page is made: Jinja2 with everything escaped, and a policy that lets a browser run nothing but our own files.

Two nets, each enough by itself: whatever stands in a template is escaped, hidden characters included; and what would be
markup all the same is not run, since the policy allows no script, style, frame or connection but those of this origin.
https://www.w3.org/TR/CSP3/
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from fastapi.responses import Response
from jinja2 import Environment, PackageLoader, StrictUndefined

from runway import __version__
from runway.console import filters, markdown
from runway.console.static_files import BY_NAME
from runway.text import bytes_in_words, visible

CONTENT_SECURITY_POLICY: Final = "; ".join(
    (
        "default-src 'none'",
        "script-src 'self'",
        "style-src 'self'",
        "img-src 'self'",
        "connect-src 'self'",
        "base-uri 'none'",
        "form-action 'self'",
        "frame-ancestors 'none'",
    )
)
"""Of a page. The other security headers are those of every answer (`http/headers.py`)."""


def render_page(
    template: str, values: Mapping[str, object], *, status: int = 200, headers: Mapping[str, str] | None = None
) -> Response:
    """The page that this template makes of these values."""
    return html_response(render(template, values), status=status, headers=headers)


def render(template: str, values: Mapping[str, object]) -> str:
    """The text of that page."""
    return _environment.get_template(template).render(values)


def html_response(text: str, *, status: int = 200, headers: Mapping[str, str] | None = None) -> Response:
    """A page of this text, under the policy of all pages."""
    return Response(
        text,
        status_code=status,
        media_type="text/html",
        headers={"Content-Security-Policy": CONTENT_SECURITY_POLICY, "Cache-Control": "no-store", **(headers or {})},
    )


def _escape_untrusted(value: Any) -> Any:
    """What a template prints, with every character that cannot be seen, or that turns text around, as an escape.

    Markup is our own: the output of a macro, the parts of which have been here before.
    """
    return visible(value, keep="\n\t") if isinstance(value, str) and not hasattr(value, "__html__") else value


def _make_environment() -> Environment:
    environment = Environment(
        loader=PackageLoader("runway.console"),
        autoescape=True,
        undefined=StrictUndefined,
        finalize=_escape_untrusted,
        trim_blocks=True,
        lstrip_blocks=True,
        auto_reload=False,
    )
    environment.globals |= {"asset": {name: asset.path for name, asset in BY_NAME.items()}, "version": __version__}
    environment.filters |= {
        "between": filters.between,
        "blocks": markdown.blocks,
        "bytes": bytes_in_words,
        "cores": filters.cores,
        "duration": filters.duration,
        "machine": filters.machine,
        "money": filters.money,
        "percent": filters.percent,
        "pieces": markdown.pieces,
        "stamp": filters.stamp,
    }
    return environment


_environment: Final = _make_environment()
