"""Makes docs/report.png: the top of the report of a lab's evidence.

.venv/bin/python tests/pages/picture.py EVIDENCE.json [PICTURE.png]
"""

from __future__ import annotations

import base64
import json
import sys
import tempfile
from pathlib import Path

import chromium

from lemonstand.evidence.report import render
from lemonstand.policy.controls import load_controls

ROOT = Path(__file__).resolve().parents[2]
WIDTH = 1280
UNTIL = "reachability"
"""The section it ends before."""
LARGEST = 400 * 1024
"""Bytes: it is read in a web page."""
END = "return Math.round(document.getElementById(arguments[0]).getBoundingClientRect().top + scrollY)"


def main(evidence: Path, target: Path) -> None:
    """Draws the report down to `UNTIL`.

    Args:
        evidence: of schema 2.
        target: the picture, PNG.
    """
    with tempfile.TemporaryDirectory() as folder:
        page = Path(folder) / "report.html"
        page.write_text(render(json.loads(evidence.read_text(encoding="utf-8")), load_controls()), encoding="utf-8")
        browser = chromium.start(Path(folder) / "profile")
        try:
            metrics = {"width": WIDTH, "height": 900, "deviceScaleFactor": 1, "mobile": False}
            browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", metrics)
            browser.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": [{"name": "prefers-color-scheme", "value": "light"}]})
            browser.get(page.as_uri())
            clip = {"x": 0, "y": 0, "width": WIDTH, "height": browser.execute_script(END, UNTIL), "scale": 1}
            shot = browser.execute_cdp_cmd("Page.captureScreenshot", {"format": "png", "captureBeyondViewport": True, "clip": clip})
        finally:
            browser.quit()
    picture = base64.b64decode(shot["data"])
    if len(picture) > LARGEST:
        raise SystemExit(f"{len(picture)} bytes are more than {LARGEST}: show less")
    target.write_bytes(picture)
    print(f"{target}: {len(picture)} bytes, {WIDTH} by {clip['height']}")


if __name__ == "__main__":
    if len(sys.argv) not in {2, 3}:
        raise SystemExit(__doc__)
    main(Path(sys.argv[1]), Path(sys.argv[2]) if len(sys.argv) == 3 else ROOT / "docs" / "report.png")
