"""A real training job in an image that root built: data, shared memory, a secret, a checkpoint."""

from __future__ import annotations

import base64
import hashlib
import os
import re
import uuid

from demo.scenario import Scenario
from testbed.context import Context, NotSeen, Source, Unavailable, expect
from testbed.http_client import JOB_SECONDS, Document
from testbed.storage import DATASETS, volume_directory

LOCAL_IMAGE = "runway.local/train:1"
TRAIN_IMAGE = os.environ.get("DEMO_TRAIN_IMAGE", LOCAL_IMAGE)
"""An image with Python and numpy that the nodes have or can pull; by default the image of the local cluster."""
CHECKPOINTS = "checkpoints"
HUGGING_FACE = "huggingface"
"""The Secret with the token."""
TIMEOUT_SECONDS = 40
STEPS_AFTER_RESUME = 5
WORKERS = 4
SHARED_MIB = 200
"""At least this much is in shared memory: each worker fills a batch of 56 MiB."""

SCRIPT = """\
import getpass, hashlib, multiprocessing, os, pathlib, signal, sys
import numpy as np

BATCH = (56 * 2**20 // 36, 9)  # float32: eight features and their label


def load(worker, data, ready, free):
    batch = np.memmap(f"/dev/shm/batch{worker}", "float32", "w+", shape=BATCH)
    random = np.random.default_rng(worker)
    while True:
        np.take(data, random.integers(len(data), size=BATCH[0]), axis=0, out=batch, mode="clip")
        ready.put(worker)
        free.get()


def say(*words):
    print(*words, flush=True)


say("user", os.getuid(), getpass.getuser(), "home", pathlib.Path.home())
say("token", hashlib.sha256(os.environ["HF_TOKEN"].encode()).hexdigest())
data = np.fromfile("/data/samples.f32", "float32").reshape(-1, 9)
say("dataset", len(data), "samples")
saved = pathlib.Path("/checkpoints", os.environ["RUN"] + ".npz")
step, weights = 0, np.zeros(8, "float32")
if saved.exists():
    with np.load(saved) as state:
        step, weights = int(state["step"]), state["weights"]
    say("resumed at step", step)
last = step + int(os.environ["STEPS"])

ready, free = multiprocessing.Queue(), [multiprocessing.Queue() for _ in range(WORKERS)]
for worker in range(WORKERS):
    multiprocessing.Process(target=load, args=(worker, data, ready, free[worker]), daemon=True).start()
stop = []
signal.signal(signal.SIGTERM, lambda *_: stop.append("SIGTERM"))
seen = set()
while step < last and not stop:
    worker = ready.get()
    batch = np.memmap(f"/dev/shm/batch{worker}", "float32", "r", shape=BATCH)
    error = batch[:, :8] @ weights - batch[:, 8]
    weights -= 0.1 * (batch[:, :8].T @ error) / len(error)
    step += 1
    free[worker].put(None)
    if worker not in seen or step == last:
        seen.add(worker)
        shm = os.statvfs("/dev/shm")
        used, size = (shm.f_blocks - shm.f_bfree) * shm.f_frsize >> 20, shm.f_blocks * shm.f_frsize >> 20
        say(f"step {step} loss {(error**2).mean():.4f} workers {len(seen)} shared {used} of {size} MiB")

unfinished = saved.with_suffix(".unfinished.npz")
np.savez(unfinished, step=step, weights=weights)
unfinished.replace(saved)
say(*stop, "saved step", step)
sys.exit(143 if stop else 0)
""".replace("WORKERS", str(WORKERS))


def training_job(run: str, *, steps: int, **fields: object) -> Document:
    """Return the spec of a job that trains `run` from its last checkpoint, for `steps` steps; `fields` replace."""
    spec: Document = {
        "image": TRAIN_IMAGE,
        "command": ["python3", "-c", SCRIPT],
        "env": {"RUN": run, "STEPS": str(steps)},
        "secrets": {"HF_TOKEN": f"{HUGGING_FACE}/token"},
        "volumes": [DATASETS, CHECKPOINTS],
        "resources": {"cpu": "500m", "memory": "1Gi"},
        "timeout_seconds": JOB_SECONDS,
        "grace_period_seconds": 10,
    }
    return spec | fields


