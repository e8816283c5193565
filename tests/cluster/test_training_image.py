"""Jobs in an image that root built, as teams publish them, on the real kubelet and kernel."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import yaml

from demo.scenarios.training import TRAIN_IMAGE, train_and_resume
from testbed.context import Context
from testbed.http_client import JOB_SECONDS, Document
from testbed.kubectl import Kubectl, KubectlFailed
from testbed.server import CHECKOUT
from testbed.storage import ROWS, SECRET_VALUE

pytestmark = pytest.mark.cluster

GOLDEN = CHECKOUT / "tests" / "unit" / "golden"
USERS = (1000, 65532)
MIB = 2**20


def job(command: Sequence[str], memory: str = "128Mi", shared_memory: str | None = None, **fields: object) -> Document:
    resources = {"cpu": "200m", "memory": memory} | ({"shared_memory": shared_memory} if shared_memory else {})
    spec: Document = {
        "image": TRAIN_IMAGE,
        "command": list(command),
        "resources": resources,
        "timeout_seconds": JOB_SECONDS,
        "grace_period_seconds": 20,
    }
    return spec | fields


def python(script: str, **fields: Any) -> Document:
    return job(["python3", "-c", script], **fields)


def succeeded(context: Context, spec: Document) -> list[str]:
    """Return the lines of a job that must succeed."""
    view = context.until_finished(context.submit("vision", spec)["id"])
    log = context.runway.log(view["id"]).text
    assert view["state"] == "succeeded", (view["failure"], log)
    return log.splitlines()


def failed(context: Context, spec: Document) -> Document:
    """Return the view of a job that must fail."""
    view = context.until_finished(context.submit("vision", spec)["id"])
    assert view["state"] == "failed", context.runway.log(view["id"]).text
    return view


def test_image_is_made_for_no_platform(context: Context) -> None:
    script = "grep -c :1000: /etc/passwd; stat -c '%u %a' /workspace"
    assert succeeded(context, job(["sh", "-c", script])) == ["0", "0 755"]


# The demo does the same with the default user.
def test_image_trains_and_resumes_with_another_user(context: Context) -> None:
    train_and_resume(context, user=65532)


def test_documented_example_continues_from_its_checkpoint(context: Context) -> None:
    text = (CHECKOUT / "docs/features.md").read_text(encoding="utf-8").partition("## Bring your container\n")[2]
    spec = yaml.safe_load(text.partition("```yaml\n")[2].partition("```\n")[0])
    words = f"token of {len(SECRET_VALUE)} characters; {ROWS} rows; from step "
    endless = {**spec, "env": {**spec["env"], "STEPS": str(10**9)}}
    job_id = context.submit("vision", endless)["id"]
    first = context.until_log(job_id, words)
    context.runway.cancel(job_id)
    view = context.until_finished(job_id)
    assert (view["state"], view["attempts"][0]["exit_code"]) == ("cancelled", 143)
    # The volume may have the checkpoint of an earlier test run.
    (second,) = succeeded(context, spec)
    assert int(second.removeprefix(words)) > int(first.removeprefix(words))


WRITABLE = """
import getpass, os, pathlib, tempfile
print(os.getuid(), os.getgid(), sorted(os.getgroups()))
print(getpass.getuser() == os.environ["USER"] == os.environ["LOGNAME"], pathlib.Path.home(), os.getcwd())
cache = pathlib.Path("~/.cache/huggingface").expanduser()
cache.mkdir(parents=True)
(cache / "token").write_text("x")
with tempfile.TemporaryDirectory() as temporary:
    print(temporary.startswith("/tmp/"))
print([os.path.exists(path) for path in ("/data", "/checkpoints")])
try:
    open("checkpoint", "w")
except PermissionError as error:
    print(error)
