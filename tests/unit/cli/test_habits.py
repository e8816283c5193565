"""The habits of kubectl, docker, Slurm and git users, one test for each."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from runway.cli.foreign import explain
from runway.cli.habits import COMMANDS
from runway.cli.spec import read_spec
from tests.support.cli import FakeRunway, job, jobs, reply, runway

SPEC = "image: x\nresources: {cpu: 2, memory: 1Gi}\n"
READ = {"image": "x", "resources": {"cpu": "2", "memory": "1Gi"}}


def submitted(*arguments: str, command: str = "submit", stdin: str | None = None) -> Any:
    fake = FakeRunway([reply(job(), 201)])
    result = runway(command, *arguments, answers=fake, stdin=stdin)
    assert result.exit_code == 0, result.output
    return json.loads(fake.requests[0].content)


def refused(*arguments: str, stdin: str | None = None) -> str:
    """Return the last line of a usage error: one sentence, and no call."""
    fake = FakeRunway([reply(job(), 201)])
    result = runway(*arguments, answers=fake, stdin=stdin)
    assert (result.exit_code, fake.requests, fake.searches) == (2, [], []), result.output
    return " ".join(result.stderr.partition("Error: ")[2].split())


@pytest.fixture
def spec_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "job.yaml").write_text(SPEC)
    return "job.yaml"


# The spec


def test_file_without_f_is_the_spec(spec_file: str) -> None:
    assert submitted(spec_file) == READ
    assert submitted("--gpu", "1", spec_file, "--name", "a", "--", "sleep", "1") == {
        **READ,
        "name": "a",
        "command": ["sleep", "1"],
        "resources": {"cpu": "2", "memory": "1Gi", "gpu": 1},
    }


def test_missing_spec_file_is_named() -> None:
    assert "absent.yaml cannot be read: No such file" in refused("submit", "absent.yaml")


def test_spec_after_dashes_is_a_command(spec_file: str) -> None:
    assert submitted("--image", "x", "--", spec_file)["command"] == [spec_file]


def test_pipe_without_f_is_the_spec() -> None:
    assert submitted(stdin=SPEC) == READ
    assert submitted("--name", "a", stdin=SPEC) == {**READ, "name": "a"}
    assert submitted("-", stdin=SPEC) == READ


def test_stdin_is_not_read_beside_an_image_or_a_command() -> None:
    assert submitted("--image", "y", stdin=SPEC) == {"image": "y"}
    assert submitted("--", "sh", stdin=SPEC) == {"command": ["sh"]}


@pytest.mark.parametrize("command", ["submit", "run"])
def test_bare_command_shows_an_example_and_sends_nothing(command: str) -> None:
    assert f"There is no job to submit. For example: runway {command} --image python:3.12" in refused(command)


@pytest.mark.parametrize(
    ("words", "command"),
    [
        (["--image", "x", "python", "train.py"], ["python", "train.py"]),
        (["--image", "x", "python", "train.py", "--epochs", "3"], ["python", "train.py", "--epochs", "3"]),
        (["--image=x", "sh", "-c", "exit 3"], ["sh", "-c", "exit 3"]),
        (["sleep", "10", "--image", "x"], ["sleep", "10"]),
        (["--image", "x", "tar", "-xf", "a.yaml"], ["tar", "-xf", "a.yaml"]),
    ],
)
def test_command_without_dashes_is_understood_where_no_doubt_is_left(words: list[str], command: list[str]) -> None:
    assert submitted(*words) == {"image": "x", "command": command}


@pytest.mark.parametrize(
    "words",
    [
        ["--image", "x", "python", "train.py", "--epochs", "3", "--name", "a"],
        ["--image", "x", "sleep", "10", "--wait"],
        ["--image", "x", "python", "-tx"],
        ["python", "train.py", "--lr", "1", "--timeout=5"],
        ["--image", "x", "sh", "-e", "run.sh"],
    ],
)
def test_doubtful_options_after_a_command_ask_for_dashes(words: list[str]) -> None:
    answer = refused("submit", *words)
    assert answer.startswith("Put -- before the command")
    assert "runway submit ... -- " in answer


def test_short_and_foreign_names_of_options() -> None:
    words = ["--gpus", "1", "--mem=2Gi", "--cpus", "3", "-n", "a", "-e", "A=1", "-eB=2", "-t10m", "--image", "x"]
    assert submitted(*words) == {
        "image": "x",
        "name": "a",
        "env": {"A": "1", "B": "2"},
        "timeout_seconds": 600,
        "resources": {"gpu": 1, "memory": "2Gi", "cpu": "3"},
    }
    assert "--gpus" not in runway("submit", "--help").stdout


@pytest.mark.parametrize(
    ("words", "advice"),
    [
        (["ls", "--running"], "use --state"),
        (["ls", "-q"], "use -o name"),
        (["ls", "-A"], "use --tenant"),
        (["submit", "--partition", "gpu"], "name a pool"),
        (["run", "-it", "--image", "x"], "a job has no terminal"),
        (["submit", "--time-out", "5"], "did you mean --timeout?"),
        (["submit", "--shared", "5"], "did you mean --shared-memory?"),
        (["logs", "-l"], "without JOB, `status` and `logs` show the newest job"),
        (["ls", "-l", "app=x"], "use --name"),
        (["status", "--last"], "without JOB, `status` and `logs` show the newest job"),
        (["ls", "--limit", "0"], "Invalid value for '--limit' / '-n': must be at least 1"),
        (["ls", "-n", "10001"], "must be at most 10000"),
        (["logs", "x", "--tail", "all"], "Invalid value for '--tail': must be a whole number"),
        (["top", "--every", "soon"], "Invalid value for '--every': must be a number"),
        (["submit", "--gpu", "1.5"], "Invalid value for '--gpu': must be a whole number"),
        (["submit", "--zzz"], "--help lists the options"),
        (["logs", "--previous", "train"], "use --attempt N"),
        (["wait", "--for=condition=complete", "train"], "`runway wait JOB` waits for the end"),
        (["wait"], "Missing argument 'JOB'. `runway ls` lists the jobs"),
        (["ls", "train"], "`runway status JOB` shows one job"),
        (["quota", "speech"], "use --tenant NAME"),
    ],
)
def test_option_of_another_tool_gets_advice(words: list[str], advice: str) -> None:
    assert advice in refused(*words)


# Commands


@pytest.mark.parametrize("word", COMMANDS["ls"])
def test_synonyms_of_ls(word: str) -> None:
    assert runway(word, "-o", "name", answers=[jobs(job())]).stdout == "rw-4f2a\n"


@pytest.mark.parametrize("word", [*COMMANDS["status"], "describe job", "get job"])
def test_synonyms_of_status(word: str) -> None:
    assert runway(*word.split(), "rw-4f2a", "-o", "name", answers=[reply(job())]).stdout == "rw-4f2a\n"


@pytest.mark.parametrize("word", [*COMMANDS["cancel"], "delete job"])
def test_synonyms_of_cancel(word: str) -> None:
    fake = FakeRunway([reply(job("cancelling"), 202)])
    assert runway(*word.split(), "-y", "rw-4f2a", answers=fake).exit_code == 0
    assert fake.paths == ["DELETE /v1/jobs/rw-4f2a"]


@pytest.mark.parametrize("word", COMMANDS["submit"])
def test_synonyms_of_submit(word: str, spec_file: str) -> None:
    assert submitted("-f", spec_file, command=word) == READ


@pytest.mark.parametrize("word", COMMANDS["run"])
def test_synonyms_of_run(word: str) -> None:
    assert "There is no job to submit. For example: runway run" in refused(word)


def test_get_jobs_is_a_list() -> None:
    assert runway("get", "jobs", "-o", "name", answers=[jobs(job())]).stdout == "rw-4f2a\n"


def test_options_before_the_command() -> None:
    fake = FakeRunway([jobs()])
    runway("--tenant", "speech", "--url=http://other.test", "ls", answers=fake)
    assert (fake.requests[0].headers["X-Tenant-ID"], fake.requests[0].url.host) == ("speech", "other.test")


@pytest.mark.parametrize(
    ("arguments", "example"),
    [
        (["--tenant", "vision"], "`runway ls --tenant vision`"),
        (["--url=http://a", "--tenant", "vision"], "`runway ls --url=http://a --tenant vision`"),
        (["--tenant"], "`runway ls --tenant VALUE`"),
    ],
)
def test_option_of_a_command_without_one_says_where_it_belongs(arguments: list[str], example: str) -> None:
    answer = refused(*arguments)
    assert example in answer
    assert "RUNWAY_TENANT" in answer


def test_help_after_an_option_of_a_command_is_shown() -> None:
    assert "Exit codes:" in runway("--tenant", "vision", "--help").stdout


def test_version_and_help_as_words_and_options() -> None:
    assert runway("--version").stdout == runway("version").stdout
    assert runway("help").stdout == runway("--help").stdout
    assert runway("help", "wait").stdout == runway("wait", "--help").stdout


@pytest.mark.parametrize(
    ("word", "advice"),
    [
        ("login", "Runway has no accounts"),
        ("exec", "`runway logs -f`"),
        ("validate", "Use `runway policy check FILE`."),
        ("diff", "Use `runway policy diff FILE`."),
        ("statu", "Did you mean status?"),
        ("log-in", "`runway --help` lists the commands"),
        ("\x1b[2J", "`runway --help` lists the commands"),
    ],
)
def test_unknown_command_gets_advice(word: str, advice: str) -> None:
    answer = refused(word)
    assert advice in answer
    assert "\x1b" not in answer


@pytest.mark.parametrize(
    ("words", "advice"),
    [
        ("tenants aply", "Did you mean apply?"),
        ("tenants frob", "`runway tenants --help` lists the commands"),
        ("tenants apply --dryrun", "did you mean --dry-run?"),
        ("doctor --json", "use -o json"),
        ("policy check --policy p.yaml", "give the file without an option"),
    ],
)
def test_commands_of_operators_give_the_same_advice(words: str, advice: str) -> None:
    assert advice in refused(*words.split())


@pytest.mark.parametrize(("word", "said"), [("whoami", "RUNWAY_TENANT"), ("ls -a", "rw-4f2a"), ("ls -n 3", "rw-4f2a")])
def test_other_habits_are_understood(word: str, said: str) -> None:
    assert said in runway(*word.split(), answers=[jobs(job())]).stdout


# Files as people write them


def test_numbers_and_durations_in_a_file() -> None:
    content = b"""
