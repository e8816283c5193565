"""Hints from the end of a log: the ends of real logs, and what a hint never changes."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from runway.jobs.diagnosis.codes import Diagnosis, FailureCode
from runway.jobs.diagnosis.log_hints import MAX_LINES, MAX_QUOTED, PATTERNS, find_pattern, with_log_hint
from runway.jobs.diagnosis.outcome import failure_of
from runway.jobs.log_excerpt import EXCERPT_BYTES
from runway.jobs.models import Failure

TRACEBACK = 'Traceback (most recent call last):\n  File "/workspace/train.py", line 12, in <module>\n'

LOGS: dict[str, tuple[str, str]] = {
    # https://github.com/msr-fiddle/pipedream/issues/28
    "worker of a data loader": (
        "shared_memory",
        ("ERROR: Unexpected bus error encountered in worker. This might be caused by insufficient shared "
            "memory (shm).\n"
        f"{TRACEBACK}RuntimeError: DataLoader worker (pid(s) 3216) exited unexpectedly\n"),
    ),
    # https://github.com/pytorch/pytorch/issues/108861
    "data loader, newer text": (
        "shared_memory",
        (f"{TRACEBACK}RuntimeError: DataLoader worker (pid 11011) is killed by signal: Bus error. It is possible that "
        "dataloader's workers are out of shared memory. Please try to raise your shared memory limit.\n"),
    ),
    # PyTorch 2.15 with a full /dev/shm.
    "data loader, PyTorch 2.15": (
        "shared_memory",
        ("RuntimeError: Caught RuntimeError in DataLoader worker process 0.\n"
        f"{TRACEBACK}RuntimeError: unable to allocate shared memory(shm) for file </torch_14_2408340952_0>: No space "
        "left on device (28)\n"),
    ),
    # https://github.com/NVIDIA/nccl-tests/issues/166
    "shared memory of NCCL": (
        "shared_memory",
        ("misc/shmutils.cc:71 NCCL WARN Error: failed to extend /dev/shm/nccl-fjwOOB to 5967876 bytes\n"
        "NCCL INFO transport/shm.cc:114 -> 2\n"
        f"{TRACEBACK}torch.distributed.DistBackendError: NCCL error in: ProcessGroupNCCL.cpp:1691, unhandled system "
        "error, NCCL version 2.21.5\nncclSystemError: System call or external library call failed\n"),
    ),
    # https://github.com/pytorch/ci-infra/pull/490
    "shared memory of NCCL, newer text": (
        "shared_memory",
        ("misc/shmutils.cc:132 NCCL WARN Error while creating shared memory segment /dev/shm/nccl-WU88OE (size "
        "9637888), error: No space left on device (28)\nproxy.cc:1326 NCCL WARN Socket recv failed\n"),
    ),
    "file in shared memory": (
        "shared_memory",
        f"{TRACEBACK}OSError: [Errno 28] No space left on device: '/dev/shm/batches'\n",
    ),
    # https://github.com/lllyasviel/Fooocus/issues/1313
    "old driver, PyTorch": (
        "cuda_driver",
        "RuntimeError: The NVIDIA driver on your system is too old (found version 11040). Please update it\n",
    ),
    # https://github.com/mlcommons/inference/issues/54
    "old driver, CUDA": (
        "cuda_driver",
        ("THCudaCheck FAIL file=/pytorch/torch/csrc/cuda/Module.cpp line=34 error=35 : CUDA driver version is "
        "insufficient for CUDA runtime version\n"),
    ),
    # https://github.com/facebookresearch/detectron2/issues/3107
    "no driver": (
        "cuda_no_device",
        f"{TRACEBACK}RuntimeError: Found no NVIDIA driver on your system. Please check that you have an NVIDIA GPU\n",
    ),
    # https://github.com/xianlin7/SAMUS/issues/39
    "no GPU": ("cuda_no_device", f"{TRACEBACK}RuntimeError: No CUDA GPUs are available\n"),
    "no CUDA library": (
        "cuda_no_device",
        "ImportError: libcuda.so.1: cannot open shared object file: No such file or directory\n",
    ),
    "GPU of another generation": (
        "cuda_architecture",
        "RuntimeError: CUDA error: no kernel image is available for execution on the device\n",
    ),
    "GPU memory, PyTorch": (
        "cuda_out_of_memory",
        ("torch.OutOfMemoryError: CUDA out of memory. Tried to allocate 2.00 GiB. GPU 0 has a total capacity of 22.06 "
        "GiB of which 1.17 GiB is free.\n"),
    ),
    "GPU memory, TensorFlow": (
        "cuda_out_of_memory",
        "failed to allocate 2.20G (2362232064 bytes) from device: CUDA_ERROR_OUT_OF_MEMORY: out of memory\n",
    ),
    # https://github.com/Dani3lSun/docker-db-apex-dev/issues/25
    "script with CRLF, bash": (
        "interpreter",
        "/bin/sh: /scripts/install_main.sh: /bin/bash^M: bad interpreter: No such file or directory\n",
    ),
    # https://github.com/puckel/docker-airflow/issues/597
    "script with CRLF, env": ("interpreter", "/usr/bin/env: ‘bash\\r’: No such file or directory\n"),
    "script with CRLF, later lines": ("interpreter", "./run.sh: line 2: $'\\r': command not found\n"),
    # https://github.com/ericc-ch/copilot-api/issues/137
    "script with CRLF, runc": ("interpreter", "exec /entrypoint.sh: no such file or directory\n"),
    "binary without its loader, bash": ("interpreter", "bash: ./train: cannot execute: required file not found\n"),
    # https://github.com/lolgast1987/adguard-unbound/issues/6
    "script without #!": ("interpreter", "exec /opt/entrypoint.sh: exec format error\n"),
    # https://github.com/ansible/ansible/issues/68007
    "user without a name": ("unknown_user", f"{TRACEBACK}KeyError: 'getpwuid(): uid not found: 1000'\n"),
    "user without a name, Python 3.13": ("unknown_user", "OSError: No username set in the environment\n"),
    "user without a name, whoami": ("unknown_user", "whoami: cannot find name for user ID 1000\n"),
    "module": ("missing_module", f"{TRACEBACK}ModuleNotFoundError: No module named 'transformers'\n"),
    "module of python -m": ("missing_module", "/usr/bin/python3: No module named pip\n"),
    "library": (
        "missing_library",
        f"{TRACEBACK}ImportError: libGL.so.1: cannot open shared object file: No such file or directory\n",
    ),
    "C library": ("missing_library", "./train: /lib/libc.so.6: version `GLIBC_2.38' not found (required by ./train)\n"),
    # https://github.com/pytorch/pytorch/issues/92745
    "compiler of C++": (
        "missing_compiler",
        f"{TRACEBACK}torch._inductor.exc.InvalidCxxCompiler: No working C++ compiler found in torch._inductor.config\n",
    ),
    "compiler of C, Triton": (
        "missing_compiler",
        f"{TRACEBACK}RuntimeError: Failed to find C compiler. Please specify via CC environment variable.\n",
    ),
    "compiler, setuptools": ("missing_compiler", "error: command 'gcc' failed: No such file or directory\n"),
    "compiler, shell": ("missing_compiler", "sh: 1: gcc: not found\n"),
    "disk": ("disk_full", f"{TRACEBACK}OSError: [Errno 28] No space left on device\n"),
    # https://github.com/jim60105/docker-whisperX/issues/27
    "home directory": (
        "permission_denied",
        ("Matplotlib created a temporary cache directory at /tmp/matplotlib-0qeq3jjn because the default path "
        "(/.config/matplotlib) is not a writable directory; it is highly recommended to set the MPLCONFIGDIR\n"
        f"{TRACEBACK}PermissionError: [Errno 13] Permission denied: '/.cache'\n"),
    ),
    "working directory": (
        "permission_denied",
        "mkdir: cannot create directory '/workspace/out': Permission denied\n",
    ),
    "read-only volume": ("permission_denied", "OSError: [Errno 30] Read-only file system: '/data/x'\n"),
    # https://github.com/h2oai/h2ogpt/issues/729
    "cache directory": (
        "unwritable_cache",
        ("There was a problem when trying to write in your cache folder (/root/.cache/huggingface/hub). You should "
        "set the environment variable TRANSFORMERS_CACHE to a writable directory.\n"),
    ),
    # https://github.com/certifi/python-certifi/issues/194
    "certificate": (
        "tls_failure",
        ("requests.exceptions.SSLError: HTTPSConnectionPool(host='data', port=443): Max retries exceeded (Caused by "
        "SSLError(SSLCertVerificationError(1, '[SSL: CERTIFICATE_VERIFY_FAILED] certificate verify failed: unable to "
        "get local issuer certificate (_ssl.c:997)')))\n"),
    ),
    "certificate, curl": ("tls_failure", "curl: (60) SSL certificate problem: self-signed certificate\n"),
    # https://github.com/h2oai/h2ogpt/issues/1602
    "name": ("dns_failure", f"{TRACEBACK}socket.gaierror: [Errno -3] Temporary failure in name resolution\n"),
    "name, curl": ("dns_failure", "curl: (6) Could not resolve host: huggingface.co\n"),
    "name, Go": ("dns_failure", "dial tcp: lookup data.internal on 10.96.0.10:53: no such host\n"),
    "NCCL alone": (
        "nccl",
        "[rank0]:[E1128 ProcessGroupNCCL.cpp:616] Watchdog caught collective operation timeout: WorkNCCL(...)\n",
    ),
}  # fmt: skip


def failure(code: FailureCode = FailureCode.EXIT_NONZERO) -> Failure:
    return failure_of(Diagnosis(code, "the process exited with code 1", {"exit_code": "1"}), {})


@pytest.mark.parametrize("name", LOGS)
def test_end_of_log_is_explained(name: str) -> None:
    expected, log = LOGS[name]
    found = with_log_hint(failure(), log)
    assert found.evidence["log_hint"] == expected
    assert found.evidence["log_line"] in log
    pattern = next(pattern for pattern in PATTERNS if pattern.name == expected)
    assert found.hint == f"{failure().hint}; the log says {pattern.meaning}: {pattern.advice}"


def test_every_pattern_has_a_real_log() -> None:
    assert {name for name, _ in LOGS.values()} == {pattern.name for pattern in PATTERNS}


@pytest.mark.parametrize(
    "log",
    [
        "",
        "\n\n",
        "epoch 3: loss 0.12\nAssertionError\n",
        # https://github.com/triton-lang/triton: the shared memory of a GPU.
        "triton.runtime.errors.OutOfResources: out of resource: shared memory, Required: 114688, Limit: 101376\n",
        "git@github.com: Permission denied (publickey).\n",
    ],
)
def test_other_logs_get_no_hint(log: str) -> None:
    assert with_log_hint(failure(), log) == failure()


def test_last_error_decides() -> None:
    early, late = LOGS["name"][1], LOGS["module"][1]
    assert with_log_hint(failure(), early + late).evidence["log_hint"] == "missing_module"
    assert with_log_hint(failure(), late + early).evidence["log_hint"] == "dns_failure"


def test_only_the_last_lines_count() -> None:
    log = LOGS["module"][1]
    assert find_pattern(log + "done\n" * (MAX_LINES - 1)) is not None
    assert find_pattern(log + "done\n" * MAX_LINES) is None


@pytest.mark.parametrize("code", [code for code in FailureCode if code.category != "user"])
def test_failure_of_the_infrastructure_gets_no_hint_from_the_log(code: FailureCode) -> None:
    """A drained process may well report a lost connection; it did not fail because of it."""
    assert with_log_hint(failure(code), LOGS["name"][1]) == failure(code)


WORDS = st.sampled_from([*(log for _, log in LOGS.values()), "\n", "\\x1b[31m", " ", "x" * 50])


@given(code=st.sampled_from(list(FailureCode)), log=st.one_of(st.text(), st.lists(WORDS).map("".join)))
def test_hint_changes_nothing_but_hint_and_evidence(code: FailureCode, log: str) -> None:
    before, after = failure(code), with_log_hint(failure(code), log)
    assert replace(after, hint=before.hint, evidence=before.evidence) == before
    assert after.hint.startswith(before.hint)
    assert before.evidence.items() <= after.evidence.items()
    added = set(after.evidence) - set(before.evidence)
    assert added in (set(), {"log_hint", "log_line"})
    assert all(len(after.evidence[name]) <= MAX_QUOTED and after.evidence[name].isprintable() for name in added)


@pytest.mark.parametrize("phrase", sorted({word for p in PATTERNS for words in p.together for word in words}))
def test_largest_excerpt_full_of_parts_of_patterns_gets_no_hint(phrase: str) -> None:
    """Each phrase is a part of a message. No pattern is a regular expression, so none can backtrack."""
    hostile = (f"{phrase} " * EXCERPT_BYTES)[:EXCERPT_BYTES].replace("no space left on device", "no space left")
    assert find_pattern(hostile.replace("cannot open shared object file", "cannot open")) is None
