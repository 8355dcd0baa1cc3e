"""Each stage from a dataset file to a finished run, by `api.train` on the tiny model; wrong data is refused by name."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from safetensors.torch import load_file

from sartor import api
from sartor.base.errors import DataError
from support.stage_datasets import pairs, texts, write_datasets

CHOSEN = pairs(16)
JUDGED = [{"instruction": f"How much is {i} and 1?", "output": f"It is {i}.", "tag": i % 2 == 0} for i in range(16)]
TEXTS = texts(12)


@pytest.fixture
def settings(tmp_path: Path, tiny_model_dir: Path) -> dict[str, Any]:
    data = tmp_path / "data"
    write_datasets(data, {"pairs": CHOSEN, "judged": JUDGED, "novel": TEXTS})
    return {
        "model_name_or_path": str(tiny_model_dir),
        "dataset_dir": str(data),
        "val_size": 4,
        "use_cpu": True,
        "output_dir": str(tmp_path / "runs" / "one"),
        "num_train_epochs": 3,
        "lora_rank": 4,
        "dtype": "float32",
        "per_device_train_batch_size": 4,
        "learning_rate": 1e-2,
        "plot_loss": False,
    }


STAGES = [
    {"stage": "pt", "dataset": "novel", "cutoff_len": 64, "overlong": "split"},
    {"stage": "rm", "dataset": "pairs"},
    {"stage": "dpo", "dataset": "pairs"},
    {"stage": "dpo", "dataset": "pairs", "finetuning_type": "full", "pref_ftx": 0.1},
    pytest.param({"stage": "dpo", "dataset": "pairs", "pref_loss": "orpo"}, marks=pytest.mark.real),
    {"stage": "kto", "dataset": "judged"},
]


@pytest.mark.parametrize("stage", STAGES, ids=lambda s: "-".join(str(v) for v in s.values()))
def test_a_stage_trains_from_its_file_to_a_finished_run(settings: dict[str, Any], stage: dict[str, Any]) -> None:
    run = api.train(**settings, **stage)
    losses = [event["loss"] for event in run.dir.read_events() if event["kind"] == "step"]
    assert run.state == "finished"
    assert losses[-1] < losses[0]
    assert run.results["eval_loss"] > 0
    saved = "model.safetensors" if stage.get("finetuning_type") == "full" else "adapter_model.safetensors"
    assert (run.path / saved).exists()


def test_a_reward_model_is_loaded_by_peft_and_transformers(settings: dict[str, Any], tiny_model_dir: Path) -> None:
    from peft import PeftModel
    from transformers import AutoModelForSequenceClassification, AutoTokenizer

    run = api.train(**settings, stage="rm", dataset="pairs")
    assert any("score" in name for name in load_file(run.path / "adapter_model.safetensors"))
    base = AutoModelForSequenceClassification.from_pretrained(tiny_model_dir, num_labels=1)
    tokenizer = AutoTokenizer.from_pretrained(run.path)
    base.config.pad_token_id = tokenizer.pad_token_id
    model = PeftModel.from_pretrained(base, str(run.path)).eval()

    def reward(answer: str) -> float:
        turns = [{"role": "user", "content": "How much is 5 and 1?"}, {"role": "assistant", "content": answer}]
        ids = tokenizer.apply_chat_template(turns, return_tensors="pt", return_dict=True)
        return float(model(**ids).logits[0, 0])

    assert reward("It is 6.") > reward("No idea 5.")


def test_another_reference_model_is_used(settings: dict[str, Any], tmp_path: Path, tiny_tokenizer: Any) -> None:
    from support.tiny import make_model

    other = tmp_path / "other"
    make_model(seed=5).save_pretrained(other)
    tiny_tokenizer.save_pretrained(other)
    run = api.train(**settings, stage="dpo", dataset="pairs", ref_model=str(other))
    first = next(event["loss"] for event in run.dir.read_events() if event["kind"] == "step")
    assert abs(first - 0.6931) > 1e-3


@pytest.mark.parametrize(
    ("stage", "dataset", "what"),
    [("sft", "pairs", "ranking"), ("dpo", "judged", "ranking: true"), ("kto", "pairs", "kto_tag")],
)
def test_data_of_another_stage_is_refused_with_the_way(
    settings: dict[str, Any], stage: str, dataset: str, what: str
) -> None:
    with pytest.raises(DataError, match=what):
        api.train(**settings, stage=stage, dataset=dataset)


@pytest.mark.real
def test_fixed_prompts_are_answered_while_it_learns_and_change_nothing(
    settings: dict[str, Any], tmp_path: Path
) -> None:
    settings |= {"stage": "kto", "dataset": "judged", "max_steps": 4, "lora_dropout": 0.1, "max_new_tokens": 4}
    quiet = api.train(**settings)
    asked = {"sample_steps": 2, "sample_prompts": ["How much is 1 and 1?", "Who, then?"]}
    told = api.train(**{**settings, **asked, "output_dir": str(tmp_path / "runs" / "two")})
    samples = [event for event in told.dir.read_events() if event["kind"] == "sample"]
    assert [(s["step"], s["prompt"]) for s in samples] == [(n, p) for n in (2, 4) for p in asked["sample_prompts"]]
    one, two = (load_file(run.path / "adapter_model.safetensors") for run in (quiet, told))
    assert all(one[name].equal(two[name]) for name in one)


def test_preferences_go_on_from_a_finished_adapter(settings: dict[str, Any], tmp_path: Path) -> None:
    first = api.train(**{**settings, "stage": "kto", "dataset": "judged"})
    on = {"adapter_name_or_path": str(first.path), "output_dir": str(tmp_path / "runs" / "two")}
    second = api.train(**{**settings, **on, "stage": "dpo", "dataset": "pairs"})
    losses = [event["loss"] for event in second.dir.read_events() if event["kind"] == "step"]
    assert losses[0] == pytest.approx(0.693147, abs=1e-5)  # the reference is the model that it goes on from
    assert losses[-1] < losses[0]
