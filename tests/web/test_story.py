"""The whole story in a browser: from a GBK file with a bad row to an exported model, in English and Chinese, by attack.

Screenshots of every page go to test-results/web/; with SARTOR_DOCS=1 the ones in docs/images/ are made anew too.
"""

from __future__ import annotations

import contextlib
import itertools
import json
import re
import signal
import threading
import time
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import httpx
import pytest

from sartor.base.reasons import reason_of
from sartor.base.rundir import RunDir
from sartor.web.i18n import Translator
from sartor.web.value_names import OUTCOMES, STATES
from support.browsing import CHROMIUM, RESULTS, SIZES, Server, fits, snap, until, window
from support.spreadsheets import as_xlsx

PAGES = {
    "data": ("/data", ".grid-table"),
    "rows": ("/dataset/qa-v2", ".list-row"),
    "labels": ("/dataset/qa-v2?view=labels", ".tok"),
    "check": ("/dataset/qa-v2?view=check", ".btn"),
    "generate": ("/generate", "mark"),
    "entry": ("/dataset/qa-v2?view=entry", "textarea"),
    "train": ("/train", ".yaml"),
    "runs": ("/runs", ".grid-table"),
    "run": ("/runs/qa-v2", ".facts"),
    "evaluate": ("/evaluate?run=qa-v2&against=", "article.answer"),
    "several": ("/evaluate?run=qa-v2", "article.answer"),
    "chat": ("/chat?run=qa-v2", ".chat-col"),
    "export": ("/export?run=qa-v2", "pre.code"),
}
"""Name → (address, what is there when the page is)."""
HOSTILE = "<script>window.hacked=1</script><img src=x onerror='window.hacked=1'>\x1b[31m\u202e"

pytestmark = [
    pytest.mark.real,
    pytest.mark.skipif(not CHROMIUM, reason="no chromium (apt-get install chromium, or CHROMIUM=path)"),
    pytest.mark.filterwarnings("ignore::ResourceWarning"),
]


def gbk_file(folder: Path) -> Path:
    """Forty questions in GBK, one without an answer, one hostile."""
    rows = [f"问题 {i}：{i} 加一是多少？,{i + 1}。" for i in range(40)]
    rows[7] = "问题没有答案？,"
    hostile = HOSTILE.encode("gb18030", "ignore").decode("gb18030").replace('"', '""')
    rows[9] = f'"{hostile}","{hostile}"'
    file = folder / "qa.csv"
    file.write_bytes(("问题,答案\r\n" + "\r\n".join(rows) + "\r\n").encode("gb18030"))
    return file