"""


@pytest.mark.parametrize("user", USERS)
def test_home_user_name_and_temporary_directory_work(context: Context, user: int) -> None:
    assert succeeded(context, python(WRITABLE, user=user)) == [
        f"{user} 1000 [1000]",
        "True /scratch /workspace",
        "True",
        "[False, False]",
        "[Errno 13] Permission denied: 'checkpoint'",
    ]


def test_working_directory_of_spec_is_writable(context: Context) -> None:
    script = "pwd; echo x > checkpoint && cat checkpoint"
    assert succeeded(context, job(["sh", "-c", script], working_dir="/scratch")) == ["/scratch", "x"]


def test_env_of_spec_overrides_home_and_threads(context: Context) -> None:
    env = {"HOME": "/workspace", "USER": "ada", "OMP_NUM_THREADS": "7"}
    script = "echo $HOME $USER $OMP_NUM_THREADS"
    assert succeeded(context, job(["sh", "-c", script], env=env)) == ["/workspace ada 7"]


def test_entry_script_of_image_runs_before_args(context: Context) -> None:
    script = ["sh", "-c", "echo entry $TRAIN_IMAGE"]
    assert succeeded(context, job([]) | {"command": [], "args": script}) == ["entry 1"]
    assert succeeded(context, job(script)) == ["entry"]


THREADS = """
import os, re, numpy
a = numpy.ones((64, 64))
a @ a
print(re.search(r"Threads:\\s+(\\d+)", open("/proc/self/status").read())[1], os.environ["OMP_NUM_THREADS"])
"""


def test_library_starts_as_many_threads_as_the_cpu_limit(context: Context) -> None:
    # Without the variable, OpenBLAS starts one thread per CPU of the node.
    assert succeeded(context, python(THREADS)) == ["1 1"]


SHARED = """
import numpy, os
shm = os.statvfs("/dev/shm")
print(shm.f_blocks * shm.f_frsize, flush=True)
try:
    open("/dev/shm/file", "wb").write(bytes(65 << 20))
except OSError as error:
    print(error, flush=True)
os.remove("/dev/shm/file")
numpy.memmap("/dev/shm/batch", "uint8", "w+", shape=65 << 20)[:] = 1
"""


def test_writing_past_shared_memory_is_an_error_or_sigbus(context: Context) -> None:
    view = failed(context, python(SHARED, memory="256Mi", shared_memory="64Mi"))
    lines = context.runway.log(view["id"]).text.splitlines()
    assert lines[:2] == [str(64 * MIB), "[Errno 28] No space left on device"]
    assert (view["attempts"][0]["signal"], view["failure"]["code"]) == ("SIGBUS", "bus_error")
    assert "shared_memory" in view["failure"]["hint"]


WORKER = """
import multiprocessing, numpy, signal, sys


def load():
    numpy.memmap("/dev/shm/batch", "uint8", "w+", shape=65 << 20)[:] = 1


worker = multiprocessing.Process(target=load)
worker.start()
worker.join()
if worker.exitcode == -signal.SIGBUS:
    # As PyTorch: https://github.com/pytorch/pytorch/issues/108861
    sys.exit(
        f"RuntimeError: DataLoader worker (pid {worker.pid}) is killed by signal: Bus error. It is possible that "
        "dataloader's workers are out of shared memory. Please try to raise your shared memory limit."
    )
"""


def test_worker_that_dies_of_full_shared_memory_gets_hint(context: Context) -> None:
    view = failed(context, python(WORKER, memory="256Mi", shared_memory="64Mi"))
    failure = view["failure"]
    assert (failure["code"], view["attempts"][0]["exit_code"]) == ("exit_nonzero", 1)
    assert failure["evidence"]["log_hint"] == "shared_memory"
    assert "raise resources.shared_memory" in failure["hint"]


def test_script_with_crlf_gets_hint(context: Context) -> None:
    script = r"printf '#!/bin/sh\r\ntrue\r\n' > run.sh; chmod +x run.sh; ./run.sh"
    view = failed(context, job(["bash", "-c", script], working_dir="/scratch"))
    assert view["failure"]["evidence"]["log_hint"] == "interpreter", view["failure"]
    assert "LF line endings" in view["failure"]["hint"]


def test_shared_memory_is_half_of_the_memory_by_default(context: Context) -> None:
    script = "df --block-size=1 --output=size /dev/shm"
    assert succeeded(context, job(["sh", "-c", script]))[1].strip() == str(64 * MIB)


def test_shared_memory_counts_towards_the_memory_limit(context: Context) -> None:
    script = 'open("/dev/shm/file", "wb").write(bytes(60 << 20)); print("shared", flush=True); b"x" * (100 << 20)'
    view = failed(context, python(script, shared_memory="128Mi"))
    assert context.runway.log(view["id"]).text == "shared\n"
    assert view["failure"]["code"] == "oom_killed"
    assert "shared_memory" in view["failure"]["hint"]


@pytest.mark.long
def test_writing_past_scratch_is_diagnosed_as_disk(context: Context) -> None:
    spec = job(["sh", "-c", "dd if=/dev/zero of=/scratch/file bs=1M count=100; sleep 600"])
    spec["resources"]["disk"] = "64Mi"
    view = context.until_finished(context.submit("vision", spec)["id"])
    assert view["failure"]["code"] == "ephemeral_storage_exceeded", view


@pytest.mark.parametrize("part", ["command", "args"])
def test_cancel_ends_a_command_without_handler_by_sigterm(context: Context, part: str) -> None:
    """As process 1 it would ignore SIGTERM, and get SIGKILL after its grace period."""
    spec = job([]) | {"command": [], part: ["sleep", "600"]}
    job_id = context.submit("vision", spec)["id"]
    context.until(job_id, lambda view: view["state"] == "running", "running")
    context.runway.cancel(job_id)
    view = context.until_finished(job_id)
    assert view["state"] == "cancelled"
    assert (view["attempts"][0]["exit_code"], view["attempts"][0]["signal"]) == (143, "SIGTERM")


ZOMBIES = """
import os, pathlib, subprocess, time
for _ in range(20):
    subprocess.run(["sh", "-c", "sleep 0.2 & "], check=True)