image: x
name: 7
command: [sleep, 10, 1.50]
env: {EPOCHS: 3, LR: 0.10, BIG: 12345678901234567890123, MODE: slow, E: 1e-4, PLUS: +5}
resources: {cpu: 0.5, memory: 1073741824, gpu: 1}
max_cost_usd: 12.50
timeout_seconds: 1h30m
grace_period_seconds: 10
"""
    assert read_spec(content) == {
        "image": "x",
        "name": "7",
        "command": ["sleep", "10", "1.50"],
        "env": {
            "EPOCHS": "3", "LR": "0.10", "BIG": "12345678901234567890123", "MODE": "slow", "E": "1e-4", "PLUS": "+5"
        },
        "resources": {"cpu": "0.5", "memory": "1073741824", "gpu": 1},
        "max_cost_usd": "12.50",
        "timeout_seconds": 5400,
        "grace_period_seconds": 10,
    }  # fmt: skip


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("env: {A: no}", 'YAML reads no as a boolean, and no field is one; write "no"'),
        ("env: {A: true}", 'write "true"'),
        ("env: {NO: x}", 'write "NO"'),
        ("env: {A: 012}", 'YAML reads 012 as another number; if it is text, write "012"'),
        ("env: {A: 1:30}", 'write "1:30"'),
        ("timeout_seconds: 1:30", 'write "1:30"'),
        ("env: {A: 0x1F}", 'write "0x1F"'),
        ("env: {A: 1_000}", 'write "1_000"'),
        ("resources: {cpu: 0b11}", 'write "0b11"'),
        ("env: {A: .inf}", 'write ".inf"'),
        ("env: {A: }", 'env.A has no value: write "" for an empty one'),
        ("timeout_seconds: soon", "timeout_seconds: 'soon' is not a duration such as"),
        ("timeout: 30m", "the field timeout is called timeout_seconds"),
        ("cpu: 2\nmemory: 1Gi", "the field cpu is called resources.cpu, the field memory is called resources.memory"),
        ("env: &a {A: b}", "&a"),
        ("a: &a x\nb: *a", "aliases are not allowed"),
        ("image: a\nimage: b", "'image' is given twice"),
    ],
)
def test_yaml_that_means_something_else_is_refused(line: str, said: str) -> None:
    if "&a {" in line:
        assert read_spec(line.encode()) == {"env": {"A": "b"}}, "an anchor without an alias changes nothing"
    else:
        assert said in refused("submit", "-f", "-", stdin=line)


@given(
    st.dictionaries(
        st.from_regex(r"[A-Z_]{1,8}", fullmatch=True),
        st.one_of(st.text(max_size=12), st.integers(), st.floats(allow_nan=False, allow_infinity=False)),
        max_size=5,
    )
)
def test_values_that_a_program_writes_are_read_back(env: dict[str, Any]) -> None:
    spec = read_spec(yaml.safe_dump({"env": env}).encode())
    assert spec["env"] == {
        name: value if isinstance(value, str) else yaml.safe_dump(value).split("\n")[0] for name, value in env.items()
    }


@given(st.from_regex(r"[-+.:_0-9a-fxoyYesNnTtruE~]{1,10}", fullmatch=True))
def test_plain_scalar_is_sent_as_it_is_written_or_refused(text: str) -> None:
    try:
        spec = read_spec(f"env: {{A: {text} }}".encode())
    except ValueError:
        return
    assert spec == {"env": {"A": text}}


# Files of other tools

KUBERNETES_JOB = """
apiVersion: batch/v1
kind: Job
metadata: {name: train}
spec:
  template:
    spec:
      containers:
        - name: train
          image: team/train:1
          command: [python, train.py]
          args: ["--lr", "0.1 0.2"]
          resources:
            requests: {cpu: 2, memory: 1Gi}
            limits: {memory: 2Gi, nvidia.com/gpu: 1}
