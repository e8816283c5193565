"""Debian's Chromium, driven by Playwright, for tests of the console.

`python -m tests.support.chromium` installs it if it is missing. Without it the tests fail; none is skipped.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import Browser, BrowserContext, Page, expect, sync_playwright

from localcluster import LocalClusterError
from localcluster.packages import ensure_installed
from testbed.waiting import GUARD_SECONDS

EXECUTABLE: Final = Path("/usr/bin/chromium")
PACKAGES: Final = {
    "chromium": str(EXECUTABLE),
    "fonts-dejavu-core": "/usr/share/fonts/truetype/dejavu/DejaVuSans.ttf",
}
"""Package -> a file that it contains. Without a font, pages have no visible text."""
SCREENSHOTS: Final = Path(__file__).parents[2] / ".local" / "screenshots"
WIDE: Final = 1280
NARROW: Final = 375
GUARD_MILLISECONDS: Final = GUARD_SECONDS * 1000


@contextmanager
def chromium() -> Iterator[Browser]:
    """Run a browser until the context exits. Waits for pages claim no time."""
    expect.set_options(timeout=GUARD_MILLISECONDS)
    with sync_playwright() as playwright:
        # Chromium's sandbox does not work for root, and the tests of the local cluster run as root.
        browser = playwright.chromium.launch(executable_path=EXECUTABLE, args=["--no-sandbox"])
        try:
            yield browser
        finally:
            browser.close()


class Watched:
    """A page in a new browser context that records errors."""

    def __init__(self, browser: Browser, url: str, **options: Any) -> None:
        plain = {"viewport": {"width": WIDE, "height": 900}, "reduced_motion": "reduce"}
        self.context: BrowserContext = browser.new_context(base_url=url, **(plain | options))
        self.context.set_default_timeout(GUARD_MILLISECONDS)
        self.page: Page = self.context.new_page()
        self.complaints: list[str] = []
        """Script errors, and violations of the content security policy."""
        self.page.on("pageerror", lambda error: self.complaints.append(str(error)))
        self.page.on("console", lambda said: self._said(said.type, said.text))
        self.page.on("dialog", lambda dialog: self._dialog(dialog))

    def __enter__(self) -> Watched:
        return self

    def __exit__(self, *_: object) -> None:
        self.context.close()

    def overflow(self) -> int:
        """Return the pixels by which the page is wider than the window."""
        root = "document.documentElement"
        return int(self.page.evaluate(f"{root}.scrollWidth - {root}.clientWidth"))

    def barriers(self) -> list[str]:
        """Return the accessibility violations that axe finds: rule and element."""
        found = Axe().run(self.page).response["violations"]
        return [f"{rule['id']}: {node['html'][:200]}" for rule in found for node in rule["nodes"]]

    def picture(self, name: str) -> None:
        """Save a screenshot of the whole page."""
        SCREENSHOTS.mkdir(parents=True, exist_ok=True)
        self.page.screenshot(path=SCREENSHOTS / f"{name}.png", full_page=True)

    def _said(self, kind: str, text: str) -> None:
        if kind == "error":
            self.complaints.append(text)

    def _dialog(self, dialog: Any) -> None:
        self.complaints.append(f"a dialog was opened: {dialog.message}")
        dialog.dismiss()


def main() -> int:
    """Install Chromium; return 0 if it is installed, 1 on failure."""
    try:
        ensure_installed(PACKAGES)
    except LocalClusterError as error:
        print(f"chromium: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
