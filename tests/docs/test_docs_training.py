"""docs/training.md is true: every YAML block trains two steps on the tiny model, or is refused as the page says."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest
import yaml

from sartor import api
from sartor.base import registry

PAGE = Path(__file__).parents[2] / "docs" / "training.md"
BLOCKS = [yaml.safe_load(block) for block in re.findall(r"```yaml\n(.*?)```", PAGE.read_text(encoding="utf-8"), re.S)]
DATA: dict[str, tuple[list[dict[str, Any]], dict[str, Any]]] = {
    "sums": ([{"instruction": f"{i} and 1?", "output": f"{i + 1}."} for i in range(12)], {}),
    "novel": ([{"text": "It is a truth universally acknowledged. " * 5}] * 6, {"columns": {"prompt": "text"}}),
    "pairs": (
        [{"instruction": f"{i} and 1?", "chosen": f"{i + 1}.", "rejected": "No."} for i in range(12)],
        {"ranking": True, "columns": {"prompt": "instruction", "chosen": "chosen", "rejected": "rejected"}},
    ),
    "judged": (
        [{"instruction": f"{i} and 1?", "output": f"{i}.", "tag": i % 2 == 0} for i in range(12)],
        {"columns": {"prompt": "instruction", "response": "output", "kto_tag": "tag"}},
    ),
}


@pytest.mark.real
@pytest.mark.parametrize("block", BLOCKS, ids=lambda b: "-".join(f"{k}={v}" for k, v in b.items())[:60])
def test_every_block_trains(block: dict[str, Any], tmp_path: Path, tiny_model_dir: Path) -> None:
    info = {}
    for name, (rows, entry) in DATA.items():
        (tmp_path / f"{name}.json").write_text(json.dumps(rows), encoding="utf-8")
        info[name] = {"file_name": f"{name}.json", **entry}
    (tmp_path / "dataset_info.json").write_text(json.dumps(info), encoding="utf-8")
    settings = {
        **block,
        "model_name_or_path": str(tiny_model_dir),
        "dataset_dir": str(tmp_path),
        "use_cpu": True,
        "output_dir": str(tmp_path / "run"),
        "max_steps": 2,
        "dtype": "float32",
        "plot_loss": False,
    }
    if "quantization_bit" in block or block.get("optim") == "adamw_8bit":
        pytest.importorskip("bitsandbytes")
    run = api.train(**settings)
    assert run.state == "finished"
    assert run.results["steps"] == 2


def test_the_page_has_every_stage_and_method() -> None:
    assert {block["stage"] for block in BLOCKS if "stage" in block} == set(registry.names("sartor.training.stages"))
    methods = {key for block in BLOCKS for key in block} | {str(value) for block in BLOCKS for value in block.values()}
    assert methods >= {
        "full",
        "freeze",
        "lora",
        "use_dora",
        "use_rslora",
        "pissa_init",
        "loraplus_lr_ratio",
        "lora_target",
        "additional_target",
        "quantization_bit",
        "neftune_noise_alpha",
        "packing",
        "muon",
        "adafactor",
        "load_best_model_at_end",
        "early_stopping_steps",
    }
