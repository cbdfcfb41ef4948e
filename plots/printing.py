"""A page printed to PDF by a Chromium without a window, where this machine has one."""

from __future__ import annotations

import os
import shutil
import subprocess
import tempfile
from pathlib import Path

from ..errors import UserError

BROWSERS = (
    "chromium",
    "chromium-browser",
    "google-chrome",
    "google-chrome-stable",
    "chrome",
    "chrome-headless-shell",
    "msedge",
)
CHOSEN = "BUSBW_CHROMIUM"
SECONDS = 120  # from which a browser counts as stuck


def browser() -> str:
    """The program. Raises UserError where there is none."""
    chosen = os.environ.get(CHOSEN)
    found = shutil.which(chosen) if chosen else next(filter(None, map(shutil.which, BROWSERS)), None)
    if found is None:
        what = f"${CHOSEN}={chosen} is no program" if chosen else "no Chromium or Chrome is on the path"
        raise UserError(
            f"PDF: {what}; install one (apt-get install chromium), name it in ${CHOSEN}, or write HTML and print that"
        )
    return found


def headless(arguments: list[str], home: str) -> subprocess.CompletedProcess:
    """Run the browser with these arguments and its profile in the folder `home`. Raises UserError where it fails or is stuck."""
    sandbox = (
        ["--no-sandbox"] if os.geteuid() == 0 else []
    )  # Chromium refuses its sandbox to root; the page has no scripts
    command = [
        browser(), "--headless", *sandbox, "--disable-gpu", "--disable-dev-shm-usage", "--no-first-run", "--disable-extensions",
        "--disable-background-networking", f"--user-data-dir={home}", *arguments,
    ]  # fmt: skip
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=SECONDS, check=False)
    except subprocess.TimeoutExpired:
        raise UserError(f"PDF: {command[0]} was not done after {SECONDS} s") from None
    if done.returncode:
        last = (done.stderr.strip().splitlines() or ["no more is known"])[-1]
        raise UserError(f"PDF: {command[0]} ended with {done.returncode}: {last[:200]}")
    return done


def pdf(html: str, path: str | os.PathLike) -> Path:
    """Print a page to a file. Raises UserError where that cannot be done."""
    path = Path(path)
    with tempfile.TemporaryDirectory(prefix="busbw-print-") as folder:
        page, printed = Path(folder, "page.html"), Path(folder, "page.pdf")
        page.write_text(html, encoding="utf-8")
        headless(["--no-pdf-header-footer", f"--print-to-pdf={printed}", page.as_uri()], folder)
        try:
            shutil.copyfile(printed, path)
        except OSError as e:
            raise UserError(f"{path}: cannot be written: {e.strerror}") from None
    return path
