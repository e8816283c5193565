"""Strict YAML within bounds, for files that people write.

libyaml checks the structure of a file in one pass before PyYAML builds any value.
"""

from __future__ import annotations

import os
import re
import stat
from collections.abc import Hashable, Iterator
from pathlib import Path
from typing import Any, ClassVar, Final

import yaml

MAX_FILE_BYTES: Final = 4 << 20  # A policy of 10,000 tenants has 1.2 MB with a line each, and 2.5 MB in block style.
MAX_DEPTH: Final = 50  # Nested mappings and lists. A policy has 5; PyYAML recurses once for each.
MAX_VALUES: Final = 300_000
"""Keys, values and collections. 10,000 tenants have 230,000; the maximum takes 1 s and 150 MB to build."""
MAX_MESSAGE: Final = 300  # Characters of an error message, which can quote a tag or key as long as the file.

_SPECIAL_KEYS: Final = ("tag:yaml.org,2002:merge", "tag:yaml.org,2002:value")  # `<<` and `=`
_PROBLEMS: Final = {"but found another document": "a second document begins here: give only one"}
"""Messages of libyaml that need their context, and what replaces both."""


YamlPath = tuple[str | int, ...]


class UnreadableYaml(ValueError):
    """An invalid file. The message is one short line, with the line and column if known.

    `problem` is the message without the position, and `line` the line, counted from 1.
    """

    def __init__(self, message: str, problem: str | None = None, line: int | None = None) -> None:
        super().__init__(message)
        self.problem = problem or message
        self.line = line


class DuplicateKey(UnreadableYaml):
    """A mapping with a key that is given twice."""


class _DuplicateKeyFault(yaml.MarkedYAMLError):
    pass


