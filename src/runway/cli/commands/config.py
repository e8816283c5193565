"""`runway config`: the settings in force, and where each comes from."""

from __future__ import annotations

import os
from typing import Final

import typer

from runway.cli.client import without_password
from runway.cli.config import PROJECT_FILE, Setting
from runway.cli.habits import config_of
from runway.cli.options import DEFAULT_URL, As, Tenant, Url
from runway.cli.output import Output, Screen, emit
from runway.cli.views.tables import columns

_VARIABLES: Final = {"url": "RUNWAY_URL", "tenant": "RUNWAY_TENANT"}
_OPTIONS: Final = {"url": "--url", "tenant": "--tenant"}


def config(context: typer.Context, output: As = Output.TABLE, url: Url = DEFAULT_URL, tenant: Tenant = None) -> None:
    """Show the settings in force, and where each comes from.

    An option wins over an environment variable, then comes .runway.yaml of the project, then config.yaml of the user.
    The settings are server, tenant, and the defaults of a job: image, resources, pool, timeout_seconds and others.
    """
    files = config_of(context)
    found: list[dict[str, object]] = [
        {"name": name, "value": value, "from": _source(context, option, files.settings.get(name))}
        for name, option, value in (("server", "url", without_password(url)), ("tenant", "tenant", tenant or None))
    ]
    found += [
        {"name": name, "value": setting.value, "from": str(setting.source)}
        for name, setting in files.settings.items()
        if name not in ("server", "tenant")
    ]
    paths = {"project": str(files.project) if files.project else None, "user": str(files.user)}

    def table() -> None:
        screen = Screen(wide=output is Output.WIDE)
        rows = [(each["name"], "none" if each["value"] is None else each["value"], each["from"]) for each in found]
        screen.table(columns("SETTING", "VALUE", "FROM"), rows)
        if files.project is None:
            screen.err(f"There is no {PROJECT_FILE} here or above.", style="dim")
        if not os.path.lexists(files.user):
            screen.err(f"There is no {files.user}.", style="dim")

    emit({"settings": found, "files": paths}, output, names=[str(each["name"]) for each in found], table=table)


def _source(context: typer.Context, option: str, setting: Setting | None) -> str:
    source = context.get_parameter_source(option)
    match source.name if source else "":
        case "COMMANDLINE":
            return _OPTIONS[option]
        case "ENVIRONMENT":
            return _VARIABLES[option]
        case "DEFAULT_MAP" if setting is not None:
            return str(setting.source)
    return "default"
