"""`runway version`."""

from __future__ import annotations

from runway import __version__
from runway.cli.options import As
from runway.cli.output import Output, Screen, emit


def version(output: As = Output.TABLE) -> None:
    """Show the version of this command line."""
    emit({"version": __version__}, output, names=[__version__], table=lambda: Screen().out(f"runway {__version__}"))
