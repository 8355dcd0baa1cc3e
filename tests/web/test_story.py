"""The whole story in a browser: from a GBK file with a bad row to an exported model, in English and Chinese, by attack.

Screenshots of every page go to test-results/web/; with SARTOR_DOCS=1 the ones in docs/images/ are made anew too.
"""

from __future__ import annotations

import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from sartor.base.rundir import RunDir

ROOT = Path(__file__).parents[2]
RESULTS = ROOT / "test-results" / "web"
DOCS = ROOT / "docs" / "images"
CHROMIUM = os.environ.get("CHROMIUM", shutil.which("chromium") or shutil.which("chromium-browser") or "")
SIZES = {"1280": (1280, 860), "390": (390, 844)}
PAGES = {
    "data": "/data", "rows": "/dataset/qa-v2", "labels": "/dataset/qa-v2?view=labels", "train": "/train",
    "runs": "/runs", "run": "/runs/qa-v2", "evaluate": "/evaluate?run=qa-v2", "chat": "/chat?run=qa-v2",
    "home": "/home?run=qa-v2",
}  # fmt: skip
HOSTILE = "<script>window.hacked=1</script><img src=x onerror='window.hacked=1'>\x1b[31m\u202e"
WAIT_MS = 60_000

pytestmark = [
    pytest.mark.real,
    pytest.mark.skipif(not CHROMIUM, reason="no chromium (apt-get install chromium, or CHROMIUM=path)"),
    pytest.mark.filterwarnings("ignore::ResourceWarning"),
]


class Server:
    """`sartor web` on a folder, as a process that can be killed and started again."""

    def __init__(self, folder: Path, models: Path) -> None:
        self.folder, self.models = folder, models
        self.start()

    def start(self, port: str = "0") -> None:
        words = ["web", str(self.folder), "--port", port, "--no-open", "--model-dir", str(self.models)]
        self.process = subprocess.Popen(
            [sys.executable, "-c", "from sartor.cli import main; main()", *words],
            stdout=subprocess.PIPE, text=True, env={**os.environ, "COLUMNS": "200", "NO_COLOR": "1"},
        )  # fmt: skip
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


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    from tiny import make_model, make_tokenizer

    folder = tmp_path_factory.mktemp("desk")
    models = tmp_path_factory.mktemp("models")
    make_model(max_position_embeddings=1024).save_pretrained(models / "tiny")
    make_tokenizer().save_pretrained(models / "tiny")
    started = Server(folder, models)
    yield started
    started.kill()


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        chromium = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        yield chromium
        chromium.close()


def window(
    browser: Any, complaints: list[str], locale: str = "en-US", size: str = "1280", scheme: str = "light"
) -> Any:
    """A browser window of its own; what its console complains of is collected."""
    width, height = SIZES[size]
    context = browser.new_context(
        viewport={"width": width, "height": height}, locale=locale, color_scheme=scheme, accept_downloads=True
    )
    page = context.new_page()
    page.set_default_timeout(WAIT_MS)
    page.on("console", lambda m: complaints.append(m.text) if m.type == "error" else None)
    page.on("pageerror", lambda error: complaints.append(str(error)))
    return page


def until(true: Callable[[], bool], what: str, seconds: float = 60.0) -> None:
    end = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < end, what
        time.sleep(0.1)


def gbk_file(folder: Path) -> Path:
    """Forty questions in GBK, one without an answer, one hostile."""
    rows = [f"问题 {i}：{i} 加一是多少？,{i + 1}。" for i in range(40)]
    rows[7] = "问题没有答案？,"
    hostile = HOSTILE.encode("gb18030", "ignore").decode("gb18030").replace('"', '""')
    rows[9] = f'"{hostile}","{hostile}"'
    file = folder / "qa.csv"
    file.write_bytes(("问题,答案\r\n" + "\r\n".join(rows) + "\r\n").encode("gb18030"))
    return file


