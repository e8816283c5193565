"""The job spec that `submit` builds from a file and options."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest

from runway.cli.spec import announce_wait
from tests.support.cli import FakeRunway, job, reply, runway

FILE = """
image: runway.local/train:1
command: [python, train.py]
args: ["--epochs", "3"]
env: {EPOCHS: "3", MODE: slow}
resources: {cpu: "4", memory: 16Gi}
timeout_seconds: 60
"""


def submitted(*arguments: str, stdin: str | None = None) -> Any:
    fake = FakeRunway([reply(job(), 201)])
    result = runway("submit", *arguments, answers=fake, stdin=stdin)
    assert result.exit_code == 0, result.output
    return json.loads(fake.requests[0].content)


def refused(*arguments: str, stdin: str | None = None) -> str:
    """Return the error of an invalid command line on one line, and check that nothing was sent."""
    fake = FakeRunway([reply(job(), 201)])
    result = runway("submit", *arguments, answers=fake, stdin=stdin)
    assert result.exit_code == 2
    assert fake.requests == []
    return " ".join(result.stderr.split())


def test_yaml_file_is_sent_unchanged(tmp_path: Path) -> None:
    (tmp_path / "job.yaml").write_text(FILE)
    assert submitted("-f", str(tmp_path / "job.yaml")) == {
        "image": "runway.local/train:1",
        "command": ["python", "train.py"],
        "args": ["--epochs", "3"],
        "env": {"EPOCHS": "3", "MODE": "slow"},
        "resources": {"cpu": "4", "memory": "16Gi"},
        "timeout_seconds": 60,
    }


def test_json_file_indented_with_tabs_is_read(tmp_path: Path) -> None:
    (tmp_path / "job.json").write_text('{\n\t"image": "a\\tb",\n\t"retries": 1\n}')
    assert submitted("-f", str(tmp_path / "job.json")) == {"image": "a\tb", "retries": 1}


def test_dash_reads_stdin() -> None:
    assert submitted("-f", "-", stdin="image: x") == {"image": "x"}


def test_wait_for_a_silent_pipe_is_announced(capsys: pytest.CaptureFixture[str]) -> None:
    reading, writing = os.pipe()
    with os.fdopen(reading) as stdin, os.fdopen(writing, "w") as sender:
        announce_wait(stdin, 0)
        assert "Waiting for a job spec on stdin; if there is none, add </dev/null" in capsys.readouterr().err
        sender.write("image: x")
        sender.flush()
        announce_wait(stdin, 0)
    with Path(os.devnull).open() as stdin:
        announce_wait(stdin, 0)
    assert capsys.readouterr().err == ""


def test_flags_override_the_fields_of_the_file(tmp_path: Path) -> None:
    (tmp_path / "job.yaml").write_text(FILE)
    flags = ("--cpu", "8", "--gpu", "1", "--timeout", "2m", "--env", "MODE=fast", "--env", "NEW=1")
    spec = submitted("-f", str(tmp_path / "job.yaml"), *flags)
    assert spec["resources"] == {"cpu": "8", "memory": "16Gi", "gpu": 1}
    assert spec["env"] == {"EPOCHS": "3", "MODE": "fast", "NEW": "1"}
    assert spec["timeout_seconds"] == 120
    assert spec["command"] == ["python", "train.py"]


def test_command_replaces_command_and_args_of_the_file(tmp_path: Path) -> None:
    (tmp_path / "job.yaml").write_text(FILE)
    spec = submitted("-f", str(tmp_path / "job.yaml"), "--", "sh", "-c", "exit 3")
    assert spec["command"] == ["sh", "-c", "exit 3"]
    assert "args" not in spec


def test_command_after_dashes_is_verbatim() -> None:
    command = ["sh", "--image", "y", "-f", "$(HOME)", "", "--"]
    assert submitted("--image", "x", "--", *command)["command"] == command


@pytest.mark.parametrize(
    ("assignment", "name", "value"),
    [
        ("A=1", "A", "1"),
        ("URL=http://h/?a=b", "URL", "http://h/?a=b"),
        ("EMPTY=", "EMPTY", ""),
        ("LINES=a\nb", "LINES", "a\nb"),
        ("COMMAS=a,b", "COMMAS", "a,b"),
    ],
)
def test_env_is_cut_at_its_first_equals_sign(assignment: str, name: str, value: str) -> None:
    assert submitted("--image", "x", "--env", assignment)["env"] == {name: value}


@pytest.mark.parametrize("assignments", [["A"], ["=1"], [""], ["A=1", "A=2"]])
def test_invalid_or_repeated_env_is_rejected(assignments: list[str]) -> None:
    flags = [part for assignment in assignments for part in ("--env", assignment)]
    assert "--env" in refused("--image", "x", *flags)


def test_secrets_and_volumes_add_to_the_file(tmp_path: Path) -> None:
    (tmp_path / "job.yaml").write_text("secrets: {A: a/b, B: a/b}\nvolumes: [datasets, checkpoints]")
    flags = ("--secret", "B=wandb/key", "--secret", "C=a.b/k=v", "--volume", "models", "--volume", "datasets")
    assert submitted("-f", str(tmp_path / "job.yaml"), *flags) == {
        "secrets": {"A": "a/b", "B": "wandb/key", "C": "a.b/k=v"},
        "volumes": ["datasets", "checkpoints", "models"],
    }


@pytest.mark.parametrize("assignments", [["HF_TOKEN"], ["=a/b"], ["A=a/b", "A=a/c"]])
def test_invalid_or_repeated_secret_is_rejected(assignments: list[str]) -> None:
    flags = [part for assignment in assignments for part in ("--secret", assignment)]
    assert "--secret" in refused("--image", "x", *flags)


@pytest.mark.parametrize("field", ["volumes: datasets", "secrets: [a/b]"])
def test_options_do_not_add_to_a_malformed_field_of_the_file(field: str, tmp_path: Path) -> None:
    (tmp_path / "job.yaml").write_text(field)
    assert "for options to add to it" in refused("-f", str(tmp_path / "job.yaml"), "--volume", "a", "--secret", "A=a/b")


@pytest.mark.parametrize(
    ("duration", "seconds"),
    [("90", 90), ("90s", 90), ("30m", 1800), ("1h", 3600), ("1h30m", 5400), ("2d", 172800), ("0", 0)],
)
def test_durations(duration: str, seconds: int) -> None:
    assert submitted("--timeout", duration)["timeout_seconds"] == seconds


@pytest.mark.parametrize("duration", ["", "soon", "-5", "1.5h", "1 h", "5w", "1h30", "9" * 12, "٣"])
def test_invalid_duration_is_rejected(duration: str) -> None:
    assert "is not a duration such as" in refused("--timeout", duration)


@pytest.mark.parametrize(
    ("content", "why"),
    [
        ("image: [", "is not a job spec"),
        ("image: x\nimage: y", "'image' is given twice"),
        ('{"image": "x", "image": "y"}', "duplicate key 'image'"),
        ('{"image": NaN}', "NaN"),
        ("retries: .nan", "is not a job spec"),
        ("env: &e {A: b}\nresources: *e", "aliases are not allowed"),
        ("1: x", "must be a string"),
        ("- image", "it must be one mapping"),
        ("image: x\n---\nimage: y", "is not a job spec"),
        ("image: !!set {a}", "is not a job spec"),
        ("", "it must be one mapping"),
        ("image: x\n#" + "x" * (1 << 20), "is larger than"),
        ("[" * 5000, "is not a job spec"),
    ],
)
def test_invalid_spec_file_is_rejected(content: str, why: str) -> None:
    assert why in refused("-f", "-", stdin=content)


def test_dates_stay_text() -> None:
    assert submitted("-f", "-", stdin="env: {DAY: 2026-11-24}") == {"env": {"DAY": "2026-11-24"}}


def test_values_are_not_validated_by_the_client() -> None:
    assert submitted("-f", "-", stdin="image: 7\nunheard: of\nresources: {cpu: 4}") == {
        "image": 7,
        "unheard": "of",
        "resources": {"cpu": "4"},
    }


def test_option_cannot_extend_a_field_that_is_not_a_mapping() -> None:
    assert "env must be a mapping" in refused("-f", "-", "--env", "A=1", stdin="env: [A]")


def test_missing_file_is_named(tmp_path: Path) -> None:
    assert "cannot be read: No such file" in refused("-f", str(tmp_path / "absent.yaml"))