class Story:
    """One person's way through all pages, in one language."""

    def __init__(self, lang: str, server: Server, browser: Any) -> None:
        self.t, self.server, self.browser = Translator(lang), server, browser
        self.complaints: list[str] = []
        self.page = self.window()

    def window(self, size: str = "1280", scheme: str = "light", browser: Any = None) -> Any:
        return window(browser or self.browser, self.t.lang, self.complaints, size, scheme)

    def press(self, key: str) -> None:
        self.page.get_by_role("button", name=self.t(key), exact=True).first.click()

    def sees(self, key: str, page: Any = None, **params: object) -> None:
        (page or self.page).get_by_text(self.t(key, **params)).first.wait_for()

    def choose_a_sheet(self, folder: Path) -> None:
        """Two sheets with different columns: the error, the choice, and what kind of rows it has."""
        page, t = self.page, self.t
        file = folder / "book.xlsx"
        file.write_bytes(as_xlsx([["about"], ["x"]], [["问题", "答案"], ["Q1", "A1"]]))
        page.goto(f"{self.server.address}/data")
        page.locator("input[data-upload]").set_input_files(file)
        self.sees("Sheets {sheet!r} and {first!r} have different columns.", sheet="S2", first="S1")
        page.get_by_label(t("Sheet")).click()
        page.get_by_role("option", name="S2").click()
        page.locator("th", has_text=f"答案 → {t('Answer')}").wait_for()
        page.get_by_text(t(reason_of("rows-sft", {}))).first.wait_for()

    def bring_data(self, file: Path) -> None:
        """Import, change the delimiter and see it, see the bad row, mend it, look at rows and labels."""
        page, t = self.page, self.t
        page.goto(f"{self.server.address}/data")
        page.locator("input[data-upload]").set_input_files(file)
        page.get_by_text("gb18030").first.wait_for()
        page.get_by_label(t("Delimiter")).click()
        page.get_by_role("option", name="|", exact=True).click()
        page.locator("th", has_text="问题,答案").wait_for()
        page.get_by_label(t("Delimiter")).click()
        page.get_by_role("option", name=t("Auto-detect")).click()
        page.locator("th", has_text=f"答案 → {t('Answer')}").wait_for()
        self.press("Import")
        self.sees("{name} is ready: {usable} of {read} rows are usable.", name="qa", usable=39, read=40)
        page.get_by_text(t(reason_of("answer-missing", {"field": "答案"}))).first.wait_for()
        self.press("Edit")
        page.get_by_label(t("Answer")).last.fill("现在有了。")
        self.press("Save as new version")
        page.wait_for_url("**/dataset/qa-v2")
        self.sees("{found} of {all} rows", found=40, all=40)
        page.get_by_label(t("Search questions and answers")).fill("SCRIPT")
        self.sees("{found} of {all} rows", found=1, all=40)
        assert page.get_by_text("<script>window.hacked=1</script>").count()
        assert page.evaluate("window.hacked") is None
        page.goto(f"{self.server.address}/dataset/qa-v2?view=labels")
        page.locator(".tok.l0, .tok.l1").first.wait_for()
        assert "问题" in page.locator("pre.code").first.inner_text()
        page.goto(f"{self.server.address}/dataset/qa-v2?view=check")
        self.press("Check")
        page.locator(".nicegui-echart").wait_for()
        snap(page, f"checked-1280-{t.lang}")

    def generate(self, folder: Path) -> None:
        """Pairs from a document by an endpoint: priced, agreed to, each beside its proof; one is dropped."""
        page, t = self.page, self.t
        book = folder / "茶.txt"
        book.write_text("茶树原产于中国西南。\n\n饮茶在唐代传遍全国。\n", encoding="utf-8")
        made = [
            {"question": "茶树原产于哪里？", "answer": "中国西南。", "quote": "茶树原产于中国西南"},
            {"question": "饮茶何时传遍全国？", "answer": "唐代。", "quote": "饮茶在唐代传遍全国"},
        ]
        with endpoint(json.dumps(made, ensure_ascii=False)) as (address, seen):
            page.goto(f"{self.server.address}/generate")
            page.locator("input[data-upload]").set_input_files(book)
            until(lambda: page.get_by_label(t("Dataset name")).input_value() == "茶", "the document is taken")
            page.get_by_label(t("Generated by")).click()
            page.get_by_role("option", name=t("Endpoint (OpenAI-compatible)")).click()
            page.get_by_label(t("Address")).fill(address)
            page.get_by_label(t("Model"), exact=True).fill("far")
            page.get_by_label(t("Price per 1M output tokens")).fill("10")
            self.press("Generate pairs")
            page.get_by_role("alert").wait_for()
            assert seen == [], "nothing is sent before a person agrees"
            page.get_by_text(t("Send the documents' text to this address")).click()
            self.press("Estimate cost")
            self.sees("cost (max)")
            assert seen == [], "the price is told before anything is asked"
            self.press("Generate pairs")
            page.locator("mark").nth(1).wait_for()
        assert page.locator("mark").all_inner_texts() == ["茶树原产于中国西南", "饮茶在唐代传遍全国"]
        page.get_by_label(t("Answer")).first.fill("中国的西南部。")
        page.get_by_text(t("Accept"), exact=True).nth(1).click()
        self.sees("{count} of {all} pairs accepted", count=1, all=2)
        self.press("Save as dataset")
        page.get_by_text(
            t.plural(
                "Saved the dataset {name} with {count} pair.",
                "Saved the dataset {name} with {count} pairs.",
                name="茶",
                count=1,
            )
        ).wait_for()
        kept = json.loads((self.server.folder / "data" / "茶.json").read_text(encoding="utf-8"))
        assert [turn["value"] for turn in kept[0]["conversations"]] == ["茶树原产于哪里？", "中国的西南部。"]

    def start_training(self, steps: int) -> RunDir:
        """Form and YAML say the same; start."""
        page = self.page
        page.goto(f"{self.server.address}/train?dataset=qa-v2")
        yaml = page.locator(".yaml textarea")
        yaml.wait_for()
        settings = yaml.input_value().replace("smollm2-135m", f"{self.server.models}/tiny")
        settings = settings.replace("lora_rank: 16", "lora_rank: 4").replace("save_steps: 50", "save_steps: 100")
        yaml.fill(settings + f"max_steps: {steps}\neval_strategy: steps\neval_steps: 100\n")
        until(lambda: page.get_by_label("lora_rank").input_value() == "4", "the form follows the YAML")
        page.get_by_label("val_size").fill("0.25")
        until(lambda: "val_size: 0.25" in yaml.input_value(), "the YAML follows the form")
        assert "val_size=0.25" in page.locator("pre.code").first.inner_text()
        self.press("Start training")
        page.wait_for_url("**/runs/qa-v2")
        return RunDir(self.server.folder / "runs" / "qa-v2")

    def state(self, name: str, page: Any = None, **options: Any) -> None:
        (page or self.page).get_by_text(self.t(STATES[name]), exact=True).first.wait_for(**options)

    def outlive_the_server(self, run: RunDir) -> None:
        """Reload, a second browser, the server killed: the run goes on, and the page finds it again."""
        page, server = self.page, self.server
        until(lambda: steps_of(run) > 20, "training begins")
        page.reload()
        self.state("running")
        other = self.browser.browser_type.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        second = self.window(browser=other)
        second.goto(f"{server.address}/runs/qa-v2")
        self.state("running", second)
        self.state("running")
        other.close()
        self.wait_in_line()
        page.goto("about:blank")
        server.kill()
        before = steps_of(run)
        until(lambda: steps_of(run) > before + 5, "the run goes on without the server")
        server.start(server.port)
        page.goto(f"{server.address}/runs/qa-v2")
        self.state("running")
        page.goto(f"{server.address}/runs/qa-v2-2")
        self.state("waiting")
        self.press("Stop")
        self.state("stopped")
        page.goto(f"{server.address}/runs/qa-v2")
        self.press("Stop")
        self.state("stopped")
        assert run.state() == "interrupted"
        assert run.checkpoints(), "a stop makes a checkpoint"

    def wait_in_line(self) -> None:
        """A second training waits until the first is through."""
        page = self.page
        page.goto(f"{self.server.address}/train?run=qa-v2")
        page.locator(".yaml textarea").wait_for()
        self.press("Start training")
        page.wait_for_url("**/runs/qa-v2-2")
        self.state("waiting")

    def throw_away(self, run: RunDir) -> None:
        """To the trash, which is a folder: nothing is gone."""
        page = self.page
        page.goto(f"{self.server.address}/runs/{run.path.name}")
        self.press("Move to trash")
        page.wait_for_url("**/runs")
        self.sees("No runs yet")
        assert not run.path.exists()
        assert list(run.path.parent.glob(f".trash/*{run.path.name}*/config.yaml"))

    def resume(self, run: RunDir, steps: int) -> None:
        at = steps_of(run)
        self.press("Resume")
        self.finish(run, steps)
        assert "resumed" in [event["kind"] for event in run.read_events()]
        assert at < steps

    def finish(self, run: RunDir, steps: int) -> None:
        self.state("finished", timeout=1_200_000)
        assert steps_of(run) == steps
        self.sees("step {done} of {total}", done=f"{steps:,}", total=f"{steps:,}")

    def judge(self) -> None:
        page, t = self.page, self.t
        page.goto(f"{self.server.address}/evaluate?run=qa-v2")
        page.get_by_label("max_new_tokens").fill("8")
        self.press("Compare")
        page.locator("article.answer").first.wait_for(timeout=1_200_000)
        assert page.locator("article.answer").count() == 10
        assert page.locator("section.card .pill").first.inner_text() in [t(outcome) for outcome in OUTCOMES.values()]
        with page.expect_download() as download:
            page.get_by_role("link", name=t("Download")).click()
        assert "<html" in Path(download.value.path()).read_text(encoding="utf-8")

    def compare_models(self) -> None:
        """The run beside its base and a checkpoint, by one score, sorted by it."""
        page, t = self.page, self.t
        page.get_by_label(t("Compare with")).click()
        page.get_by_role("option", name=t("base model"), exact=True).click()
        page.get_by_role("option", name=re.compile("qa-v2.checkpoint-")).first.click()
        page.keyboard.press("Escape")
        page.get_by_label(t("Primary metric")).click()
        page.get_by_role("option", name="rouge-l.char", exact=True).click()
        self.press("Compare")
        self.sees("{count} models on {rows} rows", count=3, rows=10)
        assert page.locator("article.answer .who").count() == 30
        assert len(set(page.locator(".grid-table .mono").all_inner_texts())) == 3, "three sets of weights answered"
        before = page.locator("article.answer > :first-child").all_inner_texts()
        page.get_by_label(t("Sort by")).click()
        page.get_by_role("option", name=re.compile("rouge-l.char ↓")).first.click()
        until(lambda: page.locator("article.answer > :first-child").all_inner_texts() != before, "sorted anew")
        page.get_by_label(t("Datasets")).click()
        page.get_by_role("option", name="qa", exact=True).click()
        page.keyboard.press("Escape")
        self.press("Compare")
        self.sees(
            "{count} models on {rows} rows", count=3, rows=9
        )  # what the run learned as qa-v2 is left out, told by its texts

    def ask(self, words: str, longest: int) -> None:
        self.page.get_by_label("max_new_tokens").fill(str(longest))
        self.page.get_by_placeholder(self.t("Ask something (Enter sends)")).fill(words)
        self.page.keyboard.press("Enter")

    def answered(self, columns: int, what: str, seconds: float = 90.0) -> None:
        until(lambda: self.page.locator(".chat-col [data-answered]").count() == columns, what, seconds)

    def converse(self) -> None:
        """Base and tuned answer the same turn; the fingerprints say that they are two; an endpoint joins them."""
        page, t = self.page, self.t
        page.goto(f"{self.server.address}/chat?run=qa-v2")
        page.get_by_text(t("System prompt, tools, sampling")).click()
        self.ask("3 加一是多少？", 24)
        self.answered(2, "both have answered")
        first, second = page.locator(".chat-col .mono").all_inner_texts()
        assert first.startswith(t("weights {fingerprint}", fingerprint=""))
        assert first != second
        snap(page, f"talk-1280-{t.lang}")
        self.press("Save as training row")
        self.sees("Saved to the dataset {name}.", name="chat")
        (kept,) = json.loads((self.server.folder / "data" / "chat.json").read_text(encoding="utf-8"))
        assert kept["conversations"][0] == {"from": "human", "value": "3 加一是多少？"}
        self.set_up()
        with endpoint() as (address, seen):
            self.add_endpoint(address)
            self.ask("再说一遍？", 900)
            page.locator(".chat-col").nth(2).get_by_text("token 3").wait_for()
            assert seen[0]["model"] == "far"
            assert seen[0]["messages"][0] == {"role": "system", "content": "S <b>"}
            assert [tool["function"]["name"] for tool in seen[0]["tools"]] == ["clock"]
            assert seen[0]["chat_template_kwargs"] == {"enable_thinking": False}
            assert (seen[0]["seed"], seen[0]["temperature"]) == (7, 0.95)
            assert page.locator(".chat-col .notice[role=alert]").count() == 2, (
                "the tiny model's template writes no tools"
            )
            stop = page.locator(".chat-col").nth(2).get_by_role("button", name=t("Stop"), exact=True)
            stop.click()
            self.answered(1, "the endpoint was stopped")
            page.get_by_role("textbox", name=t("Tools (JSON list)")).fill("")
            self.ask("再说一遍？", 900)
            page.locator(".chat-col").nth(2).get_by_text("token 3").nth(1).wait_for()
            assert "tools" not in seen[1]
            stop.click()
            self.sees(
                "endpoint {host}: weights cannot be verified", host=address.removeprefix("http://").partition("/")[0]
            )
            self.press("Stop all")
            self.answered(3, "all have stopped", 30)
        with page.expect_download() as download:
            self.press("Export")
        told = json.loads(Path(download.value.path()).read_text(encoding="utf-8"))
        assert [len(column["messages"]) for column in told["columns"]] == [5, 5, 5]
        assert len({column["fingerprint"] for column in told["columns"]}) == 3

    def set_up(self) -> None:
        """System text, tools, sampling, seed, thinking; tools that are no JSON are named and not sent."""
        page, t = self.page, self.t
        page.get_by_role("textbox", name=t("System prompt")).fill("S <b>")
        page.get_by_role("textbox", name=t("Tools (JSON list)")).fill("[{")
        self.ask("?", 5)
        page.locator(".ask .notice[role=alert]").wait_for()
        page.get_by_role("textbox", name=t("Tools (JSON list)")).fill(
            '[{"name": "clock", "parameters": {"type": "object"}}]'
        )
        page.get_by_label(t("Sampling"), exact=True).click()
        page.get_by_role("option", name=t("random")).click()
        page.get_by_label(t("Seed")).fill("7")
        page.get_by_label(t("Reasoning")).click()
        page.get_by_role("option", name=t("off"), exact=True).click()

    def add_endpoint(self, address: str) -> None:
        """A third column; nothing is sent before a person agrees."""
        page, t = self.page, self.t
        self.press("Add column")
        column = page.locator(".chat-col").nth(2)
        column.get_by_label(t("Model")).click()
        page.get_by_role("option", name=t("Endpoint (OpenAI-compatible)")).click()
        column.get_by_label(t("Address")).fill(address)
        column.get_by_label(t("Model"), exact=True).last.fill("far")
        column.get_by_text(t("Send what I type here to this address")).click()

    def take_home(self) -> None:
        page = self.page
        page.goto(f"{self.server.address}/export?run=qa-v2")
        self.press("Export")
        page.locator(".good-n, .bad-n").first.wait_for(timeout=1_200_000)
        assert page.locator(".bad-n").count() == 0
        with page.expect_download() as download:
            page.get_by_role("link", name="model.safetensors").click()
        assert Path(download.value.path()).stat().st_size > 10_000
        with page.expect_download() as download:
            page.get_by_role("link", name=self.t("Download all as ZIP")).click()
        with zipfile.ZipFile(download.value.path()) as made:
            assert made.testzip() is None
            assert "qa-v2-merged-float16/model.safetensors" in made.namelist()

    def photograph(self, scheme: str) -> None:
        """Every page, wide and narrow; in Chinese no English sentence of ours is left."""
        RESULTS.mkdir(parents=True, exist_ok=True)
        english: dict[str, list[str]] = {}
        for size in SIZES:
            page = self.window(size, scheme)
            for shown, (address, ready) in PAGES.items():
                page.goto(f"{self.server.address}{address}")
                page.locator(ready).first.wait_for()
                page.wait_for_timeout(500)  # for the picture only
                name = f"{shown}-{size}-{scheme}"
                snap(page, name, size == "390")
                assert fits(page), f"{name} is wider than its window"
                assert page.evaluate("window.hacked") is None, name
                if self.t.lang == "zh" and (left := page.evaluate(ENGLISH_LEFT)):
                    english[name] = left
            page.context.close()
        assert english == {}


