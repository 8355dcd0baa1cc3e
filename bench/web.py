"""How fast the page is: first page, a million rows, 100,000 loss points, the first token, ten windows on one run.

python bench/web.py [first rows points token windows]     needs Chromium and the packages of the tests
"""

from __future__ import annotations

import ast
import asyncio
import json
import os
import re
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

import httpx
import psutil

CHROMIUM = os.environ.get("CHROMIUM", shutil.which("chromium") or shutil.which("chromium-browser") or None)
ROWS = 1_000_000
POINTS = 100_000
WINDOWS = 10
PHASE_S = float(os.environ.get("PHASE_S", "12"))
PHASES = 4
"""Of each kind, in turn: without windows, with them."""


@contextmanager
def serving(folder: Path, *, log: Path | None = None) -> Iterator[str]:
    """`sartor web` on a folder. With `log`, the time of each answer's first token is written there."""
    words = ["web", str(folder), "--port", "0", "--no-open"]
    code = "from sartor.cli import main; main()"
    if log:
        code = (
            "import time; from sartor.web.reply import Reply; grow = Reply.grow\n"
            "def first(self, text):\n"
            "    if self.first is None: open(LOG, 'a').write(f'{time.time()}\\n')\n"
            "    grow(self, text)\n"
            "Reply.grow = first\n"
        ).replace("LOG", repr(str(log))) + code
    environment = {**os.environ, "COLUMNS": "200", "NO_COLOR": "1"}
    process = subprocess.Popen([sys.executable, "-c", code, *words], stdout=subprocess.PIPE, text=True, env=environment)
    assert process.stdout
    found = re.search(r"http://[\d.]+:\d+", process.stdout.readline())
    assert found
    try:
        yield found[0]
    finally:
        process.terminate()
        process.wait()


@contextmanager
def window() -> Iterator[Any]:
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        page = browser.new_page(viewport={"width": 1280, "height": 860})
        page.set_default_timeout(180_000)
        yield page
        browser.close()


def first(folder: Path) -> None:
    """A fresh browser, a server that has shown nothing yet; then the same again with both warm."""
    with serving(folder) as address, window() as page:
        for name in ("first page of a new server", "again", "again"):
            started = time.perf_counter()
            page.goto(f"{address}/data")
            page.locator("h1").wait_for()
            print(f"{name:<42} {time.perf_counter() - started:.2f} s")


def rows(folder: Path) -> None:
    """A dataset of a million rows: until the first rows are there, and from a jump to the end until its last row is."""
    data = folder / "data"
    data.mkdir(parents=True, exist_ok=True)
    with (data / "big.jsonl").open("w", encoding="utf-8") as file:
        for number in range(1, ROWS + 1):
            file.write(f'{{"instruction": "Question {number}", "output": "Answer {number}"}}\n')
    (data / "dataset_info.json").write_text('{"big": {"file_name": "big.jsonl"}}', encoding="utf-8")
    with serving(folder) as address, window() as page:
        started = time.perf_counter()
        page.goto(f"{address}/dataset/big")
        page.locator("h1").wait_for()
        print(f"{'a million rows: the page is there':<42} {time.perf_counter() - started:.2f} s")
        page.locator(".list-row").first.wait_for()
        print(f"{'a million rows: first rows (file read once)':<42} {time.perf_counter() - started:.2f} s")
        for name, place, wanted in (("far end", 1.0, ROWS), ("middle", 0.5, None), ("far end again", 1.0, ROWS)):
            started = time.perf_counter()
            page.locator(".list").evaluate("(list, place) => list.scrollTo(0, place * list.scrollHeight)", place)
            if wanted:
                page.get_by_text(f"Question {wanted}", exact=True).wait_for()
            else:
                page.wait_for_function(
                    "() => { const r = document.querySelectorAll('.list-row .num');"
                    f" return r.length && Math.abs(Number(r[0].textContent) - {ROWS // 2}) < 100 }}"
                )
            print(f"{'a million rows: jump to the ' + name:<42} {time.perf_counter() - started:.3f} s")
        held = psutil.Process(children_of_web()[0]).memory_info().rss / 2**20
        print(f"{'rows in the page; memory of the server':<42} {page.locator('.list-row').count()}; {held:,.0f} MiB")


