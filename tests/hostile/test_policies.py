"""Hostile policy and job files: accepted, or rejected with a short message."""

from __future__ import annotations

import os
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from runway.errors import PolicyError
from runway.policy import load_policy, parse_policy
from runway.policy_faults import MAX_FAULTS
from runway.yaml_loader import MAX_MESSAGE
from tests.hostile.serving import FULL, MIB, POLICY, Process, api_server, run_cli, runway

TEXT = POLICY.read_text()
MOST_TIMES = 100
"""CPU time of a faulty file, in times that of a valid policy of 1,000 tenants, which has 23,000 values.

The slowest, with 180,000 values and 90,000 faults, takes about 20 times as long. Work for each pair of faults would
take thousands.
"""
BOMB = "a: &a [x, x, x, x, x, x, x, x, x]\n" + "".join(
    f"{chr(98 + at)}: &{chr(98 + at)} [{', '.join(['*' + chr(97 + at)] * 9)}]\n" for at in range(8)
)


def _with(old: str, new: str) -> str:
    assert old in TEXT
    return TEXT.replace(old, new)


def _line(text: str) -> str:
    return f"line {TEXT[: TEXT.index(text)].count(chr(10)) + 1}"


FAULTY: dict[str, tuple[str | bytes, str]] = {
    "aliases that expand to a billion values": (BOMB, "aliases are not allowed"),
    "a merge key": (_with("version: 1", "version: 1\n<<: {version: 1}"), "key << is not allowed"),
    "a key given twice": (_with("version: 1", "version: 1\nversion: 1"), "line 6: version: is given twice"),
    "a tag of Python": ("!!python/object/apply:os.system ['id']", "tags are not allowed"),
    "a tag with an invalid value": (_with("version: 1", "version: !!bool abc"), "tags are not allowed"),
    "a tag of 1 MB": ("!" * 1_000_000, "tags are not allowed"),
    "a quantity of 10^400": (_with('"32", memory', '"' + "9" * 400 + '", memory'), "tenants.vision.quota.cpu"),
    "a price of 10,000 digits": (_with('"0.096"', '"' + "9" * 10_000 + '"'), "pools.cpu.hourly_usd"),
    "a price of 1e999999": (_with('"0.096"', '"1e999999"'), "pools.cpu.hourly_usd"),
    "an integer of 5,000 digits": (_with("gpu: {max: 4}", "gpu: {max: " + "9" * 5000 + "}"), "limits.gpu.max"),
    "a base 60 number of 20,000 digits": (
        _with("gpu: {max: 4}", "gpu: {max: 1" + ":59" * 20_000 + ".5}"),
        _line("gpu: {max: 4}"),
    ),
    "an infinite number": (_with("gpu: {max: 4}", "gpu: {max: 1.0e+999999}"), "limits.gpu.max"),
    "an invalid date": (_with("version: 1", "version: 2026-13-45"), _line("version: 1")),
    "a name with an escape sequence": (_with("vision:", '"vi\\x1b[31msion":'), "tenants.vi\\x1b[31msion"),
    "a name with a NUL": (_with("vision:", '"vi\\0sion":'), "tenants.vi\\x00sion"),
    "a name with a right-to-left override": (_with("vision:", '"vi\\u202esion":'), "tenants.vi\\u202esion"),
    "a raw NUL": (_with("vision:", "vi\0sion:"), "#x0000"),
    "100,000 open brackets": ("[" * 100_000, "nested deeper"),
    "a mapping in 1,000 others": ("".join(" " * at + "a:\n" for at in range(1000)), "nested deeper"),
    "170,000 mappings": ("[" + "a: b," * 170_000 + "]", "values"),
    "250,000 documents": ("---\n" * 250_000, "a second document"),
    "9,000 tolerations": (_with("tolerations: []", f"tolerations: [{'{key: a},' * 9_000}]"), "pools.cpu.tolerations"),
    "90,000 unknown fields": (TEXT + "".join(f"k{at}: 1\n" for at in range(90_000)), "more faults are not shown"),
    "not UTF-8": (TEXT.encode() + b"# \xff\n", "#x00ff"),
    "nothing": ("", "must be a mapping"),
    "5 MB": ("#" * 5_000_000, "is larger than"),
}  # fmt: skip


@pytest.fixture(scope="module")
def valid_seconds() -> float:
    """Return the CPU time of a valid policy of 1,000 tenants."""
    begun = time.process_time()
    parse_policy(_policy_of_tenants(1000))
    return time.process_time() - begun


@pytest.mark.parametrize("case", FAULTY)
def test_hostile_policy_is_rejected_in_time_on_one_screen(case: str, valid_seconds: float, tmp_path: Path) -> None:
    text, expected = FAULTY[case]
    file = tmp_path / "policy.yaml"
    file.write_bytes(text if isinstance(text, bytes) else text.encode())

    begun = time.process_time()
    with pytest.raises(PolicyError) as caught:
        load_policy(file)
    took, message = time.process_time() - begun, str(caught.value)

    assert expected in message
    assert took < MOST_TIMES * valid_seconds
    assert len(message.splitlines()) <= MAX_FAULTS + 1
    assert max(map(len, message.splitlines())) <= 3 * MAX_MESSAGE
    assert all(line.isprintable() for line in message.splitlines())


