"""Parse infra/terraform as plain data with python-hcl2."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import hcl2

CHECKOUT = Path(__file__).resolve().parents[2]
MODULE = CHECKOUT / "infra" / "terraform"

Body = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Module:
    """Resources and data sources by address ("aws_vpc.this", "data.aws_x.y"), the rest by name."""

    resources: dict[str, Body] = field(default_factory=dict)
    data: dict[str, Body] = field(default_factory=dict)
    variables: dict[str, Body] = field(default_factory=dict)
    outputs: dict[str, Body] = field(default_factory=dict)
    local_values: dict[str, Any] = field(default_factory=dict)
    settings: list[Body] = field(default_factory=list)
    providers: dict[str, Body] = field(default_factory=dict)
    modules: dict[str, Body] = field(default_factory=dict)

    def of_type(self, kind: str) -> dict[str, Body]:
        """Return the resources or data sources of one type by address. Raises AssertionError if there are none."""
        found = {name: body for name, body in {**self.resources, **self.data}.items() if kind in name.split(".")[:-1]}
        assert found, f"infra/terraform has no {kind}"
        return found

    def the(self, kind: str) -> Body:
        """Return the only resource of a type."""
        [body] = self.of_type(kind).values()
        return body


def load(directory: Path = MODULE) -> Module:
    """Parse every .tf file of a directory."""
    module = Module()
    for path in sorted(directory.glob("*.tf")):
        add(module, path.read_text(encoding="utf-8"))
    return module


def parse(text: str) -> Module:
    """Parse one file's text."""
    module = Module()
    add(module, text)
    return module


def add(module: Module, text: str) -> None:
    """Add the declarations of one file."""
    document = plain(hcl2.loads(text))
    named = {
        "variable": module.variables,
        "output": module.outputs,
        "provider": module.providers,
        "module": module.modules,
    }
    for keyword, entries in document.items():
        for entry in entries:
            if keyword == "terraform":
                module.settings.append(entry)
            elif keyword == "locals":
                module.local_values.update(entry)
            elif keyword in ("resource", "data"):
                target, prefix = (module.resources, "") if keyword == "resource" else (module.data, "data.")
                for kind, instances in entry.items():
                    target.update({f"{prefix}{kind}.{label}": body for label, body in instances.items()})
            else:
                named[keyword].update(entry)


def plain(value: Any) -> Any:
    """Remove the quotes of strings and the block markers of python-hcl2."""
    if isinstance(value, dict):
        return {plain(key): plain(inner) for key, inner in value.items() if not key.startswith("__")}
    if isinstance(value, list):
        return [plain(inner) for inner in value]
    if isinstance(value, str) and len(value) > 1 and value[0] == value[-1] == '"':
        return value[1:-1]
    return value