class StrictLoader(yaml.CSafeLoader):
    """A safe loader that rejects duplicate keys, and keys that are not strings. Dates stay text: no field is one."""

    yaml_implicit_resolvers = {  # noqa: RUF012 (as in the base class)
        first: [(tag, pattern) for tag, pattern in resolvers if tag != "tag:yaml.org,2002:timestamp"]
        for first, resolvers in yaml.CSafeLoader.yaml_implicit_resolvers.items()
    }
    takes_last_duplicate: ClassVar[bool] = False
    """Whether the last value of a duplicate key counts, for a caller that reports the others apart."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Hashable, object]:
        seen: set[Hashable] = set()
        for key_node, _ in node.value:
            if key_node.tag in _SPECIAL_KEYS:
                raise _fault(f"key {key_node.value} is not allowed", key_node.start_mark)
            key = self.construct_object(key_node, deep=True)
            if not isinstance(key, str):
                raise _fault(f"key {key!r} must be a string: put it in quotes", key_node.start_mark)
            if key in seen and not self.takes_last_duplicate:
                raise _DuplicateKeyFault(problem=f"key {key!r} is given twice", problem_mark=key_node.start_mark)
            seen.add(key)
        return super().construct_mapping(node, deep)

    def construct_object(self, node: yaml.Node, deep: bool = False) -> object:
        try:
            return super().construct_object(node, deep)
        except (ValueError, OverflowError) as error:  # From int and float, which know no line.
            raise _fault(str(error), node.start_mark) from error


def read_file(path: Path) -> bytes:
    """Read a regular file of at most `MAX_FILE_BYTES`, as a pipe can block for ever. Raises UnreadableYaml.

    A file that changes meanwhile is refused: half of an edit can be valid.
    """
    return _read(path)[0]


def read_private_file(path: Path) -> bytes:
    """Read a file as `read_file` does, unless every user of the machine can write it. Raises UnreadableYaml."""
    content, about = _read(path)
    if about.st_mode & stat.S_IWOTH:
        raise UnreadableYaml("can be written by every user: run chmod o-w on it")
    return content


def _read(path: Path) -> tuple[bytes, os.stat_result]:
    try:
        # Opening a pipe would block without O_NONBLOCK.
        with open(path, "rb", opener=lambda name, flags: os.open(name, flags | os.O_NONBLOCK)) as file:
            before = os.fstat(file.fileno())
            content = file.read(MAX_FILE_BYTES + 1) if stat.S_ISREG(before.st_mode) else b""
            after = os.fstat(file.fileno())
    except IsADirectoryError as error:
        raise UnreadableYaml("is not a regular file") from error
    except OSError as error:
        raise UnreadableYaml(f"cannot be read: {error.strerror}") from error
    if not stat.S_ISREG(before.st_mode):
        raise UnreadableYaml("is not a regular file")
    if len(content) > MAX_FILE_BYTES:
        raise UnreadableYaml(f"is larger than {MAX_FILE_BYTES} bytes")
    if (before.st_size, before.st_mtime_ns) != (after.st_size, after.st_mtime_ns) or len(content) != after.st_size:
        raise UnreadableYaml("changed while it was read: read it again after the edit")
    return content, after


def parse(content: bytes | str, loader: type[StrictLoader] = StrictLoader) -> object:
    """Parse the one document in `content`. Raises UnreadableYaml."""
    try:
        _check_structure(content)
        return yaml.load(content, Loader=loader)  # noqa: S506 (a stricter SafeLoader)
    except yaml.YAMLError as error:
        kind = DuplicateKey if isinstance(error, _DuplicateKeyFault) else UnreadableYaml
        message = re.sub(r'"<(byte|unicode) string>", ', "", " ".join(str(error).split()))
        problem, line = _position(error, content)
        raise kind(sanitize_message(message), problem and sanitize_message(problem), line) from error


class Source:
    """The positions of a document's keys and values, for messages about it. Lines count from 1.

    A path has the keys and indexes from the root, as pydantic names a fault.
    """

    def __init__(self, content: bytes | str) -> None:
        self._root = yaml.compose(content, Loader=yaml.CSafeLoader)

    def line(self, path: YamlPath) -> int | None:
        """Return the line of the key or entry, or of the nearest one above it that exists."""
        mark = self._root.start_mark if self._root else None
        for name, node in self._walk(path):
            mark = (name or node).start_mark
        return mark.line + 1 if mark else None

    def text(self, path: YamlPath) -> str | None:
        """Return a scalar as it is written, an empty one as `null`; None for any other value, and without one."""
        found = list(self._walk(path))
        node = found[-1][1] if len(found) == len(path) and found else None
        if not isinstance(node, yaml.ScalarNode):
            return None
        return f'"{node.value}"' if node.style in ('"', "'") else str(node.value) or "null"

    def duplicates(self) -> Iterator[tuple[YamlPath, int, int]]:
        """Yield each key that is given again: its path, its line, and the line where it is given first."""
        pending: list[tuple[YamlPath, yaml.Node | None]] = [((), self._root)]
        while pending:
            path, node = pending.pop()
            firsts: dict[str, yaml.Node] = {}
            members = node.value if isinstance(node, yaml.MappingNode) else []
            for key, value in members:
                if (first := firsts.setdefault(str(key.value), key)) is not key:
                    yield (*path, str(key.value)), key.start_mark.line + 1, first.start_mark.line + 1
                pending.append(((*path, str(key.value)), value))
            if isinstance(node, yaml.SequenceNode):
                pending += [((*path, at), item) for at, item in enumerate(node.value)]

    def _walk(self, path: YamlPath) -> Iterator[tuple[yaml.Node | None, yaml.Node]]:
        """Yield key (None in a list) and value of each step of the path that exists; the last duplicate counts."""
        node = self._root
        for step in path:
            if isinstance(node, yaml.MappingNode):
                pairs = [(key, value) for key, value in node.value if key.value == step]
            elif isinstance(node, yaml.SequenceNode) and isinstance(step, int) and step < len(node.value):
                pairs = [(None, node.value[step])]
            else:
                return
            if not pairs:
                return
            yield pairs[-1]
            node = pairs[-1][1]


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


def _position(error: yaml.YAMLError, content: bytes | str) -> tuple[str | None, int | None]:
    """Return the message without its position, and the line."""
    if isinstance(error, yaml.reader.ReaderError):
        newline = "\n" if isinstance(content, str) else b"\n"
        line = content[: error.position].count(newline) + 1  # type: ignore[arg-type]
        return f"unacceptable character #x{error.character:04x}: {error.reason}", line
    if not isinstance(error, yaml.MarkedYAMLError):
        return None, None
    mark = error.problem_mark or error.context_mark
    problem, context = error.problem or "", f" ({error.context})" if error.context else ""
    return _PROBLEMS.get(problem, f"{problem}{context}"), mark.line + 1 if mark else None


def _fault(problem: str, mark: Any) -> yaml.MarkedYAMLError:
    return yaml.MarkedYAMLError(problem=problem, problem_mark=mark)
