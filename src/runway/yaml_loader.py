"""Strict YAML within bounds, for files that people write.

libyaml checks the structure of a file in one pass before PyYAML builds any value.
"""

from __future__ import annotations

import re
import stat
from collections.abc import Hashable
from pathlib import Path
from typing import Any, Final

import yaml

MAX_FILE_BYTES: Final = 4 << 20  # A policy of 10,000 tenants has 1.2 MB with a line each, and 2.5 MB in block style.
MAX_DEPTH: Final = 50  # Nested mappings and lists. A policy has 5; PyYAML recurses once for each.
MAX_VALUES: Final = 300_000
"""Keys, values and collections. 10,000 tenants have 230,000; the maximum takes 1 s and 150 MB to build."""
MAX_MESSAGE: Final = 300  # Characters of an error message, which can quote a tag or key as long as the file.


class UnreadableYaml(ValueError):
    """An invalid file. The message is one short line, with the line and column if known."""


class StrictLoader(yaml.CSafeLoader):
    """A safe loader that rejects duplicate keys, and keys that are not strings."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Hashable, object]:
        seen: set[Hashable] = set()
        for key_node, _ in node.value:
            key = self.construct_object(key_node, deep=True)
            if not isinstance(key, str):
                raise _fault(f"key {key!r} must be a string", key_node.start_mark)
            if key in seen:
                raise _fault(f"key {key!r} is given twice", key_node.start_mark)
            seen.add(key)
        return super().construct_mapping(node, deep)

    def construct_object(self, node: yaml.Node, deep: bool = False) -> object:
        try:
            return super().construct_object(node, deep)
        except (ValueError, OverflowError) as error:  # From int, float and datetime, which know no line.
            raise _fault(str(error), node.start_mark) from error


def read_file(path: Path) -> bytes:
    """Read a regular file of at most `MAX_FILE_BYTES`, as a pipe can block for ever. Raises UnreadableYaml."""
    try:
        if not stat.S_ISREG(path.stat().st_mode):
            raise UnreadableYaml("is not a regular file")
        with path.open("rb") as file:
            content = file.read(MAX_FILE_BYTES + 1)
    except OSError as error:
        raise UnreadableYaml(f"cannot be read: {error.strerror}") from error
    if len(content) > MAX_FILE_BYTES:
        raise UnreadableYaml(f"is larger than {MAX_FILE_BYTES} bytes")
    return content


def parse(content: bytes | str, loader: type[StrictLoader] = StrictLoader) -> object:
    """Parse the one document in `content`. Raises UnreadableYaml."""
    try:
        _check_structure(content)
        return yaml.load(content, Loader=loader)  # noqa: S506 (a stricter SafeLoader)
    except yaml.YAMLError as error:
        raise UnreadableYaml(
            sanitize_message(re.sub(r'"<(byte|unicode) string>", ', "", " ".join(str(error).split())))
        ) from error


def sanitize_message(text: str) -> str:
    """Return `text` as one short line of ASCII without control characters."""
    short = text if len(text) <= MAX_MESSAGE else text[:MAX_MESSAGE] + "..."
    return short.encode("unicode_escape").decode("ascii")


def _check_structure(content: bytes | str) -> None:
    """Reject tags, deep nesting, too many values, and aliases: a few lines of them expand to billions of values."""
    depth = values = 0
    for event in yaml.parse(content, Loader=yaml.CSafeLoader):
        if isinstance(event, yaml.AliasEvent):
            raise _fault("aliases are not allowed", event.start_mark)
        if isinstance(event, yaml.CollectionEndEvent):
            depth -= 1
        if not isinstance(event, yaml.ScalarEvent | yaml.CollectionStartEvent):
            continue
        if event.tag is not None:
            raise _fault("tags are not allowed", event.start_mark)
        depth += isinstance(event, yaml.CollectionStartEvent)
        values += 1
        if depth > MAX_DEPTH:
            raise _fault(f"nested deeper than {MAX_DEPTH} levels", event.start_mark)
        if values > MAX_VALUES:
            raise _fault(f"more than {MAX_VALUES} values", event.start_mark)


def _fault(problem: str, mark: Any) -> yaml.MarkedYAMLError:
    return yaml.MarkedYAMLError(problem=problem, problem_mark=mark)
