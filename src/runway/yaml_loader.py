"""YAML without its traps: a person's file is read as written, or refused within bounds.

Files of up to `MAX_FILE_BYTES` are read; libyaml checks their form in one pass before any value is built.
"""

from __future__ import annotations

import re
import stat
from collections.abc import Hashable
from pathlib import Path
from typing import Any, Final

import yaml

MAX_FILE_BYTES: Final = 4 << 20
"""Bytes of a file: 10,000 tenants take 1.2 MB on a line each and 2.5 MB in block style."""
MAX_DEPTH: Final = 50
"""Mappings and lists within one another; a policy has 5. PyYAML recurses once for each."""
MAX_VALUES: Final = 300_000
"""Keys, values and collections in a file; 10,000 tenants have 230,000. This many take 1 s and 150 MB to build."""
MAX_MESSAGE: Final = 300
"""Characters of an error message: a tag or key in it can be as long as the file."""

_PLACE: Final = re.compile(r'"<(byte|unicode) string>", ')


class UnreadableYaml(ValueError):
    """A file that is not YAML as it is used here. The message is one short line, and names the place where known."""


class StrictLoader(yaml.CSafeLoader):
    """A safe loader that refuses keys that are not text, and a key given twice (where the last one would win)."""

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
        except (ValueError, OverflowError) as error:  # Of int, float and datetime, which do not know the place.
            raise _fault(str(error), node.start_mark) from error


def read_file(path: Path) -> bytes:
    """Read a regular file of at most `MAX_FILE_BYTES`. Raises Unreadable.

    A pipe or a device is refused: it may never end, or never begin.
    """
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
    """Parse the one document in `content`. Raises Unreadable."""
    try:
        _check_form(content)
        return yaml.load(content, Loader=loader)  # noqa: S506 (a stricter SafeLoader)
    except yaml.YAMLError as error:
        raise UnreadableYaml(sanitize_message(_PLACE.sub("", " ".join(str(error).split())))) from error


def sanitize_message(text: str) -> str:
    """`text` as one short line of ASCII, which cannot steer a terminal."""
    cut = text if len(text) <= MAX_MESSAGE else text[:MAX_MESSAGE] + "..."
    return cut.encode("unicode_escape").decode("ascii")


def _check_form(content: bytes | str) -> None:
    """Refuse aliases, tags, deep nesting and too many values. Raises yaml.YAMLError.

    An alias repeats what it names, so a few lines can stand for billions of values.
    """
    depth = values = 0
    for event in yaml.parse(content, Loader=yaml.CSafeLoader):
        if isinstance(event, yaml.AliasEvent):
            raise _fault("aliases are not used here", event.start_mark)
        if isinstance(event, yaml.CollectionEndEvent):
            depth -= 1
        if not isinstance(event, yaml.ScalarEvent | yaml.CollectionStartEvent):
            continue
        if event.tag is not None:
            raise _fault("tags are not used here", event.start_mark)
        depth += isinstance(event, yaml.CollectionStartEvent)
        if depth > MAX_DEPTH:
            raise _fault(f"nested deeper than {MAX_DEPTH} levels", event.start_mark)
        values += 1
        if values > MAX_VALUES:
            raise _fault(f"more than {MAX_VALUES} values", event.start_mark)


def _fault(problem: str, mark: Any) -> yaml.MarkedYAMLError:
    """An error at a place; `mark` is PyYAML's or libyaml's."""
    return yaml.MarkedYAMLError(problem=problem, problem_mark=mark)
