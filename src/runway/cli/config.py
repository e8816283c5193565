"""Defaults of the command line from two files: `.runway.yaml` of the project, and `config.yaml` of the user.

The project's file is the nearest one from the working directory up to the root of its git repository or the home
directory; elsewhere only the working directory counts. A file that others can write is refused: it could send jobs and
their environment to another server.
"""

from __future__ import annotations

import os
import re
import stat
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final
from urllib.parse import urlsplit

from runway.cli.spec import RESOURCES, SpecLoader, as_fields, check_names
from runway.jobs.models import TENANT_PATTERN
from runway.text import escape
from runway.yaml_loader import parse

PROJECT_FILE: Final = ".runway.yaml"
MAX_BYTES: Final = 64 << 10
JOB_FIELDS: Final = (
    "image", "pool", "timeout_seconds", "start_timeout_seconds", "retries", "grace_period_seconds", "max_cost_usd",
    "user", "working_dir",
)  # fmt: skip
NOT_SETTINGS: Final = frozenset({"secret", "volume"})
"""Options whose fields no file may set."""
KEYS: Final = ("server", "tenant", *JOB_FIELDS, "resources")


class ConfigError(ValueError):
    """A file that exists and cannot be used. The message names it."""


@dataclass(frozen=True, slots=True)
class Setting:
    """A value and the file that sets it."""

    value: str | int | float
    source: Path


@dataclass(frozen=True, slots=True)
class Config:
    """The settings of both files by name, such as `tenant` or `resources.cpu`; the project's file wins."""

    settings: Mapping[str, Setting]
    project: Path | None
    user: Path

    @property
    def job(self) -> dict[str, object]:
        """Return the defaults of a job as fields of a spec."""
        values = {name: setting.value for name, setting in self.settings.items() if name not in ("server", "tenant")}
        resources = {name.partition(".")[2]: value for name, value in values.items() if "." in name}
        fields: dict[str, object] = {name: value for name, value in values.items() if "." not in name}
        return fields | ({"resources": resources} if resources else {})


EMPTY: Final = Config({}, None, Path())


def load_config() -> Config:
    """Read the files of this process's user and working directory. Raises ConfigError."""
    home = _home()
    try:
        project = find_project_file(Path.cwd(), home)
    except OSError:  # The working directory was deleted.
        project = None
    base = os.environ.get("XDG_CONFIG_HOME", "")
    # https://specifications.freedesktop.org/basedir-spec/latest/: a relative path is invalid.
    user = (Path(base) if base.startswith("/") else home / ".config") / "runway" / "config.yaml"
    settings = {name: Setting(value, user) for name, value in read_config(user).items()}
    if project is not None:
        settings |= {name: Setting(value, project) for name, value in read_config(project).items()}
    return Config(settings, project, user)


def find_project_file(start: Path, home: Path) -> Path | None:
    """Return the nearest `.runway.yaml`, `start` first."""
    directories = [start, *start.parents]
    last = next((each for each in directories if each == home or os.path.lexists(each / ".git")), start)
    for directory in directories[: directories.index(last) + 1]:
        if os.path.lexists(directory / PROJECT_FILE):
            return directory / PROJECT_FILE
    return None


def read_config(path: Path) -> dict[str, str | int | float]:
    """Return the settings of a file by name; {} where it does not exist. Raises ConfigError."""
    try:
        content = _content(path)
        return {} if content is None else dict(_settings(content))
    except OSError as error:
        raise ConfigError(escape(f"{path} cannot be read: {error.strerror}")) from error
    except (ValueError, RecursionError) as error:
        raise ConfigError(escape(f"{path}: {' '.join(str(error).split())}")) from error


def _content(path: Path) -> bytes | None:
    try:
        # A pipe would block without O_NONBLOCK.
        descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError:
        if os.path.lexists(path):
            raise
        return None  # Also in a directory that cannot be searched: an image can set HOME=/root for another user.
    with os.fdopen(descriptor, "rb") as file:
        about = os.fstat(descriptor)
        if (distrust := reason_to_distrust(about.st_mode, about.st_uid, os.geteuid())) is not None:
            raise ValueError(distrust)
        content = file.read(MAX_BYTES + 1)
    if len(content) > MAX_BYTES:
        raise ValueError(f"it is larger than {MAX_BYTES} bytes")
    return content


def reason_to_distrust(mode: int, owner: int, user: int) -> str | None:
    """Return why `user` cannot trust a file of this mode and owner; None if only the user and root can write it."""
    if not stat.S_ISREG(mode):
        return "it is not a regular file"
    if owner not in (0, user):
        return f"it belongs to another user ({owner}), who could redirect your jobs; make the file yours"
    if mode & (stat.S_IWGRP | stat.S_IWOTH):
        return "others can write it, and so redirect your jobs; run chmod go-w on it"
    return None


def _home() -> Path:
    try:
        return Path.home()
    except RuntimeError:  # Neither HOME nor an entry for this user exists.
        return Path("/nonexistent")


def _settings(content: bytes) -> Iterable[tuple[str, str | int | float]]:
    document = parse(content.decode("utf-8"), SpecLoader)
    if document is None:  # Only comments.
        return
    if not isinstance(document, dict):
        raise ValueError("it must be one mapping")
    check_names(sorted(document.keys() - NOT_SETTINGS))
    if unknown := document.keys() - set(KEYS):
        raise ValueError(f"{min(unknown)} is not a setting; settings: {', '.join(KEYS)}")
    fields = as_fields(document)
    resources = fields.pop("resources", {})
    if not isinstance(resources, dict):
        raise ValueError("resources must be a mapping")
    if unknown := resources.keys() - set(RESOURCES):
        raise ValueError(f"resources.{min(unknown)} is not a resource; resources: {', '.join(RESOURCES)}")
    for name, value in (fields | {f"resources.{name}": value for name, value in resources.items()}).items():
        yield name, _checked(name, value)


def _checked(name: str, value: object) -> str | int | float:
    if not isinstance(value, str | int | float):
        raise ValueError(f"{name} must be one value")
    if name == "server" and not _is_url(value):
        raise ValueError(f"server {value!r} is not a URL such as http://127.0.0.1:8000")
    if name == "tenant" and not re.fullmatch(TENANT_PATTERN, str(value)):
        raise ValueError(f"tenant {value!r} is not the name of a tenant")
    return value


def _is_url(value: object) -> bool:
    try:
        parts = urlsplit(str(value))
        return parts.scheme in ("http", "https") and bool(parts.hostname) and "@" not in parts.netloc
    except ValueError:
        return False
