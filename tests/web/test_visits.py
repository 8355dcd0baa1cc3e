"""Visits in a browser: an empty folder, by keyboard alone, what is refused, the entry's form, behind the password."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from sartor import api
from sartor.base.config import RunConfig
from sartor.base.rundir import RunDir
from sartor.data.dataset_info import read_registry
from sartor.web.form import parse_yaml
from sartor.web.i18n import Translator
from sartor.web.pages.run_details import FOLDED
from support.browsing import CHROMIUM, LOCALES, SIZES, Server, fits, snap, until, window

HOSTILE = "<img src=x onerror='window.hacked=1'><script>window.hacked=1</script>\x1b[31mred\u202eevil"
EMPTY = {
    "data": ("/data", "No datasets yet"),
    "runs": ("/runs", "No runs yet"),
    "evaluate": ("/evaluate", "No finished run yet"),
    "export": ("/export", "No finished run yet"),
    "train": ("/train", None),
    "chat": ("/chat", "No messages yet. Type below, and every column answers."),
    "generate": ("/generate", None),
    "gone": ("/runs/gone", "Run not found"),
    "nothing": ("/dataset/gone", "Dataset not found"),
}
NAMELESS = """() => [...document.querySelectorAll("a[href], button, input, textarea, [role=button], [role=combobox]")]
  .filter((e) => e.offsetParent !== null && !e.closest("[aria-hidden=true]"))
  .filter((e) => !(e.innerText || e.getAttribute("aria-label") || e.title || e.placeholder || e.labels?.length))
  .map((e) => e.outerHTML.slice(0, 160))"""
FOCUSED = """() => { const e = document.activeElement, s = getComputedStyle(e);
  const near = e.closest(".q-field, .drop, .btn.file") || e;
  return [e.tagName, e.innerText || e.getAttribute("aria-label") || "",
          s.outlineStyle !== "none" || near !== e || e.matches(".q-focusable, .q-checkbox")] }"""

pytestmark = [
    pytest.mark.real,
    pytest.mark.skipif(not CHROMIUM, reason="no chromium (apt-get install chromium, or CHROMIUM=path)"),
    pytest.mark.filterwarnings("ignore::ResourceWarning"),
]


@pytest.fixture(scope="module")
def workspace(tmp_path_factory: pytest.TempPathFactory, models: Path) -> Iterator[Server]:
    """A server with one dataset, one row of it hostile in every part."""
    folder = tmp_path_factory.mktemp("visited")
    data = folder / "data"
    data.mkdir()
    rows = [{"q": f"问题 {n}？", "a": f"{n}。"} for n in range(5)] + [{"q": HOSTILE, "a": HOSTILE}, {"q": "no answer"}]
    (data / "d.json").write_text(json.dumps(rows), encoding="utf-8")
    entry = {"file_name": "d.json", "columns": {"prompt": "q", "response": "a"}}
    (data / "dataset_info.json").write_text(json.dumps({"d": entry}), encoding="utf-8")
    started = Server(folder, models)
    yield started
    started.kill()


@pytest.mark.parametrize("lang", ["en", "zh"])
def test_an_empty_folder_says_what_to_do_next(server: Server, browser: Any, lang: str) -> None:
    t, complaints = Translator(lang), list[str]()
    for size in SIZES:
        page = window(browser, lang, complaints, size, "light" if lang == "en" else "dark")
        for name, (address, said) in EMPTY.items():
            page.goto(server.address + address)
            page.locator("#content").wait_for()
            if said:
                page.get_by_text(t(said), exact=True).first.wait_for()
            snap(page, f"empty-{name}-{size}-{lang}", size == "390")
            assert fits(page), name
            assert page.evaluate(NAMELESS) == [], name
            assert page.evaluate("[document.documentElement.lang, Quasar.lang.props.isoName]") == [LOCALES[lang]] * 2
        page.context.close()
    assert complaints == []


def tab_to(page: Any, name: str, most: int = 60) -> None:
    """Press Tab until the element of this name has the focus."""
    for _ in range(most):
        page.keyboard.press("Tab")
        _, told, visible = page.evaluate(FOCUSED)
        assert visible, f"the focus cannot be seen on {told!r}"
        if name.casefold() in told.casefold():
            return
    raise AssertionError(f"{name!r} is not reached by Tab")


def test_a_table_is_brought_by_keyboard_alone(server: Server, browser: Any) -> None:
    t, complaints = Translator("en"), list[str]()
    page = window(browser, "en", complaints)
    page.goto(f"{server.address}/data")
    page.locator(".drop").wait_for()
    page.keyboard.press("Tab")
    assert page.evaluate(FOCUSED)[1] == t("Skip to content"), "the first stop skips the menu"
    page.keyboard.press("Enter")
    tab_to(page, t("or paste a table or JSON"))
    page.keyboard.press("Enter")
    box = page.get_by_placeholder(t("question,answer — with column names in the first line"))
    box.wait_for()
    reached = "document.activeElement.tagName === 'TEXTAREA'"
    until(lambda: page.evaluate(reached) or page.keyboard.press("Tab"), "the box is reached")
    page.keyboard.type("question,answer\nWhat is tea?,A drink.\n")
    tab_to(page, t("Read"))
    page.keyboard.press("Enter")
    page.get_by_role("button", name=t("Import"), exact=True).wait_for()
    tab_to(page, t("Import"))
    page.keyboard.press("Enter")
    page.get_by_text(
        t("{name} is ready: {usable} of {read} rows are usable.", name="pasted-1", usable=1, read=1)
    ).wait_for()
    assert [row.origin.dataset for row in api.load("pasted-1", server.folder / "data").examples] == ["pasted-1"]
    assert complaints == []


def test_hostile_rows_are_text_everywhere_and_can_be_dropped(workspace: Server, browser: Any) -> None:
    t, complaints = Translator("en"), list[str]()
    page = window(browser, "en", complaints)
    page.goto(f"{workspace.address}/dataset/d")
    page.locator(".list-row").nth(5).click()
    page.get_by_role("dialog").get_by_role("textbox").first.wait_for()
    assert "<script>" in page.get_by_role("dialog").get_by_role("textbox").first.input_value()
    page.get_by_role("button", name=t("Delete row")).click()
    page.get_by_text(
        t.plural("{count} row edited or deleted. The dataset itself is unchanged.", "", count=1)
    ).wait_for()
    assert page.locator(".list-row .dropped").count() == 1
    shown = page.locator(".list-row").nth(5).inner_text()
    assert "␛[31m" in shown
    assert "⟨U+202E⟩" in shown
    for view in ("labels&row=6", "check", "entry"):
        page.goto(f"{workspace.address}/dataset/d?view={view}")
        page.locator(".card").first.wait_for()
        if view == "check":
            page.get_by_role("button", name=t("Check"), exact=True).click()
            page.locator(".nicegui-echart").wait_for()
        assert page.evaluate("window.hacked") is None, view
    page.goto(f"{workspace.address}/dataset/d")
    page.locator(".list-row").nth(0).click()
    page.get_by_role("button", name=t("Delete row")).click()
    page.get_by_role("button", name=t("Save as new version")).click()
    page.wait_for_url("**/dataset/d-v2")
    assert len(api.load("d-v2", workspace.folder / "data").examples) == 5
    assert len(api.load("d", workspace.folder / "data").examples) == 6, "the old one stays"
    assert page.evaluate("window.hacked") is None
    assert complaints == []


def test_code_and_secrets_are_refused_by_form_yaml_and_file(workspace: Server, browser: Any, tmp_path: Path) -> None:
    t, complaints = Translator("en"), list[str]()
    (workspace.folder / "mine.py").write_text(f"open({str(tmp_path / 'ran')!r}, 'w')\n", encoding="utf-8")
    page = window(browser, "en", complaints)
    refused = page.get_by_role("alert").get_by_text("This setting cannot be used on the page.")

    def fresh() -> Any:
        page.goto(f"{workspace.address}/train?dataset=d")
        found = page.locator(".yaml textarea")
        found.wait_for()
        return found

    settings = fresh().input_value()
    page.get_by_text(t("Evaluation"), exact=True).click()
    page.get_by_label("metrics", exact=True).fill("mine.py")
    refused.wait_for()
    for line in (
        "metrics: mine.py",
        "metrics: [chrf, ./mine.py]",
        "trust_remote_code: true",
        "judge_api_key: ${ANY_SECRET}",
    ):
        fresh().fill(f"{settings}{line}\n")
        refused.wait_for()
        page.get_by_role("button", name=t("Start training"), exact=True).click()
        page.get_by_role("button", name=t("Estimate"), exact=True).click()
    for key in ("allow_scripts", "allow_outside"):
        fresh().fill(f"{settings}{key}: true\n")
        page.get_by_role("alert").get_by_text(f"Unknown setting '{key}'.").wait_for()
    file = tmp_path / "theirs.yaml"
    file.write_text(settings + "metrics: mine.py\n", encoding="utf-8")
    box = fresh()
    page.locator("input[data-upload]").set_input_files(file)
    until(lambda: "mine.py" in box.input_value(), "the file is shown")
    refused.wait_for()
    page.get_by_role("button", name=t("Start training"), exact=True).click()
    refused.wait_for()
    assert page.url.endswith("/train?dataset=d"), "nothing was started"
    assert not list((workspace.folder / ".sartor" / "jobs").glob("*/job.json"))
    assert not (tmp_path / "ran").exists()
    assert complaints == []


THEIRS = """### model
model_name_or_path: {model}
### method
stage: sft
do_train: true
finetuning_type: lora
lora_target: all
lora_rank: 3
### dataset
dataset: d
template: chatml
cutoff_len: 256
overwrite_cache: true
max_skipped: 0.5
preprocessing_num_workers: 16
### output
output_dir: runs/theirs
logging_steps: 1
plot_loss: true
overwrite_output_dir: true
### train
per_device_train_batch_size: 2
learning_rate: 1.0e-4
num_train_epochs: 2.0
lr_scheduler_type: cosine
bf16: true
"""
"""Settings as LLaMA-Factory's users have them."""