ENGLISH_LEFT = """() => {
  const walk = document.createTreeWalker(document.querySelector("#content"), NodeFilter.SHOW_TEXT), found = [];
  while (walk.nextNode()) {
    const at = walk.currentNode.parentElement;
    if (at.closest("pre, code, .mono, .say, .raw, .answer, textarea, script, style, .list")) continue;
    if (/[A-Za-z']{2,}([ ,;:]+[A-Za-z']{2,}){2,}/.test(walk.currentNode.data)) found.push(walk.currentNode.data.trim());
  }
  return [...new Set(found)];
}"""
"""Texts with three English words in a row, but for what data, models and logs hold."""


@contextmanager
def endpoint(answer: str = "") -> Iterator[tuple[str, list[dict[str, Any]]]]:
    """A chat endpoint, and what was asked of it: gives this answer, or where it shall stream never ends by itself."""
    seen: list[dict[str, Any]] = []

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            seen.append(json.loads(self.rfile.read(int(self.headers["content-length"]))))
            self.send_response(200)
            self.send_header("content-type", "text/event-stream" if seen[-1].get("stream") else "application/json")
            self.end_headers()
            if not seen[-1].get("stream"):
                self.wfile.write(json.dumps({"choices": [{"message": {"content": answer}}]}).encode())
                return
            with contextlib.suppress(OSError):  # the other side goes when it is stopped
                for number in itertools.count():
                    choice = {"choices": [{"delta": {"content": f"token {number} "}}]}
                    self.wfile.write(f"data: {json.dumps(choice)}\n\n".encode())
                    time.sleep(0.05)

        def log_message(self, *args: Any) -> None: ...

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}/v1", seen
    server.shutdown()
    server.server_close()


