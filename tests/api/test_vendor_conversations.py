"""A conversation of three turns with reasoning, and one with calls, trains under vendors' templates, as `show` says."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from sartor import api
from sartor.cli import app
from sartor.model.load import load_tokenizer
from sartor.model.locate import resolve_model
from support.public_templates import FILES
from support.vendor_templates import CONTROL, ROLES, VENDORS

VENDORS_OWN = {
    "qwen3": 3,
    "qwen3_5_think": 3,
    "qwen3_6": 3,
    "gptoss": 3,
    "gemma4_v5": 3,
    "nemotron_3_nano": 3,
    "lfm2_2_5": 3,
    "deepseek_r1_distill": 3,
    "deepseekv3": 3,
    "llama3_1": 1,
    "minimax": 1,
    "phi3": 1,
}
"""Template → the sequences of a conversation of three turns with reasoning."""
TURNS = [
    part
    for n in (1, 2, 3)
    for part in (("human", f"How much is {n} and {n}?"), ("gpt", f"<think>\nI double {n}.\n</think>\n\nIt is {2 * n}."))
]

pytestmark = [pytest.mark.real, pytest.mark.skipif(not FILES, reason="TRL is not installed")]


def source_of(name: str) -> str:
    return VENDORS[name] if name in VENDORS else FILES[name].read_text(encoding="utf-8")


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The embedded model with the control tokens of all these templates."""
    from transformers import AutoModelForCausalLM

    folder = tmp_path_factory.mktemp("with-tokens")
    tokenizer: Any = load_tokenizer("smollm2-135m")
    tokens = sorted({token for name in VENDORS_OWN for token in CONTROL.findall(source_of(name))} | ROLES)
    tokenizer.add_tokens([*tokens, "<think>", "</think>"], special_tokens=True)
    own = AutoModelForCausalLM.from_pretrained(resolve_model("smollm2-135m"))
    own.resize_token_embeddings(len(tokenizer), mean_resizing=False)
    own.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


@pytest.mark.parametrize("name", VENDORS_OWN)
def test_every_answer_trains_with_its_reasoning(name: str, model: Path, tmp_path: Path) -> None:
    template = tmp_path / "vendor.jinja"
    template.write_text(source_of(name), encoding="utf-8")
    data = tmp_path / "data"
    data.mkdir()
    row = {"conversations": [{"from": sender, "value": value} for sender, value in TURNS]}
    (data / "talks.json").write_text(json.dumps([row] * 2), encoding="utf-8")
    entry = {"talks": {"file_name": "talks.json", "formatting": "sharegpt"}}
    (data / "dataset_info.json").write_text(json.dumps(entry), encoding="utf-8")
    settings: dict[str, Any] = {
        "model_name_or_path": str(model),
        "template": str(template),
        "dataset": "talks",
        "dataset_dir": str(data),
        "output_dir": str(tmp_path / "run"),
        "max_steps": 1,
        "per_device_train_batch_size": 2,
        "use_cpu": True,
        "plot_loss": False,
        "val_size": 0,
    }
    words = [f"{key}={settings[key]}" for key in ("model_name_or_path", "template", "dataset_dir")]
    shown = CliRunner().invoke(app, ["show", "talks", *words, "--json"])
    assert shown.exit_code == 0, shown.output
    renderings = json.loads(shown.stdout)["renderings"]
    assert len(renderings) == VENDORS_OWN[name]
    labels = ["".join(text for text, is_label, _ in r["pieces"] if is_label) for r in renderings]
    together = "".join(labels)
    for n in (1, 2, 3):
        assert together.count(f"I double {n}.") == 1
        assert together.count(f"It is {2 * n}.") == 1
        assert f"How much is {n}" not in together
    run = api.train(**settings)
    (step,) = [event for event in run.dir.read_events() if event["kind"] == "step"]
    assert 0 < step["loss"] < 20
    assert step["grad_norm"] > 0
