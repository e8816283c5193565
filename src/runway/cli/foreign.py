"""Recognize files of Kubernetes and Slurm, and say which command of Runway does the same."""

from __future__ import annotations

import re
import shlex
from collections.abc import Mapping
from pathlib import Path
from typing import Final

from runway.text import escape, show_duration
from runway.yaml_loader import UnreadableYaml, parse

MAX_COMMAND: Final = 300
"""Characters of a suggested command; a longer one would hide the sentence."""
MAX_HEAD_BYTES: Final = 64 << 10  # The options of an sbatch script are in its first lines.

_SBATCH: Final = re.compile(r"^#SBATCH[ \t]+(-{1,2}[A-Za-z][-A-Za-z]*)(?:[ \t=]+|(?=[0-9]))(\S*)", re.MULTILINE)
_API_VERSION: Final = re.compile(r"^(?:[{ \t]*\"apiVersion\"|apiVersion)[ \t]*:", re.MULTILINE)
_KIND: Final = re.compile(r"^(?:[{ \t]*\"kind\"|kind)[ \t]*:[ \t]*\"?([A-Za-z]{1,40})", re.MULTILINE)
_SLURM_TIME: Final = re.compile(r"(?:([0-9]{1,4})-)?([0-9]{1,6})(?::([0-9]{1,2}))?(?::([0-9]{1,2}))?")
_PODS: Final = {"Pod": ("spec",), "CronJob": ("spec", "jobTemplate", "spec", "template", "spec")}
_TEMPLATE: Final = ("spec", "template", "spec")  # Job, Deployment and the others.


def is_sbatch_file(path: Path) -> bool:
    """Return whether a script has options of sbatch. False for a file that cannot be read."""
    try:
        if not path.is_file():
            return False
        with path.open("rb") as file:
            return is_sbatch(file.read(MAX_HEAD_BYTES))
    except (OSError, ValueError):
        return False


def is_sbatch(content: bytes) -> bool:
    return content.startswith(b"#!") and b"\n#SBATCH" in content[:MAX_HEAD_BYTES]


def explain(name: str, content: bytes) -> str | None:
    """Say in one sentence how to submit the content of a file of another tool; None for any other content."""
    text = content[:MAX_HEAD_BYTES].decode("utf-8", "replace")
    if is_sbatch(content):
        return f"{name} is an sbatch script; Runway runs it in a container image: {_from_sbatch(name, text)}"
    found = _KIND.search(text)
    if found is None or not _API_VERSION.search(text):
        return None
    kind = found[1]
    return f"{name} is a Kubernetes {kind}, and Runway makes the Job itself: {_from_manifest(content, kind)}"


def _from_sbatch(name: str, text: str) -> str:
    given = dict(_SBATCH.findall(text)[:100])

    def first(*names: str) -> str:
        return next((given[each] for each in names if given.get(each)), "")

    gpus = re.search(r"([0-9]{1,3})$", first("--gpus", "-G", "--gres", "--gpus-per-node"))
    flags = {
        "--image": "IMAGE",
        "--name": first("--job-name", "-J"),
        "--cpu": first("--cpus-per-task", "-c") or "CPU",
        "--memory": _slurm_memory(first("--mem")) or "MEMORY",
        "--gpu": gpus[1] if gpus else "",
        "--timeout": _slurm_time(first("--time", "-t")),
    }
    script = "FILE" if name == "stdin" else shlex.quote(name)
    return _command(flags, f'sh -c "$(cat {script})"')


def _slurm_memory(text: str) -> str:
    """Return `16Gi` for `16G`: Slurm's units are powers of two, and its default is megabytes."""
    match = re.fullmatch(r"([0-9]{1,9})([KMGT]?)B?", text)
    return f"{match[1]}{match[2] or 'M'}i" if match else ""


def _slurm_time(text: str) -> str:
    """Return a duration for minutes, `MM:SS`, `HH:MM:SS`, `D-HH`, `D-HH:MM` or `D-HH:MM:SS`."""
    match = _SLURM_TIME.fullmatch(text)
    if match is None:
        return ""
    days, *rest = match.groups()
    parts = [int(part) for part in rest if part is not None]
    units = (3600, 60, 1) if days is not None or len(parts) == 3 else (60, 1)
    return show_duration(int(days or 0) * 86_400 + sum(map(int.__mul__, parts, units)))


def _from_manifest(content: bytes, kind: str) -> str:
    document: object = None
    for part in re.split(rb"^---[ \t]*$", content, flags=re.MULTILINE)[:20]:
        try:
            document = parse(part)
        except (UnreadableYaml, RecursionError):
            continue
        if _at(document, "kind") == kind:
            break
    pod = _at(document, *_PODS.get(kind, _TEMPLATE))
    containers = _at(pod, "containers")
    container = containers[0] if isinstance(containers, list) and containers else None
    resources = {**_mapping(_at(container, "resources", "requests")), **_mapping(_at(container, "resources", "limits"))}
    words = [*_strings(_at(container, "command")), *_strings(_at(container, "args"))]
    flags = {
        "--image": _word(_at(container, "image")) or "IMAGE",
        "--cpu": _word(resources.get("cpu")) or "CPU",
        "--memory": _word(resources.get("memory")) or "MEMORY",
        "--gpu": _word(resources.get("nvidia.com/gpu")),
    }
    return _command(flags, shlex.join(words))


def _command(flags: Mapping[str, str], command: str) -> str:
    words = ["runway submit", *(f"{flag} {shlex.quote(value)}" for flag, value in flags.items() if value)]
    suggestion = " ".join([*words, *(["--", command] if command else [])])
    short = suggestion if len(suggestion) <= MAX_COMMAND else " ".join([*words, "-- COMMAND"])
    return escape(short if len(short) <= MAX_COMMAND else "runway submit --image IMAGE --cpu CPU --memory MEMORY")


def _at(document: object, *path: str) -> object:
    for key in path:
        document = document.get(key) if isinstance(document, Mapping) else None
    return document


def _mapping(value: object) -> Mapping[str, object]:
    return value if isinstance(value, Mapping) else {}


def _strings(value: object) -> list[str]:
    return [str(word) for word in value[:50]] if isinstance(value, list) else []


def _word(value: object) -> str:
    return str(value) if isinstance(value, str | int | float) and not isinstance(value, bool) else ""
