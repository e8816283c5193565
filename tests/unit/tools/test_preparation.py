"""What a first `up` builds: side by side, stopped together, published as a whole."""

import shlex
from pathlib import Path

import pytest

from localcluster import build, processes, waiting
from localcluster.errors import LocalClusterError
from localcluster.preparation import Programs
from testbed.waiting import GUARD_SECONDS

# Finds the output directory and the packages of `go build … -o DIRECTORY PACKAGE…`.
FAKE_GO = """\
#!/bin/sh
while [ "$1" != -o ]; do shift; done
output=$2; shift 2
for package; do echo built > "$output/${package##*/}"; done
"""


def shell(script: str) -> list[str]:
    return ["timeout", "60", "sh", "-c", script]


def program_below_shell(pid_file: Path) -> list[str]:
    """Return a program that starts others, as `make` does."""
    program = f"echo $$ > {pid_file}.new; mv {pid_file}.new {pid_file}; exec sleep 600"
    return ["sh", "-c", f"sh -c {shlex.quote(program)}; :"]


def wait_for(path: Path) -> str:
    return f"until [ -e {path} ]; do sleep 0.1; done"


def assert_ended(pid_file: Path) -> None:
    pid = int(pid_file.read_text(encoding="ascii"))
    waiting.until(
        lambda: None if processes.find(pid) is None else "still runs", what=f"process {pid}", timeout=GUARD_SECONDS
    )


def test_programs_run_at_the_same_time(tmp_path: Path) -> None:
    first, second = tmp_path / "first", tmp_path / "second"
    with Programs() as programs:
        programs.start(shell(f"touch {first}; {wait_for(second)}"))
        programs.start(shell(f"touch {second}; {wait_for(first)}"))
        programs.wait()


def build_beside_failing_copy(pid_file: Path) -> None:
    with Programs() as programs:
        programs.start(program_below_shell(pid_file))
        programs.start(shell(f"{wait_for(pid_file)}; echo no space left >&2; exit 1"))
        programs.wait()


def test_program_that_fails_says_why_and_stops_the_others(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(LocalClusterError, match=r"no space left.* failed, see above"):
        build_beside_failing_copy(tmp_path / "pid")

    assert_ended(tmp_path / "pid")
    assert "no space left" in capfd.readouterr().err


def interrupt_build(pid_file: Path) -> None:
    with Programs() as programs:
        programs.start(program_below_shell(pid_file))
        waiting.until(lambda: None if pid_file.exists() else "missing", what="the program", timeout=GUARD_SECONDS)
        raise KeyboardInterrupt


def test_interrupt_stops_what_a_program_has_started(tmp_path: Path) -> None:
    with pytest.raises(KeyboardInterrupt):
        interrupt_build(tmp_path / "pid")

    assert_ended(tmp_path / "pid")


@pytest.fixture
def fake_go(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    program = tmp_path / "bin" / "go"
    program.parent.mkdir()
    monkeypatch.setenv("PATH", str(program.parent), prepend=":")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    program.write_text(FAKE_GO, encoding="ascii")
    program.chmod(0o755)
    return program


@pytest.mark.usefixtures("fake_go")
def test_build_has_every_binary_that_the_cluster_starts() -> None:
    built = build.ensure_built()

    assert built == build.current()
    names = ("kube-apiserver", "kube-controller-manager", "kube-proxy", "kube-scheduler", "kubectl", "kubelet")
    assert all(built.binary(name).exists() for name in (*names, "gpu-device-plugin"))


def test_failed_build_has_the_last_lines_of_the_compiler_and_is_not_used(fake_go: Path) -> None:
    working = fake_go.read_text(encoding="ascii")
    fake_go.write_text(f"{working}echo 'server.go:7: undefined: port' >&2; exit 1\n", encoding="ascii")
    with pytest.raises(LocalClusterError, match=r"server\.go:7: undefined: port"):
        build.ensure_built()
    assert not build.current().exists

    fake_go.write_text(working, encoding="ascii")
    assert build.ensure_built().exists
