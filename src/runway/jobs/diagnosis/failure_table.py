"""Generate the tables of docs/features.md: `python -m runway.jobs.diagnosis.failure_table docs/features.md`."""

from __future__ import annotations

import re
import sys
from pathlib import Path

from runway.jobs.diagnosis.codes import MEANINGS
from runway.jobs.diagnosis.conditions import CONDITIONS


def with_tables(document: str) -> str:
    """The document with the tables between its marks made anew. Raises ValueError where a mark is missing."""
    return _between(_between(document, "failures", _failures()), "conditions", _conditions())


def main(path: str) -> None:
    """Write the tables into the file."""
    file = Path(path)
    file.write_text(with_tables(file.read_text(encoding="utf-8")), encoding="utf-8")


def _failures() -> str:
    rows = [
        f"| `{code}` | {item.category} | {'yes' if item.retryable else 'no'} | {item.meaning} | {item.advice} |"
        for code, item in MEANINGS.items()
    ]
    return "\n".join(
        ["| `failure.code` | category | retryable | means | do |", "| --- | --- | --- | --- | --- |", *rows]
    )


def _conditions() -> str:
    return "\n".join(
        ["| condition | means |", "| --- | --- |", *(f"| `{code}` | {CONDITIONS[code]} |" for code in CONDITIONS)]
    )


def _between(document: str, name: str, table: str) -> str:
    begin, end = f"<!-- begin {name}: made by python -m runway.jobs.diagnosis.failure_table -->", f"<!-- end {name} -->"
    made, times = re.subn(
        f"{re.escape(begin)}.*?{re.escape(end)}", lambda _: f"{begin}\n{table}\n{end}", document, flags=re.DOTALL
    )
    if times != 1:
        raise ValueError(f"the marks of the table of {name} stand {times} times in the document, not once")
    return made


if __name__ == "__main__":
    main(sys.argv[1])
