"""A page's server as a process, browser windows whose console is listened to, and pictures of them."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[2]
RESULTS = ROOT / "test-results" / "web"
DOCS = ROOT / "docs" / "images"
CHROMIUM = os.environ.get("CHROMIUM", shutil.which("chromium") or shutil.which("chromium-browser") or "")
SIZES = {"1280": (1280, 860), "390": (390, 844)}
LOCALES = {"en": "en-US", "zh": "zh-CN"}
WAIT_MS = int(os.environ.get("SARTOR_WAIT_MS", "60000"))


class Server:
    """`sartor web` on a folder, as a process that can be killed and started again."""

    def __init__(self, folder: Path, models: Path, *words: str, **environment: str) -> None:
        self.folder, self.models, self.words = folder, models, words
        self.environment = environment
        self.start()

    def start(self, port: str = "0") -> None:
        words = ["web", str(self.folder), "--port", port, "--no-open", "--model-dir", str(self.models), *self.words]
        self.process = subprocess.Popen(
            [sys.executable, "-c", "from sartor.cli import main; main()", *words],
            stdout=subprocess.PIPE,
            text=True,
            env={**os.environ, "COLUMNS": "200", "NO_COLOR": "1", **self.environment},
        )
        assert self.process.stdout
        line = self.process.stdout.readline()
        found = re.search(r"http://[\d.]+:(\d+)", line)
        assert found, line
        self.address, self.port = found[0], found[1]

    def kill(self) -> None:
        self.process.kill()
        self.process.wait()
        if self.process.stdout:
            self.process.stdout.close()


def window(browser: Any, lang: str, complaints: list[str], size: str = "1280", scheme: str = "light") -> Any:
    """A browser window of its own; what its console complains of is put into `complaints`."""
    width, height = SIZES[size]
    context = browser.new_context(
        viewport={"width": width, "height": height}, locale=LOCALES[lang], color_scheme=scheme, accept_downloads=True
    )
    page = context.new_page()
    page.set_default_timeout(WAIT_MS)
    page.on("console", lambda m: complaints.append(m.text) if m.type == "error" else None)
    page.on("pageerror", lambda error: complaints.append(str(error)))
    return page


def snap(page: Any, name: str, whole: bool = False) -> None:
    """A picture for the test results, and for docs/ where web.md shows it and SARTOR_DOCS is set."""
    RESULTS.mkdir(parents=True, exist_ok=True)
    page.screenshot(path=RESULTS / f"{name}.png", full_page=whole)
    if os.environ.get("SARTOR_DOCS") and f"web-{name}.png" in (DOCS.parent / "web.md").read_text("utf-8"):
        DOCS.mkdir(exist_ok=True)
        shutil.copy(RESULTS / f"{name}.png", DOCS / f"web-{name}.png")


def fits(page: Any) -> bool:
    """Whether the page is no wider than its window."""
    return not page.evaluate("document.documentElement.scrollWidth > window.innerWidth + 1")


def until(true: Callable[[], bool], what: str, seconds: float = 600.0) -> None:
    end = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < end, what
        time.sleep(0.1)
