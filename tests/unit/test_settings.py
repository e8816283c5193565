"""Settings: an invalid variable stops the start with its name."""

from __future__ import annotations

import pytest

from runway.errors import ConfigurationError
from runway.settings import load_settings

CREDENTIALS = "reader" + ":s3cret@"


@pytest.fixture(autouse=True)
def policy(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RUNWAY_POLICY", "policy.yaml")
    monkeypatch.delenv("RUNWAY_PROMETHEUS_URL", raising=False)


def test_prometheus_url_is_optional() -> None:
    assert load_settings().prometheus_url is None


@pytest.mark.parametrize(
    "url", ["http://127.0.0.1:16290", "https://prometheus.monitoring.svc/prefix", f"https://{CREDENTIALS}example.org"]
)
def test_prometheus_url_may_have_path_and_credentials(monkeypatch: pytest.MonkeyPatch, url: str) -> None:
    monkeypatch.setenv("RUNWAY_PROMETHEUS_URL", url)

    assert str(load_settings().prometheus_url).rstrip("/") == url


@pytest.mark.parametrize(
    "url",
    [
        "",
        "127.0.0.1:9090",
        f"ftp://{CREDENTIALS}prometheus",
        "file:///etc/passwd",
        "http://",
        "http://prometheus?s3cret=1",
        "http://prometheus/#s3cret",
    ],
)
def test_invalid_prometheus_url_stops_the_start_without_showing_it(monkeypatch: pytest.MonkeyPatch, url: str) -> None:
    monkeypatch.setenv("RUNWAY_PROMETHEUS_URL", url)

    with pytest.raises(ConfigurationError, match="RUNWAY_PROMETHEUS_URL") as caught:
        load_settings()
    assert "s3cret" not in str(caught.value)


def test_calls_that_last_as_long_as_the_lease_stop_the_start(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RUNWAY_KUBERNETES_SECONDS", "14")

    with pytest.raises(ConfigurationError, match=r"RUNWAY_KUBERNETES_SECONDS: .*less than or equal to 10"):
        load_settings()