@pytest.mark.parametrize("text", ["\ufeff" + TEXT, TEXT.replace("\n", "\r\n"), "#\n" * 500_000 + TEXT])
def test_byte_order_mark_crlf_and_comments_are_ignored(text: str) -> None:
    assert parse_policy(text.encode()) == parse_policy(TEXT)


def test_irregular_file_is_rejected_unread(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    for path in (tmp_path, tmp_path / "pipe", Path("/dev/zero")):
        with pytest.raises(PolicyError, match="is not a regular file"):
            load_policy(path)
    with pytest.raises(PolicyError, match="No such file"):
        load_policy(tmp_path / "missing")


def test_hostile_policy_stops_the_server(tmp_path: Path) -> None:
    file = tmp_path / "policy.yaml"
    file.write_text(BOMB)

    done = run_cli("serve", "--port", "1", RUNWAY_POLICY=str(file), KUBECONFIG="/nowhere")

    assert done.returncode == 1
    assert done.stderr == f"runway: cannot start: invalid policy {file}\nline 2: aliases are not allowed\n"


SPECS: dict[str, tuple[str | bytes, str]] = {
    "aliases": (BOMB, "aliases are not allowed"),
    "a tag": ("image: !!bool abc", "tags are not allowed"),
    "a base 60 number": ("image: x\nretries: " + ":".join(["59"] * 20_000) + ".5", "line 2"),
    "an infinite number in JSON": ('{"retries": 1e999999}', "not JSON compliant"),
    "half a character in JSON": ('{"image": "\\ud800"}', "not UTF-8"),
    "a number of 900,000 digits": ('{"retries": ' + "9" * 900_000 + "}", "more than 20 digits"),
    "500,000 open brackets in JSON": ('{"a": ' + "[" * 500_000, "nested too deeply"),
    "100,000 open brackets": ("a: " + "[" * 100_000, "nested deeper"),
    "not UTF-8": (b"image: \xff", "utf-8"),
    "2 MB": ("#" * 2_000_000, "is larger than"),
}


@pytest.mark.parametrize("case", SPECS)
def test_hostile_job_file_is_rejected_in_one_message(case: str, tmp_path: Path) -> None:
    text, expected = SPECS[case]
    file = tmp_path / "job.yaml"
    file.write_bytes(text if isinstance(text, bytes) else text.encode())

    done = _submit("-f", str(file))

    assert expected in done.stderr, done.stderr
    assert done.returncode == 2
    assert len(done.stderr) < 1000


def test_argument_that_is_not_utf_8_is_rejected() -> None:
    done = _submit("--image", os.fsdecode(b"\xff"), "--", "true")

    assert done.returncode == 2
    assert "'\\udcff' is not UTF-8" in done.stderr


def test_url_with_invalid_host_name_is_rejected() -> None:
    done = _submit("--image", "a", "--url", f"http://{'a' * 300}.example", "--", "true")

    assert done.returncode == 2
    assert "is not a URL" in done.stderr


def _submit(*arguments: str) -> subprocess.CompletedProcess[str]:
    return run_cli("submit", "--tenant", "vision", "--url", "http://127.0.0.1:9", *arguments)


TENANTS = 10_000 if FULL else 1_000
TENANT_BYTES = 80 << 10
"""Memory of a tenant while Runway writes `/metrics`, with 5.4 KB of text a tenant."""


@pytest.fixture(scope="module")
def many_tenants(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Process]:
    scratch = tmp_path_factory.mktemp("many")
    (scratch / "policy.yaml").write_bytes(_policy_of_tenants(TENANTS))
    with api_server(scratch), runway(scratch, policy=scratch / "policy.yaml") as process:
        yield process


def _policy_of_tenants(count: int) -> bytes:
    head = TEXT.partition("tenants:")[0]
    quota = 'quota: {gpu: 0, cpu: "8", memory: 32Gi, jobs: 20}, rate: {per_minute: 60, burst: 20}'
    tenants = "".join(f"  team-{at}: {{namespace: runway-team-{at}, {quota}}}\n" for at in range(count))
    return f"{head}tenants:\n{tenants}".encode()


def test_thousands_of_tenants_are_served(many_tenants: Process) -> None:
    """Runway starts with 10,000 tenants in 12 s."""
    for path, least in (("/v1/policy", TENANTS), ("/v1/quota", TENANTS), ("/metrics", TENANTS)):
        begun = time.process_time()
        answer = many_tenants.get(path, seconds=30)
        print(f"{path}: {len(answer.content)} bytes in {time.process_time() - begun:.2f} s")
        assert answer.status_code == 200
        assert answer.text.count("team-") >= least
    print(f"resident: {many_tenants.memory() / MIB:.0f} MiB")
    assert many_tenants.peak() < 110 * MIB + TENANTS * TENANT_BYTES
