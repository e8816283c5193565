"""Where the image's packages come from: what this machine's pip was told, and nothing that is only true outside."""

from __future__ import annotations

import configparser
from pathlib import Path

import pytest

from deploy import image

INDEX = "https://index.example/simple"


@pytest.fixture(autouse=True)
def settings(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """A pip.conf in the only place that is looked at; no variable is set."""
    for setting in image.PIP_SETTINGS:
        monkeypatch.delenv(f"PIP_{setting.upper().replace('-', '_')}", raising=False)
    monkeypatch.setattr(image, "PIP_FILES", (str(tmp_path / "pip.conf"),))
    return tmp_path / "pip.conf"


def told(authority: str | None = None) -> dict[str, str]:
    parser = configparser.ConfigParser(interpolation=None)
    parser.read_string(image.pip_settings(authority))
    return dict(parser["global"])


def test_a_machine_that_was_told_nothing_uses_the_public_index() -> None:
    assert told() == {}


def test_the_index_comes_along_and_paths_of_this_machine_do_not(settings: Path) -> None:
    settings.write_text(f"[global]\nindex-url = {INDEX}\ncert = /here/ca.pem\nfind-links = /here/wheels\n")
    assert told() == {"index-url": INDEX}
    assert told("/here/ca.pem") == {"index-url": INDEX, "cert": "/run/secrets/ca.pem"}


def test_a_variable_beats_the_file_and_several_indexes_stay_one_setting(
    settings: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings.write_text(
        "[global]\nindex-url = https://other.example\nextra-index-url =\n    https://a.example\n    https://b.example\n"
    )
    monkeypatch.setenv("PIP_INDEX_URL", INDEX)
    assert told() == {"index-url": INDEX, "extra-index-url": "https://a.example https://b.example"}