"""
SBATCH = """#!/bin/bash
#SBATCH --job-name=train
#SBATCH -c 4
#SBATCH --mem=16G
#SBATCH --gres=gpu:a10g:2
#SBATCH --time=1-02:30:00
srun python train.py
"""


def test_kubernetes_job_gets_the_command_that_does_the_same() -> None:
    assert (
        "stdin is a Kubernetes Job, and Runway makes the Job itself: runway submit --image team/train:1 --cpu 2 "
        "--memory 2Gi --gpu 1 -- python train.py --lr '0.1 0.2'"
    ) in refused("submit", "-f", "-", stdin=KUBERNETES_JOB)


def test_pod_as_json_and_streams_of_manifests_are_recognized() -> None:
    pod = {"kind": "Pod", "apiVersion": "v1", "spec": {"containers": [{"image": "a", "command": ["b"]}]}}
    assert "--image a --cpu CPU --memory MEMORY -- b" in refused("submit", stdin=json.dumps(pod, indent=1))
    stream = f"apiVersion: v1\nkind: ConfigMap\n---{KUBERNETES_JOB}"
    assert "is a Kubernetes ConfigMap" in refused("submit", stdin=stream)


def test_sbatch_script_gets_the_command_that_does_the_same(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "train.sh").write_text(SBATCH)
    expected = (
        "train.sh is an sbatch script; Runway runs it in a container image: runway submit --image IMAGE --name train "
        '--cpu 4 --memory 16Gi --gpu 2 --timeout 1d2h -- sh -c "$(cat train.sh)"'
    )
    for words in (["sbatch", "train.sh"], ["submit", "-f", "train.sh"]):
        assert expected in refused(*words)


@given(st.binary(max_size=400))
def test_any_content_is_explained_in_a_short_line_or_not_at_all(content: bytes) -> None:
    for head in (b"", b"#!/bin/sh\n#SBATCH -c ", b"apiVersion: v1\nkind: Pod\nspec:\n  containers:\n  - image: "):
        said = explain("job", head + content)
        assert said is None or (said.isprintable() and len(said) < 500)


def test_large_manifest_is_explained_at_once() -> None:
    content = b"apiVersion: v1\n" * 50_000
    assert explain("job", content) is None
