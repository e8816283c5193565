"""Runway as uvicorn serves it, with its stacks sampled: `python -m bench.sampled FILE PORT`.

At SIGUSR1 sampling begins, and at the next one it ends and the stacks are written to FILE.
"""

from __future__ import annotations

import json
import signal
import sys
from pathlib import Path
from types import FrameType

import uvicorn

from bench.flame import Sampler
from runway.cli.commands.serve import HTTP_PROTOCOL


def main() -> None:
    file, port = Path(sys.argv[1]), int(sys.argv[2])
    sampler, running = Sampler(), False

    def toggle(_: int, __: FrameType | None) -> None:
        nonlocal running
        running = not running
        if running:
            sampler.start()
        else:
            sampler.stop()
            unfinished = file.with_suffix(".unfinished")
            unfinished.write_text(json.dumps(sampler.stacks))
            unfinished.rename(file)

    signal.signal(signal.SIGUSR1, toggle)
    uvicorn.run("main:app", port=port, access_log=False, http=HTTP_PROTOCOL, ws="none")


main()
