"""Files that others read and remove meanwhile.

Writes are atomic: a reader sees the old or the new content, even after a kill.
"""

import json
import os
from contextlib import suppress
from pathlib import Path
from typing import Any


def write(path: Path, text: str, *, mode: int = 0o600) -> None:
    """Replace the file at `path` with `text`, and create missing directories."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, mode)
    with os.fdopen(descriptor, "w", encoding="utf-8") as file:
        file.write(text)
    temporary.replace(path)


def write_json(path: Path, value: object) -> None:
    """Replace the file at `path` with `value` as JSON."""
    write(path, json.dumps(value, indent=2, sort_keys=True) + "\n")


def read_json(path: Path) -> Any | None:
    """Return the JSON value in the file, or None if the file is missing or damaged by a machine crash."""
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (FileNotFoundError, json.JSONDecodeError):
        return None


def tail(path: Path, lines: int = 25) -> str:
    """Return the last lines of a log, from at most its last 64 KiB."""
    try:
        with path.open("rb") as file:
            file.seek(0, os.SEEK_END)
            file.seek(max(0, file.tell() - 65536))
            return "\n".join(file.read().decode(errors="replace").splitlines()[-lines:])
    except FileNotFoundError:
        return "(no log)"


def containing(directory: Path, text: str) -> list[Path]:
    """Return the files in a directory that contain `text`. Others may remove theirs meanwhile."""
    found = []
    for path in directory.glob("*"):
        with suppress(FileNotFoundError):
            if text in path.read_text(encoding="utf-8"):
                found.append(path)
    return found


def links_below(directory: Path, target: Path) -> list[Path]:
    """Return the symbolic links in a directory that point below `target`. Others may remove theirs meanwhile."""
    found = []
    for path in directory.glob("*"):
        with suppress(FileNotFoundError):
            if path.is_symlink() and path.readlink().is_relative_to(target):
                found.append(path)
    return found
