"""Defaults from `.runway.yaml` and the user's configuration."""

from __future__ import annotations

import json
import os
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from runway.cli.config import ConfigError, find_project_file, read_config, reason_to_distrust
from tests.support.cli import FakeRunway, job, jobs, reply, runway

NO_ENVIRONMENT: dict[str, str | None] = {"RUNWAY_URL": None, "RUNWAY_TENANT": None}
PROJECT = """
server: http://project.test
tenant: vision
image: runway.local/train:1
resources: {cpu: 4, memory: 16Gi, gpu_type: a10g}
timeout_seconds: 2h
"""


class Place:
    """A home directory with a git repository in it, and the working directory in that."""

    def __init__(self, root: Path) -> None:
        self.home = root / "home"
        self.repository = self.home / "repository"
        self.work = self.repository / "a" / "b"
        self.work.mkdir(parents=True)
        (self.repository / ".git").mkdir()
        self.project = self.repository / ".runway.yaml"
        self.user = self.home / ".config" / "runway" / "config.yaml"
        self.user.parent.mkdir(parents=True)

    def run(self, *arguments: str, fake: FakeRunway | None = None, **variables: str | None) -> Any:
        home = {"HOME": str(self.home), "XDG_CONFIG_HOME": None}
        fake = fake or FakeRunway([reply(job(), 201)])
        return runway(*arguments, answers=fake, variables={**NO_ENVIRONMENT, **home, **variables})

    def settings(self, *arguments: str, **variables: str | None) -> dict[str, tuple[Any, str]]:
        document = json.loads(self.run("config", "-o", "json", *arguments, fake=None, **variables).stdout)
        return {each["name"]: (each["value"], each["from"]) for each in document["settings"]}


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Place:
    place = Place(tmp_path)
    monkeypatch.chdir(place.work)
    return place


def test_project_file_sets_server_tenant_and_job(place: Place) -> None:
    place.project.write_text(PROJECT)
    fake = FakeRunway([reply(job(), 201)])
    assert place.run("submit", "--gpu", "1", "--memory", "8Gi", "--", "train", fake=fake).exit_code == 0
    assert str(fake.requests[0].url) == "http://project.test/v1/jobs"
    assert fake.requests[0].headers["X-Tenant-ID"] == "vision"
    assert json.loads(fake.requests[0].content) == {
        "image": "runway.local/train:1",
        "command": ["train"],
        "timeout_seconds": 7200,
        "resources": {"cpu": "4", "memory": "8Gi", "gpu": 1, "gpu_type": "a10g"},
    }


def test_default_gpu_type_does_not_make_a_cpu_job_invalid(place: Place) -> None:
    place.project.write_text(PROJECT)
    fake = FakeRunway([reply(job(), 201)])
    place.run("submit", "--", "train", fake=fake)
    assert json.loads(fake.requests[0].content)["resources"] == {"cpu": "4", "memory": "16Gi"}


def test_spec_file_wins_over_defaults(place: Place) -> None:
    place.project.write_text(PROJECT)
    Path("job.yaml").write_text("image: y\nresources: {cpu: 1}\n")
    fake = FakeRunway([reply(job(), 201)])
    place.run("submit", "job.yaml", fake=fake)
    sent = json.loads(fake.requests[0].content)
    assert (sent["image"], sent["resources"]) == ("y", {"cpu": "1", "memory": "16Gi"})


def test_bare_submit_is_a_job_where_the_project_has_an_image(place: Place) -> None:
    place.project.write_text(PROJECT)
    fake = FakeRunway([reply(job(), 201)])
    assert place.run("submit", fake=fake).exit_code == 0
    assert json.loads(fake.requests[0].content)["image"] == "runway.local/train:1"


def test_option_wins_over_environment_project_user_and_default(place: Place) -> None:
    assert place.settings()["server"] == ("http://127.0.0.1:8000", "default")
    assert place.settings()["tenant"] == (None, "default")
    place.user.write_text("server: http://user.test\ntenant: speech\npool: cpu\n")
    assert place.settings()["server"] == ("http://user.test", str(place.user))
    place.project.write_text(PROJECT)
    assert place.settings()["server"] == ("http://project.test", str(place.project))
    assert place.settings()["tenant"] == ("vision", str(place.project))
    assert place.settings()["pool"] == ("cpu", str(place.user))
    assert place.settings()["resources.cpu"] == ("4", str(place.project))
    assert place.settings(RUNWAY_URL="http://env.test")["server"] == ("http://env.test", "RUNWAY_URL")
    variables: dict[str, str | None] = {"RUNWAY_URL": "http://env.test"}
    assert place.settings("--url", "http://option.test", **variables)["server"] == ("http://option.test", "--url")
    assert place.settings("--tenant", "")["tenant"] == (None, "--tenant")


def test_config_as_a_table_names_the_files(place: Place) -> None:
    place.project.write_text(PROJECT)
    result = place.run("config")
    assert f"tenant              vision                {place.project}" in result.stdout
    assert f"There is no {place.user}." in result.stderr


def test_xdg_config_home_replaces_dot_config(place: Place, tmp_path: Path) -> None:
    (tmp_path / "xdg" / "runway").mkdir(parents=True)
    (tmp_path / "xdg" / "runway" / "config.yaml").write_text("tenant: speech")
    assert place.settings(XDG_CONFIG_HOME=str(tmp_path / "xdg"))["tenant"][0] == "speech"
    place.user.write_text("tenant: vision")
    assert place.settings(XDG_CONFIG_HOME="relative")["tenant"][0] == "vision"


