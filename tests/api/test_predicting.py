"""predict, compare, report and chat over a trained run; LLaMA-Factory's YAML files with only the paths changed."""

from __future__ import annotations

import io
import json
import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import yaml

from sartor import api
from sartor.api.predicting import as_config, load_engine
from sartor.base.errors import ConfigError, DataError, RunError
from sartor.evaluation.verdict import Verdict
from sartor.evaluation.verdict_text import verdict_sentence
from sartor.inference.chat import Chat
from sartor.inference.engine import Engine
from support.llamafactory_files import LORA_SFT
from support.tiny import make_model
from support.tiny_adapter import save_adapter

PREDICT = """
model_name_or_path: Qwen/Qwen3-4B-Instruct-2507
adapter_name_or_path: saves/qwen3-4b/lora/sft
stage: sft
do_predict: true
finetuning_type: lora
eval_dataset: chapters
template: qwen3_nothink
cutoff_len: 2048
max_samples: 50
preprocessing_num_workers: 16
output_dir: saves/qwen3-4b/lora/predict
overwrite_output_dir: true
per_device_eval_batch_size: 1
predict_with_generate: true
ddp_timeout: 180000000
"""
INFERENCE = """
model_name_or_path: Qwen/Qwen3-4B-Instruct-2507
adapter_name_or_path: saves/qwen3-4b/lora/sft
template: qwen3_nothink
infer_backend: huggingface
trust_remote_code: true
"""


@pytest.fixture
def run(settings: dict[str, Any]) -> api.Run:
    return api.train(**settings)


def lines(folder: Path) -> list[dict[str, Any]]:
    text = (folder / "generated_predictions.jsonl").read_text(encoding="utf-8")
    return [json.loads(line) for line in text.splitlines()]


def test_what_nobody_gave_is_no_other_setting_than_the_runs(
    run: api.Run, settings: dict[str, Any], tiny_model_dir: Path, tmp_path: Path
) -> None:
    """A model with several adapters, a run's among them, answers that run's held-out rows."""
    other = save_adapter(make_model(), tmp_path / "other", base=tiny_model_dir)
    given = {"dataset_dir": settings["dataset_dir"], "max_new_tokens": 4, "use_cpu": True}
    several = [str(other), str(run.path)]
    predictions = api.predict(str(tiny_model_dir), adapter_name_or_path=several, **given)
    held_out = run.dir.read_json("data.json")["split"]["held_out"]
    assert [row["id"] for row in lines(predictions.folder)] == held_out
    with pytest.raises(ConfigError, match="val_size was decided when the run was trained"):
        api.predict(str(tiny_model_dir), adapter_name_or_path=several, val_size=1, **given)


def test_predict_answers_the_rows_held_out(run: api.Run) -> None:
    predictions = api.predict(run.path)
    rows = lines(predictions.folder)
    assert [row["id"] for row in rows] == run.dir.read_json("data.json")["split"]["held_out"]
    assert not any(row["seen_in_training"] for row in rows)
    assert {"prompt", "predict", "label", "id", "question", "scores", "stop_reason", "tokens"} <= rows[0].keys()
    assert rows[0]["prompt"].endswith("<|im_start|>assistant\n")
    assert rows[0]["question"] in rows[0]["prompt"]
    assert all(row["tokens"] <= 8 for row in rows)
    results = json.loads((predictions.folder / "predict_results.json").read_text(encoding="utf-8"))
    for name in (
        "predict_runtime",
        "predict_samples_per_second",
        "predict_steps_per_second",
        "predict_model_preparation_time",
    ):
        assert results[name] >= 0
        assert len(results["explained"][name]) > 10
    assert "warning" not in results


def test_predicting_on_learned_rows_is_said_at_the_top(run: api.Run, project: Path) -> None:
    predictions = api.predict(
        run.path, eval_dataset="chapters", output_dir=str(project / "out"), metrics=["bleu-4", "rouge-1"]
    )
    assert next(iter(predictions.results)) == "warning"
    assert "32 of 40 rows were trained on" in predictions.results["warning"]
    assert sum(row["seen_in_training"] for row in lines(project / "out")) == 32
    assert "predict_bleu-4" in predictions.results


def test_compare_measures_both_on_the_same_rows_and_writes_the_verdict(run: api.Run) -> None:
    verdict = api.compare(run.path)
    kept = Verdict.from_json(run.dir.read_json("verdict.json"))
    assert repr(kept) == repr(verdict)
    assert (verdict.primary.metric, verdict.primary.n) == ("loss", 8)
    assert verdict.primary.tuned == pytest.approx(run.results["eval_loss"], rel=0.1)  # mean of rows, not of tokens
    assert verdict.memorization is not None
    assert verdict.forgetting is not None
    assert verdict.forgetting.difference.n == 60
    without = api.compare(run.path, ["forgetting_probe=false"])
    assert without.forgetting is None
    assert without.primary == verdict.primary
    for part in ("base-held_out", "tuned-held_out", "base-train", "tuned-train"):
        assert lines(run.dir.predictions / part)
    base, tuned = (lines(run.dir.predictions / f"{which}-held_out") for which in ("base", "tuned"))
    assert [row["id"] for row in base] == [row["id"] for row in tuned]
    assert base[0]["loss"] != tuned[0]["loss"]
    marks = [
        json.loads((run.dir.predictions / f"{which}-held_out" / "predict_results.json").read_text("utf-8"))[
            "fingerprint"
        ]
        for which in ("base", "tuned")
    ]
    assert marks[0] != marks[1]
    page = api.report(run.path).read_text(encoding="utf-8")
    assert "第" in page
    assert "http://" not in page.replace("http://www.w3.org", "")


