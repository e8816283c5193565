"""The terminal output of the demo; plain text without a terminal."""

from __future__ import annotations

from collections.abc import Sequence

from rich.console import Console
from rich.text import Text

from demo.scenario import Outcome, Scenario
from runway.text import escape
from testbed.context import Source

STYLES = {Source.RUNWAY: "cyan", Source.KUBERNETES: "blue", Source.LINUX: "magenta", Source.JOB: "yellow"}
LABEL_WIDTH = 1 + max(len(source) for source in Source)


class Report:
    """Write to stdout. Untrusted text is never interpreted as markup."""

    def __init__(self) -> None:
        self._console = Console(highlight=False, soft_wrap=True)

    def note(self, text: str) -> None:
        """Print a line about the demo itself."""
        self._console.print(Text(text, style="dim"))

    def begin(self, number: int, scenario: Scenario) -> None:
        """Print a scenario's title and claim."""
        self._console.print()
        self._console.print(Text(f"{number:>2}  {scenario.title}", style="bold"))
        self._console.print(Text(f"    {scenario.claim}"))

    def evidence(self, source: Source, text: str) -> None:
        """Print an observation with its source."""
        label = f"    {source:<{LABEL_WIDTH}}"
        self._console.print(Text.assemble((label, STYLES[source]), escape(text)))

    def end(self, outcome: Outcome) -> None:
        """Print whether the claim is verified."""
        self._console.print(Text("    ") + _outcome_text(outcome) + Text(f" in {outcome.seconds:.1f} s"))
        if outcome.missing:
            self._console.print(Text(f"    {escape(outcome.missing)}", style="red"))
        elif outcome.needs:
            self._console.print(Text(f"    it needs {escape(outcome.needs)}", style="yellow"))

    def summary(self, outcomes: Sequence[Outcome]) -> None:
        """Print one line per scenario, and the totals."""
        self._console.print()
        for number, outcome in enumerate(outcomes, start=1):
            title = Text(f"{number:>2}  {outcome.scenario.title:<46}{outcome.seconds:>6.1f} s  ")
            self._console.print(title + _outcome_text(outcome))
        seen = sum(outcome.seen for outcome in outcomes)
        total = sum(outcome.seconds for outcome in outcomes)
        hidden = sum(outcome.needs is not None for outcome in outcomes)
        words = f"{seen} of {len(outcomes)} claims seen in {total:.0f} s"
        words += f", {hidden} not shown: this cluster lacks what they need" if hidden else ""
        self._console.print(Text(f"    {words}", style="bold"))


def _outcome_text(outcome: Outcome) -> Text:
    if outcome.needs is not None and outcome.missing is None:
        return Text("NOT SHOWN", style="bold yellow")
    return Text("SEEN", style="bold green") if outcome.seen else Text("NOT SEEN", style="bold red")
