"""`python -m deploy.dashboards`: write the committed dashboard."""

from __future__ import annotations

from deploy.dashboards import FILE, rendered

FILE.write_text(rendered(), encoding="utf-8")
print(FILE)
