"""The way through the commands on the tiny model, and bad news in three lines: what, where, what to do."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from support.commands import run

ROWS = "".join(f"{i},第{i}章的题目是什么?,第{i}章的题目是数字{i * 7}。\n" for i in range(1, 41))


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "qa.csv").write_bytes((",问题,答案\n" + ROWS).encode("gbk"))
    return tmp_path


def bad(capsys: pytest.CaptureFixture[str], *words: object) -> str:
    """The error that a command prints; it must be short and no traceback."""
    assert run(*words) == 1
    shown = capsys.readouterr().err
    assert "Traceback" not in shown
    assert shown.startswith("Error:")
    assert len(shown.strip().splitlines()) <= 3
    return shown


def test_the_whole_way(here: Path, tiny_model_dir: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run("import", "qa.csv", "--name", "chapters") == 0
    shown = capsys.readouterr().out
    assert "gb18030" in shown
    assert "问题" in shown
    assert "40 rows read = 40 training + 0 skipped" in shown
    model = f"model_name_or_path={tiny_model_dir}"
    assert run("show", "chapters", model) == 0
    assert "trained on" in capsys.readouterr().out
    settings = [
        model,
        "dataset=chapters",
        "val_size=8",
        "max_steps=3",
        "use_cpu=true",
        "output_dir=runs/one",
        "plot_loss=false",
        "max_new_tokens=4",
        "lora_rank=4",
    ]
    assert run("train", *settings) == 0
    out = capsys.readouterr()
    assert "sartor compare runs/one" in out.out
    assert "40 rows read = 32 training + 8 held out + 0 skipped" in out.err
    assert run("compare", "runs/one", "forgetting_probe=false", "--json") == 0
    verdict = json.loads(capsys.readouterr().out)
    assert verdict["outcome"] in ("better", "worse", "not_proven")
    assert run("report", "runs/one") == 0
    assert (here / "runs/one/report.html").exists()
    capsys.readouterr()
    assert run("predict", "runs/one", "--json") == 0
    assert json.loads(capsys.readouterr().out)["rows"] == 8
    assert run("runs", "--json") == 0
    (line,) = json.loads(capsys.readouterr().out)
    assert (line["state"], line["verdict"]) == ("finished", verdict["outcome"])
    assert run("score", "runs/one/predictions/tuned-held_out/generated_predictions.jsonl", "--json") == 0
    assert json.loads(capsys.readouterr().out)["bleu-4"]["range"] == [0, 100]


def test_an_import_shows_the_beginning_of_long_texts(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    long = "\n".join(["a tailor fits a coat " * 400] * 20)
    rows = [{"question": f"Who fits coat {i}? {long}", "answer": long} for i in range(4)]
    (here / "long.json").write_text(json.dumps(rows), encoding="utf-8")
    assert run("import", "long.json", "--name", "long") == 0
    shown = capsys.readouterr().out
    assert "Who fits coat 0? a tailor fits" in shown
    assert shown.count("…") == 6
    assert len(shown) < 3_000


def test_a_wrong_encoding_names_the_byte(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    shown = bad(capsys, "import", "qa.csv", "--name", "x", "--encoding", "utf-8")
    assert "Byte 1 (0xce)" in shown
    assert "qa.csv" in shown
    assert not (here / "data").exists()


def test_a_missing_file_and_a_missing_column(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert "qa.csv" in bad(capsys, "import", "qa.cvs", "--name", "x")
    shown = bad(capsys, "import", "qa.csv", "--name", "x", "--question", "问", "--answer", "答案")
    assert "问题" in shown


def test_registry_faults(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert "sartor import" in bad(capsys, "train", "dataset=mine")
    run("import", "qa.csv", "--name", "chapters")
    capsys.readouterr()
    assert "chapters" in bad(capsys, "show", "chapter")
    info = here / "data" / "dataset_info.json"
    info.write_text('{"a": {"file_name": "a.json"}, // mine\n}', encoding="utf-8")
    assert "line 1, column" in bad(capsys, "show", "a")


@pytest.mark.parametrize(
    ("word", "expected"),
    [
        ("learnin_rate=1", "learning_rate"),
        ("learning_rate=fast", "learning_rate"),
        ("stage=sfd", "sft"),
        ("dataset=", "dataset"),
        ("no.yaml", "no.yaml"),
        ("val_size=40", "val_size"),
        ("fp16=true", "bf16"),
    ],
)
def test_settings_faults(
    here: Path, tiny_model_dir: Path, capsys: pytest.CaptureFixture[str], word: str, expected: str
) -> None:
    run("import", "qa.csv", "--name", "chapters")
    capsys.readouterr()
    words: list[Any] = (
        [word]
        if word.endswith(".yaml")
        else [f"model_name_or_path={tiny_model_dir}", "dataset=chapters", "use_cpu=true", word]
    )
    assert expected in bad(capsys, "train", *words)


def test_a_model_that_is_not_there(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert "smollm2-135m" in bad(capsys, "chat", "nobody/no-such-model")
    assert "damaged" in bad_file(capsys, here)


def bad_file(capsys: pytest.CaptureFixture[str], here: Path) -> str:
    run_folder = here / "runs" / "one"
    run_folder.mkdir(parents=True)
    (run_folder / "config.yaml").write_text("dataset: x\n", encoding="utf-8")
    (run_folder / "plan.json").write_text("{", encoding="utf-8")
    return bad(capsys, "report", "runs/one")


def test_check_names_faults_and_writes_rejects_and_a_mended_copy(
    here: Path, tiny_model_dir: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    rows = [
        {"instruction": "Who owns Pemberley?", "output": "Darcy owns it.", "system": " "},
        {"instruction": "Who owns Pemberley?", "output": "Bingley owns it."},
        {"instruction": "No answer", "output": ""},
    ]
    (here / "mine.json").write_text(json.dumps(rows), encoding="utf-8")
    entry = {
        "mine": {
            "file_name": "mine.json",
            "columns": {"prompt": "instruction", "response": "output", "system": "system"},
        }
    }
    (here / "dataset_info.json").write_text(json.dumps(entry), encoding="utf-8")
    words = ["check", "mine", f"model_name_or_path={tiny_model_dir}", "--dataset-dir", "."]
    assert run(*words, "--json", "--rejects", "bad.jsonl", "--fix", "good.json") == 1
    found = json.loads(capsys.readouterr().out)
    assert {"answer-missing", "answers-differ"} <= set(found["summary"])
    (reject,) = (json.loads(line) for line in (here / "bad.jsonl").read_text(encoding="utf-8").splitlines())
    assert (reject["row"], reject["code"], reject["data"]["instruction"]) == (3, "answer-missing", "No answer")
    assert "system" not in json.loads((here / "good.json").read_text(encoding="utf-8"))[0]
    assert "own file" in bad(capsys, *words, "--fix", "mine.json")
    assert run(*words) == 1
    assert "mine.json, row 3" in capsys.readouterr().out


def test_settings_without_effect_are_named_once(
    here: Path, tiny_model_dir: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run("import", "qa.csv", "--name", "chapters") == 0
    capsys.readouterr()
    settings = [
        f"model_name_or_path={tiny_model_dir}",
        "dataset=chapters",
        "max_steps=1",
        "use_cpu=true",
        "plot_loss=false",
        "output_dir=runs/one",
    ]
    ignored = ["push_to_hub=true", "use_unsloth=true", "flash_attn=fa2"]
    assert run("train", *settings, *ignored) == 0
    said = [line for line in capsys.readouterr().err.splitlines() if "No effect here" in line]
    assert len(said) == 1
    assert "No effect here: flash_attn, push_to_hub, use_unsloth" in said[0]
    assert set(json.loads(Path("runs/one/plan.json").read_text(encoding="utf-8"))["ignored_keys"]) == {
        setting.split("=")[0] for setting in ignored
    }


def test_an_import_says_what_kind_of_rows_it_found(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (here / "README.md").write_text("# Title\n\nOne.\n\nTwo.\n", encoding="utf-8")
    (here / "pairs.json").write_text('[{"question": "q", "chosen": "a", "rejected": "b"}]', encoding="utf-8")
    (here / "rated.json").write_text('[{"question": "q", "answer": "a", "label": true}]', encoding="utf-8")
    for file, kind in (
        ("qa.csv", "Questions with their answers, or conversations (stage sft)."),
        ("pairs.json", "Questions with a chosen and a rejected answer each (stage dpo)."),
        ("README.md", "Documents without questions and answers: the model learns to continue them (stage pt)."),
    ):
        assert run("import", file, "--name", file.partition(".")[0]) == 0
        shown = capsys.readouterr().out
        assert f"kind: {kind}" in shown
        assert ("sartor generate FILE" in shown) == (file == "README.md")
    assert run("import", "README.md", "--name", "again", "--json") == 0
    assert json.loads(capsys.readouterr().out)["stage"] == "pt"
