"""What a person sees: colours on a terminal, the same lines as plain text elsewhere."""

from __future__ import annotations

from collections.abc import Sequence

from rich.console import Console
from rich.text import Text

from demo.recording import printable
from demo.scenario import Outcome, Scenario
from testbed.context import Source

STYLES = {Source.RUNWAY: "cyan", Source.KUBERNETES: "blue", Source.LINUX: "magenta", Source.JOB: "yellow"}
LABEL_WIDTH = 1 + max(len(source) for source in Source)


class Report:
    """Writes to stdout. Text from outside is never read as markup."""

    def __init__(self) -> None:
        self._console = Console(highlight=False, soft_wrap=True)

    def note(self, text: str) -> None:
        """A line about the demo itself."""
        self._console.print(Text(text, style="dim"))

    def begin(self, number: int, scenario: Scenario) -> None:
        """A scenario's title and claim."""
        self._console.print()
        self._console.print(Text(f"{number:>2}  {scenario.title}", style="bold"))
        self._console.print(Text(f"    {scenario.claim}"))

    def evidence(self, source: Source, text: str) -> None:
        """One thing that was seen, and who says so."""
        label = f"    {source:<{LABEL_WIDTH}}"
        self._console.print(Text.assemble((label, STYLES[source]), printable(text)))

    def end(self, outcome: Outcome) -> None:
        """Whether the claim was seen."""
        self._console.print(Text("    ") + _verdict(outcome) + Text(f" in {outcome.seconds:.1f} s"))
        if outcome.missing:
            self._console.print(Text(f"    {printable(outcome.missing)}", style="red"))

    def summary(self, outcomes: Sequence[Outcome]) -> None:
        """One line for each scenario, and the sum."""
        self._console.print()
        for number, outcome in enumerate(outcomes, start=1):
            title = Text(f"{number:>2}  {outcome.scenario.title:<46}{outcome.seconds:>6.1f} s  ")
            self._console.print(title + _verdict(outcome))
        seen = sum(outcome.seen for outcome in outcomes)
        total = sum(outcome.seconds for outcome in outcomes)
        self._console.print(Text(f"    {seen} of {len(outcomes)} claims seen in {total:.0f} s", style="bold"))


def _verdict(outcome: Outcome) -> Text:
    return Text("SEEN", style="bold green") if outcome.seen else Text("NOT SEEN", style="bold red")
