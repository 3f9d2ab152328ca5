"""Pages as a browser shows them, for tests of what people look at."""

from __future__ import annotations

import re
import shutil
import subprocess
import tempfile
from typing import TYPE_CHECKING, NamedTuple

import pytest

if TYPE_CHECKING:
    from pathlib import Path

CHROMIUM = shutil.which("chromium") or shutil.which("google-chrome")
needs_chromium = pytest.mark.skipif(CHROMIUM is None, reason="Chromium is not here: nobody to look at the pages")
OPTIONS = (
    *("--headless", "--no-sandbox", "--disable-gpu", "--no-first-run", "--disable-background-networking"),
    *("--disable-component-update", "--disable-sync", "--virtual-time-budget=20000", "--enable-logging=stderr"),
)


class Seen(NamedTuple):
    """A page after its scripts have run, and what the browser's console says, a line each."""

    dom: str
    console: list[str]


def look_at_file(file: Path) -> Seen:
    """Open a copy of a page that ends with how many pictures it shows and how many fail to: `<p id="pictures">3, 0`."""
    count = """<script>addEventListener("load", () => {
        const shown = [...document.images].filter(one => one.naturalWidth > 0).length;
        document.body.insertAdjacentHTML("beforeend",
            `<p id="pictures">${shown}, ${document.images.length - shown}</p>`);
    })</script>"""
    with tempfile.NamedTemporaryFile("w", suffix=".html", encoding="utf-8") as copy:
        copy.write(file.read_text(encoding="utf-8").replace("</body>", f"{count}</body>"))
        copy.flush()
        return look(f"file://{copy.name}")


def look(url: str) -> Seen:
    """Open a page."""
    with tempfile.TemporaryDirectory() as profile:
        done = subprocess.run(
            [str(CHROMIUM), *OPTIONS, f"--user-data-dir={profile}", "--dump-dom", url],
            capture_output=True,
            text=True,
            timeout=120,
            check=False,
        )
    return Seen(done.stdout, re.findall(r"CONSOLE.*", done.stderr))