def points(folder: Path) -> None:
    """A run of 100,000 steps with one spike: read, thinned with the spike kept, and drawn."""
    from sartor.base.rundir import RunDir
    from sartor.web.chart_options import thin
    from sartor.web.run_monitor import RunMonitor

    run = folder / "runs" / "long"
    run.mkdir(parents=True)
    (run / "config.yaml").write_text("model_name_or_path: smollm2-135m\n", encoding="utf-8")
    with (run / "events.jsonl").open("w", encoding="utf-8") as file:
        file.write(json.dumps({"time": 0.0, "kind": "started", "pid": 1, "total_steps": POINTS}) + "\n")
        for step in range(1, POINTS + 1):
            loss = 99.0 if step == 54_321 else 3.0 + (step * 7919 % 1000) / 1000
            event = {
                "time": step / 10,
                "kind": "step",
                "step": step,
                "loss": loss,
                "epoch": step / POINTS,
                "learning_rate": 1e-4,
                "grad_norm": 1.0,
                "tokens": 100,
                "seconds": 0.1,
                "memory_bytes": 2**30,
            }
            file.write(json.dumps(event) + "\n")
        file.write(json.dumps({"time": POINTS / 10, "kind": "finished"}) + "\n")
    monitor = RunMonitor(RunDir(run))
    started = time.perf_counter()
    monitor.refresh()
    print(f"{'100,000 points: read once':<42} {time.perf_counter() - started:.3f} s")
    started = time.perf_counter()
    kept = thin(monitor.axis("step"), monitor.curves["loss"])
    print(f"{'100,000 points: thinned':<42} {1000 * (time.perf_counter() - started):.1f} ms, {len(kept)} kept")
    assert [54_321.0, 99.0] in kept
    with serving(folder) as address, window() as page:
        for name in ("opened first", "opened again"):
            started = time.perf_counter()
            page.goto(f"{address}/runs/long")
            page.locator(".nicegui-echart canvas").first.wait_for()
            print(f"{'100,000 points: page ' + name:<42} {time.perf_counter() - started:.2f} s")


def token(folder: Path) -> None:
    """From the engine's first token to the moment when the browser has it on the screen; the same clock."""
    log = folder / "first-tokens"
    with serving(folder, log=log) as address, window() as page:
        page.goto(f"{address}/chat")
        page.get_by_placeholder("Ask something (Enter sends)").wait_for()
        page.evaluate("""() => {
          window.shown = [];
          const seen = new WeakSet();
          new MutationObserver(() => {
            for (const box of document.querySelectorAll(".say.assistant:not(.soft)"))
              if (box.textContent && !seen.has(box)) { seen.add(box); window.shown.push(Date.now() / 1000); }
          }).observe(document.body, {subtree: true, childList: true, characterData: true, attributes: true});
        }""")
        for turn in range(1, 7):
            page.get_by_placeholder("Ask something (Enter sends)").fill(f"Tell me about the number {turn}.")
            page.keyboard.press("Enter")
            page.wait_for_function(f"window.shown.length === {turn}")
            page.get_by_role("button", name="Stop all").click()
            page.locator("[data-answered]").first.wait_for()
        shown = page.evaluate("window.shown")
    spoken = [float(line) for line in log.read_text().split()]
    late = [1000 * (a - b) for a, b in zip(shown, spoken, strict=True)]
    print(
        f"{'first token on the screen after the engine':<42} median {statistics.median(late):.0f} ms, "
        f"worst {max(late):.0f} ms of {len(late)}"
    )