# Which file


def test_search_ends_at_the_root_of_the_repository(place: Place) -> None:
    (place.home / ".runway.yaml").touch()
    assert find_project_file(place.work, place.home) is None
    place.project.touch()
    assert find_project_file(place.work, place.home) == place.project
    (place.work / ".runway.yaml").touch()
    assert find_project_file(place.work, place.home) == place.work / ".runway.yaml"


def test_search_ends_at_the_home_directory(place: Place, tmp_path: Path) -> None:
    (place.home / "notes").mkdir()
    (tmp_path / ".runway.yaml").touch()
    assert find_project_file(place.home / "notes", place.home) is None
    (place.home / ".runway.yaml").touch()
    assert find_project_file(place.home / "notes", place.home) == place.home / ".runway.yaml"


def test_outside_home_and_repository_only_the_working_directory_counts(place: Place, tmp_path: Path) -> None:
    (tmp_path / "shared" / "mine").mkdir(parents=True)
    (tmp_path / "shared" / ".runway.yaml").touch()
    assert find_project_file(tmp_path / "shared" / "mine", place.home) is None
    assert find_project_file(tmp_path / "shared", place.home) == tmp_path / "shared" / ".runway.yaml"


def test_deleted_working_directory_has_no_project_file(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    place.user.write_text("tenant: speech")
    doomed = place.home / "doomed"
    doomed.mkdir()
    monkeypatch.chdir(doomed)
    doomed.rmdir()
    assert place.settings()["tenant"][0] == "speech"


def test_home_directory_that_cannot_be_searched_has_no_file(place: Place) -> None:
    """An image can set HOME=/root for another user."""
    place.project.write_text(PROJECT)
    home = "/" + "h" * 300  # Unreadable for root too.
    assert place.settings(HOME=home)["tenant"] == ("vision", str(place.project))
    assert f"There is no {home}/.config/runway/config.yaml." in place.run("config", HOME=home).stderr


# Faults


@pytest.mark.parametrize("mode", [0o664, 0o646, 0o622])
def test_file_that_others_can_write_is_refused(place: Place, mode: int) -> None:
    place.project.write_text(PROJECT)
    place.project.chmod(mode)
    fake = FakeRunway([reply(job(), 201)])
    result = place.run("submit", "--", "train", fake=fake)
    assert (result.exit_code, fake.requests) == (2, [])
    assert f"{place.project}: others can write it" in " ".join(result.stderr.split())


@pytest.mark.parametrize(
    ("mode", "owner", "trusted"),
    [
        (0o100644, 1000, True),
        (0o100600, 0, True),
        (0o100644, 1001, False),
        (0o100664, 1000, False),
        (0o10644, 1000, False),
    ],
)
def test_only_files_of_the_user_and_root_are_trusted(mode: int, owner: int, trusted: bool) -> None:
    assert (reason_to_distrust(mode, owner, 1000) is None) == trusted


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ("tennant: vision", "tennant is not a setting; settings: server, tenant, image"),
        ("env: {A: b}", "env is not a setting"),
        ("command: [a]", "command is not a setting"),
        ("resources: {gpus: 1}", "resources.gpus is not a resource; resources: cpu, memory"),
        ("resources: 4", "resources must be a mapping"),
        ("server: ftp://x", "is not a URL such as"),
        ("server: http://user:word@x", "is not a URL such as"),  # pragma: allowlist secret
        ("tenant: a b", "is not the name of a tenant"),
        ("tenant: no", 'YAML reads no as a boolean, and no field is one; write "no"'),
        ("image: [a]", "image must be one value"),
        ("image:", "image must be one value"),
        ("timeout: 30m", "the field timeout is called timeout_seconds"),
        ("cpu: 4", "the field cpu is called resources.cpu"),
        ("secret: a", "secret is not a setting"),
        ("timeout_seconds: soon", "'soon' is not a duration"),
        ("tenant: a\ntenant: b", "'tenant' is given twice"),
        ("a: &a x\ntenant: *a", "aliases are not allowed"),
        ("- server", "it must be one mapping"),
        ("#" * 70_000, "it is larger than 65536 bytes"),
        ("tenant: \x00", "control characters are not allowed"),
    ],
)
def test_faulty_file_is_named_and_nothing_is_sent(place: Place, content: str, said: str) -> None:
    place.project.write_text(content)
    fake = FakeRunway([jobs()])
    result = place.run("ls", fake=fake)
    assert (result.exit_code, fake.requests) == (2, [])
    message = " ".join(result.stderr.split())
    assert str(place.project) in message
    assert said in message


def test_file_with_only_comments_sets_nothing(place: Place) -> None:
    place.project.write_text("# nothing yet\n")
    assert place.settings()["tenant"] == (None, "default")


def test_pipe_and_directory_are_no_files(place: Place) -> None:
    os.mkfifo(place.project, 0o600)
    assert "not a regular file" in place.run("ls").stderr
    place.project.unlink()
    place.project.mkdir()
    assert "Is a directory" in place.run("ls").stderr


def test_faulty_file_does_not_break_help_and_version(place: Place) -> None:
    place.project.write_text("tennant: vision")
    assert place.run("version").exit_code == 0
    assert place.run("ls", "--help").exit_code == 0


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.binary(max_size=200))
def test_any_content_is_read_or_refused(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "config.yaml"
    path.write_bytes(content)
    with suppress(ConfigError):
        assert all(isinstance(value, str | int | float) for value in read_config(path).values())
