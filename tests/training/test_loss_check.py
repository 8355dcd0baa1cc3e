"""The loss check as `train` uses it: what it turns off is in plan.json; a refused model leaves no run."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from sartor import api
from sartor.base.errors import ModelError
from support.families import make_family

ROWS = [{"instruction": f"How much is {i} and 1?", "output": f"It is {i + 1}, as everyone knows."} for i in range(12)]


@pytest.fixture
def settings(tmp_path: Path) -> dict[str, Any]:
    (tmp_path / "sums.json").write_text(json.dumps(ROWS), encoding="utf-8")
    (tmp_path / "dataset_info.json").write_text(json.dumps({"sums": {"file_name": "sums.json"}}), encoding="utf-8")
    return {
        "dataset": "sums",
        "dataset_dir": str(tmp_path),
        "use_cpu": True,
        "output_dir": str(tmp_path / "runs" / "one"),
        "lora_rank": 4,
        "dtype": "float32",
        "plot_loss": False,
        "per_device_train_batch_size": 4,
        "gradient_accumulation_steps": 1,
        "max_steps": 2,
    }


def saved(family: str, folder: Path, tokenizer: Any) -> str:
    make_family(family).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return str(folder)


def first_loss(run: api.Run) -> float:
    return next(float(e["loss"]) for e in run.dir.read_events() if e["kind"] == "step")


@pytest.mark.parametrize("family", ["lfm2", "falcon_h1"])
def test_rows_are_not_packed_for_a_model_that_mixes_them(
    family: str, settings: dict[str, Any], tmp_path: Path, tiny_tokenizer: Any
) -> None:
    model = saved(family, tmp_path / family, tiny_tokenizer)
    packed = api.train(**settings, model_name_or_path=model, packing=True)
    plan = packed.dir.read_json("plan.json")
    assert plan["packing"] is False
    assert plan["never_pack"] is True
    assert "mixes" in str(plan["reasons"]["packing"])
    padded = api.train(**{**settings, "output_dir": str(tmp_path / "runs" / "two")}, model_name_or_path=model)
    assert first_loss(packed) == pytest.approx(first_loss(padded), rel=1e-6)


def test_documents_are_read_one_by_one_then(settings: dict[str, Any], tmp_path: Path, tiny_tokenizer: Any) -> None:
    entry = {"texts": {"file_name": "sums.json", "columns": {"prompt": "output"}}}
    (tmp_path / "dataset_info.json").write_text(json.dumps(entry), encoding="utf-8")
    model = saved("lfm2", tmp_path / "lfm2", tiny_tokenizer)
    run = api.train(**{**settings, "dataset": "texts", "stage": "pt"}, model_name_or_path=model)
    assert run.dir.read_json("plan.json")["never_pack"] is True


def test_a_model_whose_tokens_see_later_ones_is_refused(
    settings: dict[str, Any], tmp_path: Path, tiny_tokenizer: Any
) -> None:
    model = saved("bert", tmp_path / "bert", tiny_tokenizer)
    with pytest.raises(ModelError, match="attend to later ones") as refused:
        api.train(**settings, model_name_or_path=model)
    assert refused.value.code == "loss-differs"
    assert not Path(settings["output_dir"]).exists()


def test_what_differs_is_computed_by_the_models_own_code(
    settings: dict[str, Any], tiny_model_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from sartor.model import head

    real = head.fused_linear_cross_entropy
    monkeypatch.setattr(head, "fused_linear_cross_entropy", lambda h, w, t: real(1.2 * h, w, t))
    run = api.train(**settings, model_name_or_path=str(tiny_model_dir), save_steps=1)
    plan = run.dir.read_json("plan.json")
    assert plan["shortcuts_off"] == ["head"]
    assert "head" in str(plan["reasons"]["loss"])
    wanted = first_loss(run)
    monkeypatch.undo()
    right = {**settings, "output_dir": f"{settings['output_dir']}-right", "model_name_or_path": str(tiny_model_dir)}
    assert first_loss(api.train(**right)) == pytest.approx(wanted, rel=1e-5)