def states():
    found = []
    for stat in pathlib.Path("/proc").glob("[0-9]*/stat"):
        try:
            name, state = stat.read_text().split("(")[1].split(") ")
        except (FileNotFoundError, ProcessLookupError):
            continue
        found += [(name, state[0])] if name == "sleep" else []
    return found


while any(state != "Z" for _, state in states()[1:]):
    time.sleep(0.1)
deadline = time.monotonic() + 10
while (zombies := [name for name, state in states() if state == "Z"]) and time.monotonic() < deadline:
    time.sleep(0.1)
print(os.getpid() != 1, len(zombies))
"""


def test_orphaned_processes_are_reaped(context: Context) -> None:
    assert succeeded(context, python(ZOMBIES)) == ["True 0"]


def test_job_that_kills_every_process_keeps_its_outcome(context: Context) -> None:
    view = failed(context, job(["sh", "-c", "sleep 600 & echo killing; kill -KILL -1; exit 3"]))
    assert (view["failure"]["code"], view["attempts"][0]["exit_code"]) == ("exit_nonzero", 3)


def test_write_to_read_only_volume_is_refused(context: Context) -> None:
    script = "ls /data; echo x > /data/new"
    view = failed(context, job(["sh", "-c", script], volumes=["datasets"]))
    assert "Read-only file system" in view["failure"]["evidence"]["last_words"]
    assert "samples.f32\n" in context.runway.log(view["id"]).text


def test_failed_write_to_directory_of_image_gets_hint(context: Context) -> None:
    view = failed(context, python('open("/workspace/checkpoint", "w")'))
    assert view["failure"]["code"] == "exit_nonzero"
    assert "/scratch" in view["failure"]["hint"]
    assert "Permission denied" in view["failure"]["evidence"]["log_line"]
    assert re.search("sha256:[0-9a-f]{64}$", view["attempts"][0]["image_id"])


def test_credential_in_env_is_refused(context: Context) -> None:
    answer = context.try_to_submit("vision", job(["true"], env={"AWS_SECRET_ACCESS_KEY": "x", "MAX_TOKENS": "1"}))
    assert answer.status_code == 422
    (violation,) = answer.json()["violations"]
    assert "AWS_SECRET_ACCESS_KEY" in violation["field"]
    assert "secrets" in violation["hint"]


@pytest.mark.parametrize("file", sorted(GOLDEN.glob("job_*.json")), ids=lambda file: file.stem)
def test_pod_security_admits_golden_manifest(kubernetes: Kubectl, namespaces: dict[str, str], file: Path) -> None:
    """Kubernetes enforces Pod Security on pods, not on Jobs: https://kubernetes.io/docs/concepts/security/pod-security-admission/"""
    template = json.loads(file.read_text(encoding="utf-8"))["spec"]["template"]
    metadata = {**template["metadata"], "name": "golden", "namespace": namespaces["vision"]}
    pod = {"apiVersion": "v1", "kind": "Pod", "metadata": metadata, "spec": template["spec"]}
    create = ("create", "--dry-run=server", "--filename=-")
    assert "created (server dry run)" in kubernetes.run(*create, stdin=json.dumps(pod))
    pod["spec"]["securityContext"]["runAsUser"] = 0
    with pytest.raises(KubectlFailed, match="restricted"):
        kubernetes.run(*create, stdin=json.dumps(pod))
