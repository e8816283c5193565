"""Mutate Kubernetes objects with hostile values, for fuzzing."""

from __future__ import annotations

import copy
import random
from collections.abc import Iterator
from typing import Any, Final

Json = dict[str, Any]
Path = tuple[str | int, ...]

TIMES: Final = (
    "10000-01-01T00:00:00Z", "9999-12-31T23:59:59-23:59", "9999-12-31T23:59:59Z", "0001-01-01T00:00:00Z",
    "0001-01-01T00:00:00+23:59", "1969-12-31T23:59:59Z", "2200-12-31T23:59:59Z", "2026-11-24T08:00:00",
    "2026-02-30T08:00:00Z", "2026-11-24T08:00:00.123456789123Z", "yesterday", "", "\u0662026-11-24T08:00:00Z",
)  # fmt: skip
NUMBERS: Final = (0, -1, 2**31, 2**63 - 1, -(2**63), 10**18, 10**40, 1.5, -0.0, 1e308, True)
TEXTS: Final = (
    "", "\0", "\x1b[31mred\x1b]0;title\x07", "\u202eevil", "\ud7ff\uffff", "<script>alert(1)</script>", "{{7*7}}",
    "x" * 300_000, "\x1b" * 20_000, "\r\n" * 5000, "1" * 40, "1e9999", "-5", "NaN", "\u0663", "../../etc/passwd",
    "[" * 20_000, '{"version": 1}', "Complete", "Failed", "True", "DisruptionTarget", "job",
)  # fmt: skip


def paths(value: Any, here: Path = ()) -> Iterator[Path]:
    """Yield the path of every part of a JSON value, including the value itself."""
    yield here
    if isinstance(value, dict):
        for name, part in value.items():
            yield from paths(part, (*here, name))
    elif isinstance(value, list):
        for at, part in enumerate(value):
            yield from paths(part, (*here, at))


def mutated(item: Json, chance: random.Random, times: int) -> Json:
    """Return the object with some parts replaced, removed or duplicated; its identity stays unchanged."""
    item = copy.deepcopy(item)
    for _ in range(times):
        places = [path for path in paths(item) if len(path) > 1 and path[:2] not in _IDENTITY]
        _mutate(item, chance.choice(places), chance)
    return item


_IDENTITY: Final = {("metadata", name) for name in ("namespace", "name", "uid", "resourceVersion")}


def _mutate(item: Json, path: Path, chance: random.Random) -> None:
    parent: Any = item
    for step in path[:-1]:
        parent = parent[step]
    last: Any = path[-1]
    match chance.randrange(5):
        case 0:
            del parent[last]
        case 1 if isinstance(parent, list):
            parent.extend(copy.deepcopy(parent) * chance.choice((1, 100)))
        case 2 if isinstance(parent, dict):
            parent[chance.choice(TEXTS)[:100]] = parent[last]
        case _:
            parent[last] = _value(chance, depth=2)


def _value(chance: random.Random, depth: int) -> Any:
    match chance.randrange(7 if depth else 5):
        case 0:
            return None
        case 1:
            return chance.choice(NUMBERS)
        case 2 | 3:
            return chance.choice(TIMES)
        case 4:
            return chance.choice(TEXTS)
        case 5:
            return [_value(chance, depth - 1) for _ in range(chance.randrange(4))]
        case _:
            return {chance.choice(TEXTS)[:50]: _value(chance, depth - 1) for _ in range(chance.randrange(4))}
