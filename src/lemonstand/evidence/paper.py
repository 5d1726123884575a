"""Prints a page that stands alone as PDF, by a browser of this machine, if it has one."""

from __future__ import annotations

import os
import shutil
import subprocess
import tempfile
from pathlib import Path

from lemonstand.errors import LemonstandError

BROWSERS = ("chromium", "chromium-browser", "google-chrome")
"""Those that print without a window, in the order in which they are looked for."""
SWITCHES = (
    "--headless", "--disable-gpu", "--no-first-run", "--disable-background-networking", "--disable-component-update", "--disable-sync",
    "--disable-dev-shm-usage", "--no-pdf-header-footer",
)  # fmt: skip
PRINT_SECONDS = 120


def browser() -> str | None:
    """The program that prints; None if this machine has none."""
    return next((found for name in BROWSERS if (found := shutil.which(name))), None)


def print_pdf(program: str, page: Path, target: Path) -> None:
    """Prints a page; the browser has a profile of its own and no network to ask.

    Args:
        program: the browser.
        page: an HTML file that stands alone.
        target: the PDF, readable by its owner only.

    Raises:
        LemonstandError: no PDF came of it.
    """
    with tempfile.TemporaryDirectory(prefix="lemonstand-print-") as folder:
        made = Path(folder) / "page.pdf"
        # A browser of root's refuses to run in its sandbox; the page is our own and holds no script.
        rooted = ["--no-sandbox"] if os.geteuid() == 0 else []
        words = [program, *SWITCHES, *rooted, f"--user-data-dir={folder}/profile", f"--print-to-pdf={made}", page.absolute().as_uri()]
        try:
            done = subprocess.run(
                words, check=False, capture_output=True, text=True, errors="replace", timeout=PRINT_SECONDS, stdin=subprocess.DEVNULL,
                env={**os.environ, "HOME": folder},
            )  # fmt: skip
        except (OSError, subprocess.TimeoutExpired) as problem:
            raise LemonstandError(f"{program} did not print: {problem}", str(page), "print the page by hand") from None
        if not made.is_file() or not made.read_bytes().startswith(b"%PDF-"):
            said = (done.stderr.strip().splitlines() or ["no message"])[-1]
            raise LemonstandError(f"{program} printed nothing: {said[:300]}", str(page), "print the page by hand")
        made.chmod(0o600)
        target.parent.mkdir(parents=True, exist_ok=True)
        beside = target.with_name(f".{target.name}.new")
        shutil.copy(made, beside)
        beside.replace(target)
