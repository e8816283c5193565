"""A component of the cluster: its start parameters and its process."""

import hashlib
import signal
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path

from localcluster import files, paths, processes, waiting
from localcluster.errors import LocalClusterError
from localcluster.processes import Process


@dataclass(frozen=True, slots=True)
class ComponentSpec:
    """The command, configuration files and health probe of a component.

    `why_not_healthy` returns None or a reason within about 2 s. `launch` writes `files`. `timeout` limits the seconds
    from start to healthy. `niceness` is below 0, so that tests on the same CPUs delay no lease and no scrape. Without
    the right to it, nice(1) says so in the log and still starts the component.
    """

    name: str
    argv: tuple[str, ...]
    why_not_healthy: Callable[[], str | None]
    files: Mapping[Path, str] = field(default_factory=dict)
    timeout: float = 60.0
    niceness: int = -5


class Component:
    """A handle to one component of the cluster, for `up` and for tests that break it."""

    def __init__(self, spec: ComponentSpec, checkout: Path) -> None:
        self._spec = spec
        self._checkout = checkout
        self._record = paths.PROCESS_DIR / f"{spec.name}.json"

    @property
    def name(self) -> str:
        return self._spec.name

    @property
    def log(self) -> Path:
        """The file that receives its standard output and error."""
        return paths.LOG_DIR / f"{self.name}.log"

    @property
    def process(self) -> Process | None:
        """The running process that was last started for this component, or None."""
        record = files.read_json(self._record)
        if record is None or record["boot"] != _boot_id():
            return None
        process = Process(record["pid"], record["start_ticks"])
        return process if process.alive else None

    @property
    def pid(self) -> int | None:
        process = self.process
        return process.pid if process else None

    @property
    def outdated(self) -> bool:
        """Whether it runs with other arguments or files than this checkout specifies."""
        record = files.read_json(self._record)
        return record is not None and record["digest"] != self._digest()

    def why_not_healthy(self) -> str | None:
        """Return None if it runs and answers, else the reason."""
        return self._spec.why_not_healthy() if self.process else "not running"

    def with_options(self, *options: str) -> "Component":
        """Return the same component with these additional options; the last of a repeated option counts."""
        return Component(replace(self._spec, argv=(*self._spec.argv, *options)), self._checkout)

    def launch(self) -> None:
        """Start it unless it runs, without waiting until it is healthy."""
        if self.process:
            return
        for path, text in self._spec.files.items():
            files.write(path, text)
        command = ("nice", f"--adjustment={self._spec.niceness}", *self._spec.argv)
        process = processes.spawn(command, log=self.log, component=self.name, checkout=self._checkout)
        files.write_json(
            self._record,
            {
                "pid": process.pid,
                "start_ticks": process.start_ticks,
                "boot": _boot_id(),
                "digest": self._digest(),
                "argv": self._spec.argv,
            },
        )

    def start(self) -> None:
        """Start it unless it runs, and wait until it is healthy."""
        self.launch()
        self.wait_healthy()

    def wait_healthy(self, timeout: float | None = None) -> None:
        """Wait until it is healthy.

        Raises LocalClusterError with the end of its log if its process exits, or after `timeout` seconds (default: the
        component's own timeout).
        """

        def reason() -> str | None:
            why = self.why_not_healthy()
            if why is not None and self.process is None:
                raise LocalClusterError("its process has exited")
            return why

        try:
            waiting.until(reason, what="healthy", timeout=timeout or self._spec.timeout)
        except LocalClusterError as error:
            raise LocalClusterError(f"{self.name}: {error}\nThe end of {self.log}:\n{files.tail(self.log)}") from error

    def stop(self) -> None:
        """Send SIGTERM, and SIGKILL after 10 s."""
        if process := self.process:
            processes.stop([process])

    def kill(self) -> None:
        """Send SIGKILL, which has the effect of a crash."""
        if process := self.process:
            processes.kill([process])

    def freeze(self) -> None:
        """Send SIGSTOP: it keeps its connections and answers nothing."""
        self._signal(signal.SIGSTOP)

    def thaw(self) -> None:
        """Send SIGCONT after `freeze`."""
        self._signal(signal.SIGCONT)

    def _signal(self, number: signal.Signals) -> None:
        process = self.process
        if process is None:
            raise LocalClusterError(f"{self.name} is not running")
        process.send(number)

    def _digest(self) -> str:
        digest = hashlib.sha256(repr((self._spec.niceness, self._spec.argv)).encode())
        for path, text in sorted(self._spec.files.items()):
            digest.update(f"{path}\0{text}\0".encode())
        return digest.hexdigest()


def _boot_id() -> str:
    return Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii").strip()