def bring_data(page: Any, server: Server, file: Path) -> None:
    """Import, see the bad row, mend it, look at rows and labels."""
    page.goto(f"{server.address}/data")
    page.locator("input[data-upload]").set_input_files(file)
    page.get_by_text("Read as gb18030").wait_for()
    page.get_by_role("button", name="Import", exact=True).click()
    page.get_by_text("39 of 40 rows can be used").wait_for()
    page.get_by_text("The row has no answer").wait_for()
    page.get_by_role("button", name="Mend").click()
    page.get_by_label("Answer").last.fill("现在有了。")
    page.get_by_role("button", name="Save as new version").click()
    page.wait_for_url("**/dataset/qa-v2")
    page.get_by_text("40 of 40 rows").wait_for()
    page.get_by_label("Search in questions").fill("SCRIPT")
    page.get_by_text("1 of 40 rows").wait_for()
    assert page.get_by_text("<script>window.hacked=1</script>").count()
    assert page.evaluate("window.hacked") is None
    page.goto(f"{server.address}/dataset/qa-v2?view=labels")
    page.locator(".tok.l0, .tok.l1").first.wait_for()
    assert "问题" in page.locator("pre.code").first.inner_text()


def start_training(page: Any, server: Server, steps: int) -> RunDir:
    """Form and YAML say the same; start."""
    page.goto(f"{server.address}/train?dataset=qa-v2")
    yaml = page.locator(".yaml textarea")
    yaml.wait_for()
    settings = yaml.input_value().replace(
        "model_name_or_path: smollm2-135m", f"model_name_or_path: {server.models}/tiny"
    )
    settings = settings.replace("lora_rank: 16", "lora_rank: 4").replace("save_steps: 50", "save_steps: 100")
    yaml.fill(settings + f"max_steps: {steps}\neval_strategy: steps\neval_steps: 100\n")
    until(lambda: page.get_by_label("lora_rank").input_value() == "4", "the form follows the YAML")
    page.get_by_label("val_size").fill("0.25")
    until(lambda: "val_size: 0.25" in yaml.input_value(), "the YAML follows the form")
    assert "val_size=0.25" in page.locator("pre.code").first.inner_text()
    page.get_by_role("button", name="Start training").click()
    page.wait_for_url("**/runs/qa-v2")
    return RunDir(server.folder / "runs" / "qa-v2")


def steps_of(run: RunDir) -> int:
    return max((event["step"] for event in run.read_events() if event["kind"] == "step"), default=0)


def outlive_the_server(page: Any, browser: Any, server: Server, run: RunDir, complaints: list[str]) -> None:
    """Reload, a second window, the server killed: the run goes on, and the page finds it again."""
    until(lambda: steps_of(run) > 20, "training begins")
    page.reload()
    page.get_by_text("running", exact=True).wait_for()
    second = window(browser, complaints)
    second.goto(f"{server.address}/runs/qa-v2")
    second.get_by_text("running", exact=True).wait_for()
    second.context.close()
    page.goto("about:blank")
    server.kill()
    before = steps_of(run)
    until(lambda: steps_of(run) > before + 5, "the run goes on without the server")
    server.start(server.port)
    page.goto(f"{server.address}/runs/qa-v2")
    page.get_by_text("running", exact=True).wait_for()
    page.get_by_role("button", name="Stop").click()
    page.get_by_text("stopped", exact=True).wait_for()
    assert run.state() == "interrupted"
    assert run.checkpoints(), "a stop makes a checkpoint"


def resume(page: Any, run: RunDir, steps: int) -> None:
    at = steps_of(run)
    page.get_by_role("button", name="Resume").click()
    page.get_by_text("finished", exact=True).wait_for(timeout=120_000)
    kinds = [event["kind"] for event in run.read_events()]
    assert "resumed" in kinds
    assert at < steps == steps_of(run)
    page.get_by_text(f"step {steps:,} of {steps:,}").wait_for()


def judge(page: Any, server: Server) -> None:
    page.goto(f"{server.address}/evaluate?run=qa-v2")
    page.get_by_label("max_new_tokens").fill("8")
    page.wait_for_timeout(300)
    page.get_by_role("button", name="Compare base and tuned").click()
    page.locator("article.answer").first.wait_for(timeout=120_000)
    assert page.locator("article.answer").count() == 10
    assert (
        "The tuned model" in page.locator("#content").inner_text()
        or "not proven" in page.locator("#content").inner_text()
    )
    with page.expect_download() as download:
        page.get_by_role("link", name="Download").click()
    assert "<html" in Path(download.value.path()).read_text(encoding="utf-8")