def steps_of(run: RunDir) -> int:
    return max((event["step"] for event in run.read_events() if event["kind"] == "step"), default=0)


def attack(server: Server) -> None:
    """What another page in the same browser could try."""
    socket = "/_nicegui_ws/socket.io/?EIO=4&transport=websocket"
    upgrade = {
        "upgrade": "websocket",
        "connection": "Upgrade",
        "sec-websocket-version": "13",
        "sec-websocket-key": "dGhlIHNhbXBsZSBub25jZQ==",
    }
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


@contextmanager
def seen_when_it_fails(story: Story) -> Iterator[None]:
    """What the window showed when a step failed lies beside the other pictures."""
    try:
        yield
    except BaseException:
        RESULTS.mkdir(parents=True, exist_ok=True)
        story.page.screenshot(path=RESULTS / f"failed-{story.t.lang}.png", full_page=True)
        raise


def test_the_whole_story(server: Server, browser: Any, tmp_path: Path) -> None:
    story, steps = Story("en", server, browser), 1000
    with seen_when_it_fails(story):
        story.generate(tmp_path)
        story.choose_a_sheet(tmp_path)
        story.bring_data(gbk_file(tmp_path))
        run = story.start_training(steps)
        story.outlive_the_server(run)
        story.resume(run, steps)
        story.judge()
        story.compare_models()
        story.converse()
        story.take_home()
        attack(server)
        story.photograph("light")
        story.throw_away(run)
    assert story.complaints == []
    server.process.send_signal(signal.SIGTERM)
    assert server.process.wait(20) in (0, -signal.SIGTERM, 128 + signal.SIGTERM)


def test_the_story_in_chinese(server: Server, browser: Any, tmp_path: Path) -> None:
    story, steps = Story("zh", server, browser), 60
    with seen_when_it_fails(story):
        story.generate(tmp_path)
        story.bring_data(gbk_file(tmp_path))
        story.finish(story.start_training(steps), steps)
        story.judge()
        story.converse()
        story.take_home()
        story.photograph("dark")
    assert story.complaints == []