def test_a_loss_that_is_no_number_is_a_finding_with_its_row(run: api.Run, monkeypatch: pytest.MonkeyPatch) -> None:
    measured = Engine.losses

    def broken(engine: Engine, rows: Any, *, weights: Any = "tuned") -> Any:
        first, *rest = measured(engine, rows, weights=weights)
        return [replace(first, nll_sum=math.inf), *rest]

    monkeypatch.setattr(Engine, "losses", broken)
    verdict = api.compare(run.path, ["forgetting_probe=false", "metrics=exact-match"])
    kept = Verdict.from_json(run.dir.read_json("verdict.json"))
    first = run.dir.read_json("data.json")["split"]["held_out"][0]
    assert (kept.primary.failed, kept.outcome, kept.primary.n) == ((first,), "not_proven", 7)
    assert first in str(verdict_sentence(verdict))
    assert lines(run.dir.predictions / "base-held_out")[0]["loss"] is None
    assert verdict.answers is not None
    assert verdict.answers.cut[1] == sum(
        row["stop_reason"] == "length" for row in lines(run.dir.predictions / "tuned-held_out")
    )
    assert first in api.report(run.path).read_text(encoding="utf-8")


def test_compare_refuses_other_data_and_runs_without_held_out_rows(
    run: api.Run, settings: dict[str, Any], project: Path
) -> None:
    none = api.train(**{**settings, "val_size": 0, "output_dir": str(project / "runs" / "none")})
    with pytest.raises(RunError, match="no held-out rows"):
        api.compare(none.path)
    file = project / "data" / "chapters.json"
    rows = json.loads(file.read_text(encoding="utf-8"))
    file.write_text(json.dumps(rows[:-3], ensure_ascii=False), encoding="utf-8")
    with pytest.raises(DataError, match="differs from what the run was trained on"):
        api.compare(run.path)


def test_a_full_run_is_a_model_of_its_own(settings: dict[str, Any], project: Path) -> None:
    run = api.train(**{**settings, "finetuning_type": "full", "learning_rate": 1e-3})
    assert (run.path / "model.safetensors").exists()
    assert len(api.predict(run.path).rows) == 8
    verdict = api.compare(run.path, ["forgetting_probe=false"])
    assert verdict.primary.base != verdict.primary.tuned
    assert verdict.primary.tuned == pytest.approx(run.results["eval_loss"], rel=0.1)


def test_chat_answers_as_base_too_and_keeps_turns(run: api.Run, project: Path) -> None:
    out, engine = io.StringIO(), load_engine(as_config(run.path, {}))
    talk = Chat(engine, as_config(run.path, {}).generation, project / "kept.json", out)
    assert talk.send("第1章的题目是什么?")
    marks = [out.getvalue().rpartition("weights ")[2].strip(" )\n")]
    talk.send("/base")
    marks.append(out.getvalue().rpartition("weights ")[2].strip(" )\n"))
    assert marks == [engine.fingerprint("tuned"), engine.fingerprint("base")]
    talk.send("/save")
    (kept,) = json.loads((project / "kept.json").read_text(encoding="utf-8"))
    assert kept["conversations"][0] == {"from": "human", "value": "第1章的题目是什么?"}
    assert not talk.send("/exit")


def written(folder: Path, name: str, text: str, **changes: Any) -> Path:
    """One of LLaMA-Factory's files with some paths changed, and small steps for the tiny model."""
    settings = {**yaml.safe_load(text), **changes}
    path = folder / name
    path.write_text(yaml.safe_dump(settings, allow_unicode=True), encoding="utf-8")
    return path


def test_llama_factorys_files_train_predict_and_chat(project: Path, tiny_model_dir: Path) -> None:
    identity = [{"instruction": "Who are you?", "input": "", "output": "I am Sartor."}] * 3
    (project / "data" / "identity.json").write_text(json.dumps(identity), encoding="utf-8")
    info = project / "data" / "dataset_info.json"
    entries = {**json.loads(info.read_text(encoding="utf-8")), "identity": {"file_name": "identity.json"}}
    info.write_text(json.dumps(entries, ensure_ascii=False), encoding="utf-8")
    base = {"model_name_or_path": str(tiny_model_dir), "dataset_dir": str(project / "data"), "use_cpu": True}
    adapter = str(project / "saves")
    file = written(project, "sft.yaml", LORA_SFT, **base, dataset="identity,chapters", output_dir=adapter)
    run = api.train(file, ["num_train_epochs=0.2"])
    assert run.state == "finished"
    assert run.dir.read_json("data.json")["ledger"]["training"] == 43
    assert "ignored_keys" not in run.dir.config.read_text(encoding="utf-8")
    assert run.dir.source.read_text(encoding="utf-8") == file.read_text(encoding="utf-8")
    out = str(project / "predicted")
    file = written(project, "predict.yaml", PREDICT, **base, adapter_name_or_path=adapter, output_dir=out)
    predictions = api.predict(file, max_new_tokens=4)
    assert len(predictions.rows) == 40
    assert (project / "predicted" / "predict_results.json").exists()
    file = written(project, "inference.yaml", INFERENCE, **base, adapter_name_or_path=adapter)
    engine = load_engine(as_config(file, {}))
    assert engine.template.name == "qwen3_nothink"
    assert engine.chat([{"role": "user", "content": "Who?"}]).tokens > 0


def test_predict_without_rows_says_what_to_name(tiny_model_dir: Path) -> None:
    with pytest.raises(ConfigError, match="dataset"):
        api.predict(str(tiny_model_dir))