def test_settings_of_another_program_fill_the_form_and_their_cost_is_said_first(
    workspace: Server, browser: Any, tmp_path: Path
) -> None:
    t, complaints = Translator("en"), list[str]()
    page = window(browser, "en", complaints)
    file = tmp_path / "theirs.yaml"
    file.write_text(THEIRS.format(model=f"{workspace.models}/tiny"), encoding="utf-8")
    page.goto(f"{workspace.address}/train")
    page.locator(".yaml textarea").wait_for()
    page.locator("input[data-upload]").set_input_files(file)
    until(lambda: page.get_by_label("lora_rank", exact=True).input_value() == "3", "the form shows what was loaded")
    assert page.get_by_label("learning_rate", exact=True).input_value() == "0.0001"
    assert page.get_by_role("alert").count() == 0
    page.get_by_role("button", name=t("Estimate"), exact=True).click()
    page.get_by_text(t("duration")).wait_for()
    snap(page, "estimated-1280-light")
    assert not (workspace.folder / "runs" / "theirs").exists(), "nothing is trained by asking what it costs"
    with page.expect_download() as download:
        page.get_by_role("button", name=t("Save as file"), exact=True).click()
    saved = parse_yaml(Path(download.value.path()).read_text(encoding="utf-8"))
    assert RunConfig.from_dict(saved).flat() == RunConfig.from_dict(parse_yaml(file.read_text(encoding="utf-8"))).flat()
    assert complaints == []