def converse(page: Any, server: Server) -> None:
    """Base and tuned answer the same turn; the fingerprints say that they are two."""
    page.goto(f"{server.address}/chat?run=qa-v2")
    page.get_by_text("System text, tools, sampling").click()
    page.get_by_label("max_new_tokens").fill("24")
    page.get_by_placeholder("Ask something").fill("3 加一是多少？")
    page.keyboard.press("Enter")
    until(lambda: page.locator(".chat-col .mono").count() == 2, "both have answered", 90)
    first, second = page.locator(".chat-col .mono").all_inner_texts()
    assert first.startswith("weights ")
    assert first != second
    page.get_by_label("max_new_tokens").fill("900")
    page.get_by_placeholder("Ask something").fill("再说一遍？")
    page.keyboard.press("Enter")
    page.get_by_role("button", name="Stop", exact=True).first.wait_for()
    page.get_by_role("button", name="Stop all").click()
    until(lambda: page.locator(".chat-col .mono").count() == 2, "both have stopped", 30)


def take_home(page: Any, server: Server) -> None:
    page.goto(f"{server.address}/home?run=qa-v2")
    page.get_by_role("button", name="Export").click()
    page.locator(".good-n, .bad-n").first.wait_for(timeout=90_000)
    assert "agree" in page.locator(".good-n").first.inner_text()
    with page.expect_download() as download:
        page.get_by_role("link", name="model.safetensors").click()
    assert Path(download.value.path()).stat().st_size > 10_000


def photograph(browser: Any, server: Server, complaints: list[str]) -> None:
    """Every page, wide and narrow, light and dark; the dark ones in Chinese."""
    RESULTS.mkdir(parents=True, exist_ok=True)
    for size in SIZES:
        for scheme, locale in (("light", "en-US"), ("dark", "zh-CN")):
            page = window(browser, complaints, locale, size, scheme)
            for shown, address in PAGES.items():
                page.goto(f"{server.address}{address}")
                page.locator("h1").wait_for()
                page.wait_for_timeout(900)
                name = f"{shown}-{size}-{scheme}"
                page.screenshot(path=RESULTS / f"{name}.png", full_page=size == "390")
                wider = page.evaluate("document.documentElement.scrollWidth > window.innerWidth + 1")
                assert not wider, f"{name} is wider than its window"
                if locale == "zh-CN":
                    assert page.locator("nav a").first.inner_text() == "数据"
                if os.environ.get("SARTOR_DOCS") and f"web-{name}.png" in (DOCS.parent / "web.md").read_text("utf-8"):
                    DOCS.mkdir(exist_ok=True)
                    shutil.copy(RESULTS / f"{name}.png", DOCS / f"web-{name}.png")
            page.context.close()


def attack(server: Server) -> None:
    """What another page in the same browser could try."""
    socket = "/_nicegui_ws/socket.io/?EIO=4&transport=websocket"
    upgrade = {"upgrade": "websocket", "connection": "Upgrade", "sec-websocket-version": "13",
               "sec-websocket-key": "dGhlIHNhbXBsZSBub25jZQ=="}  # fmt: skip
    with httpx.Client(base_url=server.address) as client:
        assert client.get("/data").status_code == 200
        assert client.get("/data", headers={"host": "evil.example"}).status_code == 403
        assert client.get("/data", headers={"origin": "http://evil.example"}).status_code == 403
        assert client.get(socket, headers={**upgrade, "origin": "http://evil.example"}).status_code == 403
        assert client.put("/upload?name=x.csv", content=b"a", headers={"origin": "null"}).status_code == 403
        for name in ("../../x.csv", "..%2F..%2Fx.csv", "%2Fetc%2Fpasswd"):
            kept = client.put(f"/upload?name={name}", content=b"a,b\n1,2\n").json()
            assert kept["file"].startswith("uploads/")
        for path in ("/runs/qa-v2/file/..%2F..%2F..%2Fetc%2Fpasswd", "/exports/..%2Fdata%2Fdataset_info.json"):
            assert client.get(path).status_code == 404
        assert client.get("/prefer?back=//evil.example").headers["location"] == "/"


def test_the_whole_story(server: Server, browser: Any, tmp_path: Path) -> None:
    complaints: list[str] = []
    page = window(browser, complaints)
    steps = 1000
    bring_data(page, server, gbk_file(tmp_path))
    run = start_training(page, server, steps)
    outlive_the_server(page, browser, server, run, complaints)
    resume(page, run, steps)
    judge(page, server)
    converse(page, server)
    take_home(page, server)
    attack(server)
    photograph(browser, server, complaints)
    assert complaints == []
    server.process.send_signal(signal.SIGTERM)
    assert server.process.wait(20) in (0, -signal.SIGTERM, 128 + signal.SIGTERM)
