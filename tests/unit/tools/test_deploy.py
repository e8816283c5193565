"""The pip settings of the image build: the machine's index, no local paths."""

from __future__ import annotations

import configparser
from pathlib import Path

import pytest

from deploy import image

INDEX = "https://index.example/simple"


@pytest.fixture(autouse=True)
def settings(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """Return the path of the only pip.conf; no pip variable is set."""
    for setting in image.PIP_SETTINGS:
        monkeypatch.delenv(f"PIP_{setting.upper().replace('-', '_')}", raising=False)
    monkeypatch.setattr(image, "PIP_FILES", (str(tmp_path / "pip.conf"),))
    return tmp_path / "pip.conf"


def passed_settings(authority: str | None = None) -> dict[str, str]:
    parser = configparser.ConfigParser(interpolation=None)
    parser.read_string(image.pip_settings(authority))
    return dict(parser["global"])


def test_default_configuration_uses_public_index() -> None:
    assert passed_settings() == {}


def test_index_url_is_passed_without_local_paths(settings: Path) -> None:
    settings.write_text(f"[global]\nindex-url = {INDEX}\ncert = /here/ca.pem\nfind-links = /here/wheels\n")
    assert passed_settings() == {"index-url": INDEX}
    assert passed_settings("/here/ca.pem") == {"index-url": INDEX, "cert": "/run/secrets/ca.pem"}


def test_variable_overrides_file_and_extra_indexes_are_joined(settings: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    settings.write_text(
        "[global]\nindex-url = https://other.example\nextra-index-url =\n    https://a.example\n    https://b.example\n"
    )
    monkeypatch.setenv("PIP_INDEX_URL", INDEX)
    assert passed_settings() == {"index-url": INDEX, "extra-index-url": "https://a.example https://b.example"}
