"""Process settings, from the environment: how this copy of Runway runs. What jobs may do stands in the policy."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated, Literal

from pydantic import AfterValidator, Field, HttpUrl, ValidationError
from pydantic_settings import BaseSettings, SettingsConfigDict

from runway.errors import ConfigurationError


def _without_query(url: HttpUrl) -> HttpUrl:
    if url.query is not None or url.fragment is not None:
        raise ValueError("the URL may not have a query or a fragment")
    return url


class Settings(BaseSettings):
    """Each field is the environment variable `RUNWAY_` and its name in capitals."""

    model_config = SettingsConfigDict(env_prefix="RUNWAY_", frozen=True)

    policy: Path
    """The policy file."""
    log_level: Literal["debug", "info", "warning", "error"] = "info"
    max_body_bytes: int = Field(default=262_144, ge=1024, le=1_048_576)
    """A job's spec is kept in an annotation, and all annotations of an object have 256 KiB."""
    kubernetes_seconds: float = Field(default=2.5, ge=0.1, le=30)
    """How long one call to Kubernetes may take. A submission makes at most two: the create, and a read to settle it."""
    max_in_flight: int = Field(default=64, ge=1, le=1000)
    """Calls to Kubernetes at once."""
    max_streams: int = Field(default=100, ge=1, le=10_000)
    """Log and event streams at once."""

    drain_seconds: float = Field(default=0, ge=0, le=60)
    """How long after SIGTERM requests are still answered while `/readyz` says 503, so that whoever routes to this
    process can look away first."""
    resync_seconds: float = Field(default=300, ge=1, le=86_400)
    """How often everything is listed beside the watches, to correct and count drift."""
    instance: str | None = Field(default=None, min_length=1, max_length=200)
    """The name under which this process holds the Lease; in a cluster the pod's. A restart under the same name takes
    its own Lease back at once; without one the name is unique, and the old Lease must run out. No two may share it."""
    lease_namespace: str = Field(default="default", min_length=1, max_length=63)
    """Where the Lease that makes one process the writer is kept."""
    prometheus_url: Annotated[HttpUrl, AfterValidator(_without_query)] | None = None
    """The Prometheus that scrapes the kubelets' cAdvisor; without one the usage of jobs is unknown."""

    @property
    def kubeconfig(self) -> str | None:
        """The kubeconfig, or several joined by `:`, in `KUBECONFIG`; None in a cluster, with a service account."""
        return os.environ.get("KUBECONFIG") or None


def load_settings() -> Settings:
    """Read the environment. Raises ConfigurationError, which names every faulty variable."""
    try:
        return Settings()
    except ValidationError as error:
        faults = [f"RUNWAY_{str(fault['loc'][0]).upper()}: {fault['msg']}" for fault in error.errors()]
        raise ConfigurationError("\n".join(faults)) from error
