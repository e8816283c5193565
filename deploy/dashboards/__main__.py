"""`python -m deploy.dashboards`: write the dashboards that are committed."""

from __future__ import annotations

from deploy.dashboards import DIRECTORY, rendered

for name, text in rendered().items():
    (DIRECTORY / name).write_text(text, encoding="utf-8")
    print(DIRECTORY / name)
