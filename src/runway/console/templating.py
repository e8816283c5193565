"""Pages: Jinja2 templates, their filters, and the static files they use.

Defence in depth: Jinja2 escapes every value, hidden characters included, and the Content Security Policy allows no
script, style, frame or connection but those of this origin. https://www.w3.org/TR/CSP3/
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import datetime
from decimal import Decimal
from importlib.resources import files
from typing import Any, Final

from fastapi.responses import Response
from jinja2 import Environment, PackageLoader, StrictUndefined

from runway import __version__
from runway.quantity import parse_bytes, parse_cpu
from runway.text import escape, show_between, show_bytes, show_duration, show_ratio, show_usd

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
"""The policy of a page. `http_server` adds the other security headers to every answer."""

_MEDIA_TYPES: Final = {
    "console.css": "text/css; charset=utf-8",
    "console.js": "text/javascript; charset=utf-8",
    "icon.svg": "image/svg+xml",
}


@dataclass(frozen=True, slots=True)
class StaticFile:
    """A static file. `path` contains a hash of its content, so a cached copy never becomes stale."""

    path: str
    content: bytes
    media_type: str


def _load(name: str, media_type: str) -> StaticFile:
    content = files("runway.console").joinpath("static", name).read_bytes()
    stem, _, extension = name.rpartition(".")
    return StaticFile(f"/static/{stem}.{hashlib.sha256(content).hexdigest()[:12]}.{extension}", content, media_type)


_static_files: Final = {name: _load(name, media_type) for name, media_type in _MEDIA_TYPES.items()}
STATIC_FILES: Final = {file.path: file for file in _static_files.values()}
"""The static files by path."""


def render_page(
    template: str, values: Mapping[str, object], *, status: int = 200, headers: Mapping[str, str] | None = None
) -> Response:
    """Return the page of this template and these values."""
    return html_response(render(template, values), status=status, headers=headers)


def render(template: str, values: Mapping[str, object]) -> str:
    """Return the HTML of this template and these values."""
    return _environment.get_template(template).render(values)


def html_response(html: str, *, status: int = 200, headers: Mapping[str, str] | None = None) -> Response:
    """Return a page of this HTML, under the policy of all pages."""
    return Response(
        html,
        status_code=status,
        media_type="text/html",
        headers={"Content-Security-Policy": CONTENT_SECURITY_POLICY, "Cache-Control": "no-store", **(headers or {})},
    )


def show_time(time: datetime) -> str:
    """Show a time in UTC for people: `2026-11-24 08:00:00`."""
    return f"{time:%Y-%m-%d %H:%M:%S}"


def rfc3339(time: datetime) -> str:
    """Return a time in RFC 3339, for the attribute of a `time` element."""
    return time.isoformat().replace("+00:00", "Z")


def show_cores(milli: int) -> str:
    """Show milli-CPU as CPUs: `0.5`, `32`."""
    return f"{milli / 1000:g}"


def show_micro_usd(micro: int) -> str:
    """Show micro-USD as USD."""
    return show_usd(Decimal(micro).scaleb(-6))


def show_quantity(text: str, parse: Callable[[str], int], show: Callable[[int], str]) -> str:
    """Show a stored quantity as all amounts are shown. An edited annotation may hold any text."""
    try:
        return show(parse(text))
    except ValueError:
        return escape(text)


def sentence(text: str) -> str:
    """Begin a text with a capital, and end it with a full stop."""
    return text[:1].upper() + text[1:] + ("" if text.endswith((".", "?", "!")) else ".")


def _escape_untrusted(value: Any) -> Any:
    """Escape hidden and steering characters. Markup is the output of a macro, whose parts were escaped before."""
    return escape(value, keep="\n\t") if isinstance(value, str) and not hasattr(value, "__html__") else value


_INLINE: Final = re.compile(r"`(?P<code>[^`]+)`|\[(?P<label>[^\]]+)\]\((?P<href>#[\w-]+|https://[^\s)]+)\)")


@dataclass(frozen=True, slots=True)
class Inline:
    """A piece of a line: text or code; `href`, an anchor of the page or an https address, makes it a link."""

    text: str
    is_code: bool = False
    href: str | None = None


@dataclass(frozen=True, slots=True)
class Block:
    """A paragraph, which has one text, or a list."""

    texts: tuple[str, ...]
    is_list: bool = False


def pieces(line: str) -> list[Inline]:
    """Split a line into pieces that together have all of its text."""
    found, end = [], 0
    for match in _INLINE.finditer(line):
        if match.start() > end:
            found.append(Inline(line[end : match.start()]))
        label = match["label"] or ""
        found.append(
            Inline(match["code"], is_code=True)
            if match["code"]
            else Inline(label.strip("`"), is_code=label.startswith("`"), href=match["href"])
        )
        end = match.end()
    return found + ([Inline(line[end:])] if end < len(line) else [])


def blocks(text: str) -> list[Block]:
    """Split a text into paragraphs and lists, and join their wrapped lines."""
    return [_block(part) for part in re.split(r"\n\s*\n", text.strip())]


def _block(part: str) -> Block:
    is_list = part.startswith("- ")
    texts = re.split(r"\n- ", part[2:]) if is_list else [part]
    return Block(tuple(" ".join(one.split()) for one in texts), is_list)


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
    environment.globals |= {"asset": {name: file.path for name, file in _static_files.items()}, "version": __version__}
    environment.filters |= {
        "between": show_between,
        "blocks": blocks,
        "bytes": show_bytes,
        "cores": show_cores,
        "cpu": lambda text: show_quantity(text, parse_cpu, show_cores),
        "duration": show_duration,
        "memory": lambda text: show_quantity(text, parse_bytes, show_bytes),
        "pieces": pieces,
        "ratio": show_ratio,
        "rfc3339": rfc3339,
        "sentence": sentence,
        "time": show_time,
        "usd": show_usd,
    }
    return environment


_environment: Final = _make_environment()