def train_and_resume(context: Context, **fields: object) -> None:
    """Train until the deadline, and continue from the checkpoint; `fields` replace those of the spec."""
    _require_data(context)
    run = f"run-{uuid.uuid4().hex[:12]}"
    view = context.submit("vision", training_job(run, steps=10**6, timeout_seconds=TIMEOUT_SECONDS, **fields))
    context.until_log(view["id"], f"workers {WORKERS} ")
    pod = context.pod(view)
    container = pod["spec"]["containers"][0]
    mounts = {mount["mountPath"]: mount.get("readOnly", False) for mount in container["volumeMounts"]}
    user = pod["spec"]["securityContext"]["runAsUser"]
    context.show(Source.KUBERNETES, f"{container['image']} runs as user {user}; mounts: {', '.join(sorted(mounts))}")
    expect(mounts.get("/data") is True, f"/data is not mounted read-only: {mounts}")
    log = context.runway.log(view["id"], follow=True).text
    context.show(Source.JOB, f"log, followed to the end: {_without_token(log)}")
    _expect_environment(context, view, log, user)
    saved, losses = _number(log, r"^SIGTERM saved step (\d+)$"), _losses(log)

    view = context.until_finished(view["id"])
    failure, attempt = view["failure"] or {}, view["attempts"][-1]
    context.show(Source.RUNWAY, f"{view['state']}: {failure.get('code')}, exit code {attempt['exit_code']}")
    expect(failure.get("code") == "deadline_exceeded", f"the failure is {failure or view['state']}")
    expect(attempt["exit_code"] == 143, f"the exit code is {attempt['exit_code']}")

    if context.kernel is not None:
        file = volume_directory(view["kubernetes"]["namespace"], CHECKPOINTS) / f"{run}.npz"
        status = file.stat()
        context.show(
            Source.LINUX, f"{file.name} on the volume: {status.st_size} bytes, owner {status.st_uid}:{status.st_gid}"
        )
        expect(status.st_uid == user, f"the owner of the checkpoint is {status.st_uid}, not {user}")

    second = context.submit("vision", training_job(run, steps=STEPS_AFTER_RESUME, **fields))
    second = context.until_finished(second["id"])
    log = context.runway.log(second["id"]).text
    context.show(Source.JOB, f"the second job: {_without_token(log)}")
    context.show(Source.RUNWAY, f"{second['id']} {second['state']}")
    expect(second["state"] == "succeeded", f"the second job is {second['state']}: {second['failure']}")
    losses += _losses(log)
    expect(losses[-1] < losses[0], f"the loss does not fall: {losses}")
    resumed, ended = _number(log, r"^resumed at step (\d+)$"), _number(log, r"^saved step (\d+)$")
    expect(
        (resumed, ended) == (saved, saved + STEPS_AFTER_RESUME),
        f"the first job saved step {saved}, the second resumed at {resumed} and ended at {ended}",
    )


def _require_data(context: Context) -> None:
    """Check that the policy has the data and the Secret, and that another cluster has an image. Raises Unavailable."""
    own = context.runway.policy("vision")["tenants"]["vision"]["own"]
    if not own["volumes"].keys() >= {DATASETS, CHECKPOINTS} or HUGGING_FACE not in own["secrets"]:
        raise Unavailable(f"the volumes {DATASETS} and {CHECKPOINTS} and the Secret {HUGGING_FACE} of tenant vision")
    if context.kernel is None and TRAIN_IMAGE == LOCAL_IMAGE:
        raise Unavailable("an image with Python and numpy, which DEMO_TRAIN_IMAGE names")


def _expect_environment(context: Context, view: Document, log: str, user: int) -> None:
    shared = max(int(found) for found in re.findall(r" shared (\d+) of", log))
    expect(shared >= SHARED_MIB, f"the workers share {shared} MiB, not {SHARED_MIB}")
    who = _number(log, r"^user (\d+) \S+ home /scratch$")
    expect(who == user, f"the process is user {who}, not {user}")
    secret = context.kubernetes.get("secret", HUGGING_FACE, view["kubernetes"]["namespace"])
    if secret is None:
        raise NotSeen(f"there is no Secret {HUGGING_FACE}")
    token = base64.b64decode(secret["data"]["token"])
    expect(f"token {hashlib.sha256(token).hexdigest()}" in log, "the job did not get the secret's value")
    job = str(context.job(view)) + str(context.runway.job(view["id"]))
    expect(token.decode() not in job, "the Job or its view has the secret's value")
    context.show(Source.KUBERNETES, "the job's HF_TOKEN is the Secret's value, which neither the Job nor its view has")


def _number(log: str, pattern: str) -> int:
    found = re.search(pattern, log, re.MULTILINE)
    if found is None:
        raise NotSeen(f"no line {pattern!r} in the log: {log!r}")
    return int(found[1])


def _losses(log: str) -> list[float]:
    return [float(found) for found in re.findall(r"^step \d+ loss (\S+) ", log, re.MULTILINE)]


def _without_token(log: str) -> list[str]:
    return [line for line in log.splitlines() if not line.startswith("token ")]


TRAINING = Scenario(
    "A real training job",
    "An image that root built trains unchanged: four workers share 200 MiB, SIGTERM at the deadline saves a checkpoint "
    "on a volume, and a second job continues from it.",
    train_and_resume,
)