def made_run(folder: Path, name: str, loss: float) -> None:
    """A run that ended, as its folder tells it."""
    run = RunDir(folder / "runs" / name)
    run.path.mkdir(parents=True)
    run.config.write_text("model_name_or_path: tiny\ndataset: d\n", encoding="utf-8")
    run.event("started", pid=1, total_steps=30, step=0)
    for step in range(1, 31):
        run.event(
            "step",
            step=step,
            epoch=step / 10,
            loss=loss / step,
            learning_rate=1e-4,
            grad_norm=1.0,
            tokens=10,
            seconds=0.1,
            memory_bytes=2**30,
        )
    run.event("eval", step=30, epoch=3.0, eval_loss=loss)
    run.event("sample", step=30, prompt="Why?", text=HOSTILE)
    run.event("finished", step=30, total_steps=30)


def test_runs_are_filtered_and_seen_in_one_chart(server: Server, browser: Any) -> None:
    t, complaints = Translator("en"), list[str]()
    for name, loss in (("first", 2.0), ("second", 3.0), ("other", 4.0)):
        made_run(server.folder, name, loss)
    page = window(browser, "en", complaints)
    page.goto(f"{server.address}/runs")
    page.get_by_label(t("Compare {run}", run="other")).wait_for()
    page.get_by_label(t("Filter by name, model, data or state")).fill("seco")
    page.get_by_label(t("Compare {run}", run="other")).wait_for(state="detached")
    page.get_by_label(t("Filter by name, model, data or state")).fill("")
    for name in ("first", "second"):
        page.get_by_label(t("Compare {run}", run=name)).click()
    page.get_by_text(t("Comparison"), exact=True).wait_for()
    drawn = "() => document.querySelectorAll('.nicegui-echart canvas').length"
    until(lambda: page.evaluate(drawn) == 1, "one chart of both")
    snap(page, "compared-1280-light")
    page.goto(f"{server.address}/runs/first")
    for shown, chosen in (
        ("step", "epoch"),
        ("light smoothing", "strong smoothing"),
        ("linear", "log scale"),
    ):
        page.get_by_text(t(shown), exact=True).last.click()
        page.get_by_role("option", name=t(chosen), exact=True).click()
    page.get_by_text(t("Sample outputs during training")).click()
    page.get_by_text("<script>").wait_for()
    for part in ("log", "checkpoints", "settings", "files"):
        page.get_by_text(t(FOLDED[part]), exact=True).click()
    page.get_by_text("events.jsonl").wait_for()
    assert page.evaluate("window.hacked") is None
    assert complaints == []


