"""Process settings from the environment. The policy has the rules for jobs."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated, Final, Literal

from pydantic import AfterValidator, Field, HttpUrl, ValidationError
from pydantic_settings import BaseSettings, SettingsConfigDict

from runway.errors import ConfigurationError

MAX_KUBERNETES_SECONDS: Final = 10.0
"""The leader writes only while its Lease of 15 s, renewed every 3 s, is valid for a call and 1 s more."""


def _without_query(url: HttpUrl) -> HttpUrl:
    if url.query is not None or url.fragment is not None:
        raise ValueError("the URL has a query or a fragment, which is not allowed")
    return url


class Settings(BaseSettings):
    """Each field is the environment variable `RUNWAY_` plus its name in capitals."""

    model_config = SettingsConfigDict(env_prefix="RUNWAY_", frozen=True)

    policy: Path
    """The policy file."""
    log_level: Literal["debug", "info", "warning", "error"] = "info"
    max_body_bytes: int = Field(default=262_144, ge=1024, le=1_048_576)
    """An annotation stores a job's spec, and Kubernetes allows 256 KiB for all annotations of an object."""
    kubernetes_seconds: float = Field(default=2.5, ge=0.1, le=MAX_KUBERNETES_SECONDS)
    """Timeout of one call to Kubernetes. A submission makes at most two: the create, and a read to resolve it."""
    max_in_flight: int = Field(default=64, ge=1, le=1000)
    """Concurrent calls to Kubernetes."""
    max_streams: int = Field(default=100, ge=1, le=10_000)
    """Concurrent log and event streams."""

    resync_seconds: float = Field(default=300, ge=1, le=86_400)
    """Interval of full lists in addition to the watches. They correct and count drift."""
    instance: str | None = Field(default=None, min_length=1, max_length=200)
    """Holder name of this process in the Lease, in a cluster the pod's name. No two processes may share it.

    A restart under the same name renews its own Lease at once. The default is unique, so the old Lease must expire.
    """
    lease_namespace: str = Field(default="default", min_length=1, max_length=63)
    """Namespace of the Lease that elects the leader."""
    prometheus_url: Annotated[HttpUrl, AfterValidator(_without_query)] | None = None
    """The Prometheus that scrapes the kubelets' cAdvisor. Without it the usage of jobs is unknown."""

    @property
    def kubeconfig(self) -> str | None:
        """Return `KUBECONFIG`: one path, or several joined by `:`. None selects the pod's service account."""
        return os.environ.get("KUBECONFIG") or None


def load_settings() -> Settings:
    """Read the environment. Raises ConfigurationError, which names every invalid variable."""
    try:
        return Settings()
    except ValidationError as error:
        faults = [f"RUNWAY_{str(fault['loc'][0]).upper()}: {fault['msg']}" for fault in error.errors()]
        raise ConfigurationError("\n".join(faults)) from error