def windows(folder: Path) -> None:
    """Ten socket clients on a run's page, in turn with none; what a step takes in each phase."""
    config = {
        "model_name_or_path": "smollm2-135m",
        "dataset": "qa",
        "dataset_dir": str(folder / "data"),
        "output_dir": str(folder / "runs" / "watched"),
        "max_steps": 100_000,
        "val_size": 0,
        "lora_rank": 8,
        "finetuning_type": "lora",
        "per_device_train_batch_size": 1,
        "cutoff_len": 128,
        "logging_steps": 1,
        "save_strategy": "no",
    }
    data = folder / "data"
    data.mkdir(parents=True, exist_ok=True)
    rows = [{"instruction": f"Question {n}", "output": f"Answer {n} " * 8} for n in range(64)]
    (data / "qa.json").write_text(json.dumps(rows), encoding="utf-8")
    (data / "dataset_info.json").write_text('{"qa": {"file_name": "qa.json"}}', encoding="utf-8")
    (folder / "settings.json").write_text(json.dumps(config), encoding="utf-8")
    command = [sys.executable, "-c", "from sartor.cli import main; main()", "train", str(folder / "settings.json")]
    events = folder / "runs" / "watched" / "events.jsonl"
    training = subprocess.Popen(command, cwd=folder, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    phases: list[tuple[bool, float, float]] = []
    try:
        with serving(folder) as address:
            while not events.exists() or events.read_text().count('"step"') < 10:
                assert training.poll() is None, "the training ended"
                time.sleep(0.5)
            server = psutil.Process(children_of_web()[0])
            asyncio.run(_phases(address, phases, lambda: sum(server.cpu_times()[:2])))
    finally:
        training.terminate()
        training.wait()
    steps = [e for line in events.read_text().splitlines() if (e := json.loads(line))["kind"] == "step"]
    medians: dict[bool, list[float]] = {False: [], True: []}
    for watched, start, stop in phases:
        within = [e["seconds"] for e in steps if start <= e["time"] - e["seconds"] and e["time"] <= stop]
        medians[watched].append(statistics.median(within))
    ratios = [b / a - 1 for a, b in zip(medians[False], medians[True], strict=True)]
    alone, watched_s = (1000 * statistics.median(medians[kind]) for kind in (False, True))
    print(f"{'a step without windows, with ten':<42} {alone:.1f} ms, {watched_s:.1f} ms")
    each = ", ".join(f"{100 * ratio:+.1f}" for ratio in ratios)
    print(f"{'what ten windows add':<42} {100 * statistics.median(ratios):+.1f} % (phases {each})")


def children_of_web() -> list[int]:
    """The process of `sartor web` that this one started."""
    return [child.pid for child in psutil.Process().children() if "web" in child.cmdline()]


async def _phases(address: str, phases: list[tuple[bool, float, float]], spent: Callable[[], float]) -> None:
    for _ in range(PHASES):
        await _phase(phases, watched=False)
        clients = [await _client(address) for _ in range(WINDOWS)]
        before = spent()
        await _phase(phases, watched=True)
        heard = [len(client.heard) for client in clients]
        print(
            f"{'the server, with ten windows':<42} {100 * (spent() - before) / (PHASE_S + 2):.1f} % of a core, "
            f"{statistics.median(heard) / (PHASE_S + 2):.1f} messages a window and second"
        )
        assert min(heard) > 0, f"a window heard nothing: {heard}"
        for client in clients:
            await client.disconnect()


async def _phase(phases: list[tuple[bool, float, float]], *, watched: bool) -> None:
    await asyncio.sleep(2.0)
    start = time.time()
    await asyncio.sleep(PHASE_S)
    phases.append((watched, start, time.time()))


async def _client(address: str) -> Any:
    """A window without a browser: its page is fetched, its socket opened, what it is sent is counted."""
    import socketio  # type: ignore[import-untyped]

    async with httpx.AsyncClient() as http:
        page = (await http.get(f"{address}/runs/watched")).text
    found = re.search(r"query: (\{.*?\})", page)
    assert found
    query = {
        **ast.literal_eval(found[1]),
        "tab_id": os.urandom(8).hex(),
        "old_tab_id": "",
        "document_id": os.urandom(8).hex(),
        "implicit_handshake": "true",
    }
    client = socketio.AsyncClient(reconnection=False)
    client.heard = []
    client.on("*", lambda event, *_: client.heard.append(event))
    await client.connect(
        f"{address}?{urlencode(query)}", socketio_path="/_nicegui_ws/socket.io", transports=["websocket"]
    )
    return client


def main() -> None:
    for name in sys.argv[1:] or ("first", "rows", "points", "token", "windows"):
        with tempfile.TemporaryDirectory() as folder:
            {"first": first, "rows": rows, "points": points, "token": token, "windows": windows}[name](Path(folder))


if __name__ == "__main__":
    main()
