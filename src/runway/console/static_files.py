"""The static files of the pages: few, small, read once, and named by their content so that they never go stale."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from importlib.resources import files
from typing import Final

_TYPES: Final = {
    "console.css": "text/css; charset=utf-8",
    "console.js": "text/javascript; charset=utf-8",
    "icon.svg": "image/svg+xml",
}


@dataclass(frozen=True, slots=True)
class StaticFile:
    """A file as it is sent; `path` holds a hash of its content."""

    path: str
    content: bytes
    media_type: str


def _load(name: str, media_type: str) -> StaticFile:
    content = files("runway.console").joinpath("static", name).read_bytes()
    stem, _, ending = name.rpartition(".")
    return StaticFile(f"/static/{stem}.{hashlib.sha256(content).hexdigest()[:12]}.{ending}", content, media_type)


BY_NAME: Final = {name: _load(name, media_type) for name, media_type in _TYPES.items()}
BY_PATH: Final = {asset.path: asset for asset in BY_NAME.values()}