def test_the_entry_is_the_same_as_form_and_as_json(workspace: Server, browser: Any) -> None:
    t, complaints = Translator("en"), list[str]()
    page = window(browser, "en", complaints)
    page.goto(f"{workspace.address}/dataset/d?view=entry")
    written = page.get_by_label(t("Entry"), exact=True)
    written.wait_for()
    page.get_by_label("num_samples").fill("3")
    until(lambda: '"num_samples": 3' in written.input_value(), "the JSON follows the form")
    written.fill(written.input_value().replace('"response": "a"', '"response": "answer"'))
    until(lambda: page.get_by_label("response", exact=True).input_value() == "answer", "the form follows the JSON")
    page.get_by_label("file_name").fill("../../etc/passwd")
    page.get_by_role("alert").wait_for()
    page.get_by_label("file_name").fill("d.json")
    page.get_by_label("response", exact=True).fill("a")
    page.get_by_text(t("The entry is valid.")).wait_for()
    until(lambda: '"response": "a"' in written.input_value(), "the JSON follows again")
    page.get_by_role("button", name=t("Save entry")).click()
    page.get_by_text(t("Saved.")).wait_for()
    assert read_registry(workspace.folder / "data").entries["d"]["num_samples"] == 3
    assert complaints == []


def test_another_address_asks_for_the_password_first(browser: Any, models: Path, tmp_path: Path) -> None:
    password = "correct horse battery"
    server = Server(tmp_path / "workspace", models, "--host", "0.0.0.0", SARTOR_WEB_PASSWORD=password)
    address = f"http://127.0.0.1:{server.port}"
    try:
        complaints: list[str] = []
        page = window(browser, "en", complaints)
        page.goto(f"{address}/runs")
        assert page.url.endswith("/login")
        page.get_by_role("textbox").fill(password)
        page.keyboard.press("Enter")
        page.get_by_text(Translator("en")("Drop a file here, or click to choose one")).wait_for()
        page.get_by_text(Translator("en")("or paste a table or JSON")).click()
        page.get_by_placeholder(
            Translator("en")("question,answer — with column names in the first line")
        ).wait_for()  # its socket is let in too
        assert complaints == []
        (cookie,) = [c for c in page.context.cookies() if c["name"] == "sartor-session"]
        assert (cookie["httpOnly"], cookie["sameSite"]) == (True, "Strict")
        upgrade = {
            "upgrade": "websocket",
            "connection": "Upgrade",
            "sec-websocket-version": "13",
            "sec-websocket-key": "dGhlIHNhbXBsZSBub25jZQ==",
            "origin": address,
        }
        socket = "/_nicegui_ws/socket.io/?EIO=4&transport=websocket"
        with httpx.Client(base_url=address) as client:
            assert client.get("/data").headers["location"] == "/login"
            assert client.get(socket, headers=upgrade).status_code == 403
            assert client.put("/upload?name=x.csv", content=b"a").status_code == 303
            assert client.get("/login", headers={"host": "rebind.example"}).status_code == 403
            assert client.post("/login", data={"password": "x"}).status_code == 401
        assert not (tmp_path / "workspace" / "uploads").exists()
    finally:
        server.kill()


def test_other_addresses_need_a_long_password(tmp_path: Path, models: Path) -> None:
    with pytest.raises(AssertionError):
        Server(tmp_path / "workspace", models, "--host", "0.0.0.0", SARTOR_WEB_PASSWORD="short")
