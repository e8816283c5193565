"""Hypothesis strategies shared by the property tests: specifications and JSON."""

from __future__ import annotations

from decimal import Decimal
from typing import Any

from hypothesis import strategies as st

from runway.jobs.spec import RESERVED_ENV_NAMES, RESERVED_ENV_PREFIXES, AdmittedSpec, Resources

TEXT = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), max_size=20)
"""Any text that can be handed to a process."""

NAMES = st.from_regex(r"[A-Za-z0-9]([-A-Za-z0-9_.]{0,10}[A-Za-z0-9])?", fullmatch=True)
ENV_NAMES = st.from_regex(r"[A-Za-z_][A-Za-z0-9_]{0,10}", fullmatch=True).filter(
    lambda name: not name.startswith(RESERVED_ENV_PREFIXES) and name not in RESERVED_ENV_NAMES
)
SECRETS = st.from_regex(r"[a-z0-9]([-a-z0-9]{0,8}[a-z0-9])?/[A-Za-z0-9_][-._a-zA-Z0-9]{0,10}", fullmatch=True)
VOLUMES = ("datasets", "checkpoints")
"""The volumes of the policies that manifests are built with."""
IMAGES = st.sampled_from(
    ["runway.local/train:1", "python", "docker.io/library/python:3.12", f"ghcr.io/acme/train@sha256:{'0a' * 32}"]
)
# Built once: hypothesis validates each strategy that a draw builds, which takes a fifth of its time.
_DIRS = st.none() | TEXT.map(lambda text: f"/{text}").filter(lambda path: ".." not in path)
_ARGUMENTS = st.lists(TEXT, max_size=3)
_VARIABLES = st.lists(ENV_NAMES, max_size=6, unique=True)
_VOLUME_LISTS = st.lists(st.sampled_from(VOLUMES), unique=True)
_COSTS = st.none() | st.decimals(0, 10**6, places=2).map(lambda amount: Decimal(f"{amount:f}"))
_START_TIMEOUTS = st.none() | st.integers(1, 86_400)
_OPTIONAL_NAMES = st.none() | NAMES


@st.composite
def resources(draw: st.DrawFn) -> Resources:
    """Resources, with a GPU type exactly where there is a GPU."""
    gpu, memory = draw(st.integers(0, 8)), draw(st.integers(1 << 20, 1 << 41))
    return Resources(
        cpu=draw(st.integers(1, 192_000)),
        memory=memory,
        disk=draw(st.integers(1, 1 << 41)),
        shared_memory=draw(st.integers(1 << 20, memory)),
        gpu=gpu,
        gpu_type=draw(st.sampled_from(["a10g", "h100"])) if gpu else None,
    )


@st.composite
def specs(draw: st.DrawFn) -> AdmittedSpec:
    """Admitted specifications."""
    variables = draw(_VARIABLES)
    env, secrets = variables[::2], variables[1::2]
    requested = draw(resources())
    return AdmittedSpec(
        image=draw(IMAGES),
        resources=requested,
        pool=requested.gpu_type or "cpu",
        timeout_seconds=draw(st.integers(1, 86_400)),
        retries=draw(st.integers(0, 10)),
        grace_period_seconds=draw(st.integers(1, 3600)),
        start_timeout_seconds=draw(_START_TIMEOUTS),
        working_dir=draw(_DIRS),
        user=draw(st.integers(1, 65_535)),
        name=draw(_OPTIONAL_NAMES),
        command=tuple(draw(_ARGUMENTS)),
        args=tuple(draw(_ARGUMENTS)),
        env=tuple((name, draw(TEXT)) for name in env),
        secrets=tuple((name, draw(SECRETS)) for name in secrets),
        volumes=tuple(draw(_VOLUME_LISTS)),
        max_cost_usd=draw(_COSTS),
    )


ANY_TEXT = st.text(st.characters(), max_size=120)
"""Any text JSON can hold, lone surrogates and control characters included."""

_SCALARS = st.none() | st.booleans() | st.integers(-(10**20), 10**20) | st.floats() | ANY_TEXT

JSON: st.SearchStrategy[Any] = st.recursive(
    _SCALARS, lambda inner: st.lists(inner, max_size=4) | st.dictionaries(ANY_TEXT, inner, max_size=4), max_leaves=8
)

_FIELDS = st.sampled_from(
    ["name", "image", "command", "args", "env", "timeout_seconds", "retries", "grace_period_seconds", "max_cost_usd",
     "working_dir", "user", "start_timeout_seconds", "secrets", "volumes", "pool"]
)  # fmt: skip
_RESOURCES = st.sampled_from(["cpu", "memory", "gpu", "gpu_type", "disk", "shared_memory"])
_AMOUNTS = st.sampled_from(["1", "500m", "8Gi", "1_000", "NaN", "-1", "1e99", "", "١"])

DOCUMENTS: st.SearchStrategy[Any] = JSON | st.builds(
    lambda fields, resources, image: {**fields, "resources": resources, **image},
    st.dictionaries(_FIELDS | ANY_TEXT, JSON, max_size=8),
    JSON | st.dictionaries(_RESOURCES, _AMOUNTS | JSON, max_size=4),
    st.just({}) | st.fixed_dictionaries({"image": IMAGES}),
)
"""JSON, and JSON that comes near to being a job document."""
