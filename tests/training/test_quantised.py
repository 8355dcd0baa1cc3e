"""QLoRA in 4 and 8 bit and AdamW in 8 bit on a CPU: what is quantised, that it learns, and that it resumes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from sartor.base.errors import Interrupted
from sartor.base.rundir import RunDir
from sartor.base.settings import ModelSettings
from sartor.model.head import causal_model
from sartor.model.load import adapt, load_model, save_weights
from sartor.training import checkpoint, loop
from sartor.training.job import TrainingJob
from support.tiny import make_model
from support.training_runs import StopAt, config_of, events, plan_of, rows, trained

bitsandbytes = pytest.importorskip("bitsandbytes")
pytestmark = [pytest.mark.real, pytest.mark.filterwarnings("ignore")]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model wide enough for blocks of 64 numbers."""
    made = tmp_path_factory.mktemp("model")
    make_model(hidden_size=64, intermediate_size=128).save_pretrained(made)
    return made


def learn(run: Path, folder: Path, **options: Any) -> Any:
    callbacks, resume = options.pop("callbacks", ()), options.pop("resume", None)
    config = config_of(model_name_or_path=str(folder), lora_rank=4, max_steps=6, dtype="float32", **options)
    model = adapt(load_model(config.model), config.method, seed=1)
    job = TrainingJob(
        RunDir(run),
        config,
        plan_of(config, rows(12), []),
        model,
        rows(12),
        [],
        pad_id=257,
        callbacks=callbacks,
        write_model=lambda to: save_weights(model, to),
        resume=resume,
    )
    loop.train(job)
    return model


@pytest.mark.parametrize(
    ("options", "kind"),
    [
        ({"quantization_bit": 4}, "Linear4bit"),
        ({"quantization_bit": 4, "quantization_type": "fp4", "double_quantization": False}, "Linear4bit"),
        ({"quantization_bit": 8}, "Linear8bitLt"),
        ({"optim": "adamw_8bit", "finetuning_type": "full"}, "Linear"),
    ],
    ids=["nf4", "fp4", "int8", "adamw8"],
)
def test_it_learns_and_resumes_to_the_same_bits(
    tmp_path: Path, folder: Path, options: dict[str, Any], kind: str
) -> None:
    straight = learn(tmp_path / "a", folder, **options)
    layer = causal_model(straight).model.layers[0].self_attn.q_proj
    layer = getattr(layer, "base_layer", layer)
    assert type(layer).__name__ == kind
    assert layer.weight.dtype == {"Linear4bit": torch.uint8, "Linear8bitLt": torch.int8}.get(kind, torch.float32)
    losses = [event["loss"] for event in events(tmp_path / "a", "step")]
    assert losses[-1] < losses[0]
    with pytest.raises(Interrupted):
        learn(tmp_path / "b", folder, **options, callbacks=[StopAt(3, 15)])
    newest, _ = checkpoint.latest(RunDir(tmp_path / "b"))
    resumed = learn(tmp_path / "b", folder, **options, resume=newest)
    assert torch.equal(trained(straight), trained(resumed))
    assert losses == [event["loss"] for event in events(tmp_path / "b", "step")]


def test_eight_bit_states_are_bytes(folder: Path) -> None:
    from sartor.base.settings import TrainSettings
    from sartor.training.optimizer import make_optimizer

    model = load_model(ModelSettings(model_name_or_path=str(folder), use_cpu=True, dtype="float32"))
    optimizer = make_optimizer(model.requires_grad_(True), TrainSettings(optim="adamw_8bit"))
    model(input_ids=torch.arange(8)[None], labels=torch.arange(8)[None]).loss.backward()
    optimizer.step()
    kinds = {
        values["state1"].dtype
        for group in optimizer.param_groups
        for p in group["params"]
        for values in [optimizer.state[p]]
        if p.numel() >= 4096  # bitsandbytes leaves smaller ones in float32
    }
    assert kinds == {torch.uint8}


def test_four_bits_answer_nearly_as_the_model_does(folder: Path) -> None:
    ids = torch.arange(40).view(2, 20)
    settings = {"model_name_or_path": str(folder), "use_cpu": True, "dtype": "float32"}
    logits = [
        load_model(ModelSettings(**settings, quantization_bit=bits))(input_ids=ids).logits.float()  # type: ignore[arg-type]
        for bits in (None, 4, 8)
    ]
    spread = float(logits[0].std())
    assert 0 < float((logits[1] - logits[0]).std()) < 0.25 * spread
    assert 0 < float((logits[2] - logits[0]).std()) < 0.05 * spread


def test_an_evaluation_takes_no_gradient_away(folder: Path) -> None:
    """On CPUs with AVX-512, bitsandbytes would pack the weights for inference, and packed ones have no gradient."""
    config = config_of(model_name_or_path=str(folder), lora_rank=4, quantization_bit=4, dtype="float32")
    model = adapt(load_model(config.model), config.method, seed=1)
    trained = [p for name, p in model.named_parameters() if "lora_B" in name]
    ids = torch.tensor([list(rows(1)[0].ids)], dtype=torch.long)

    def gradients() -> list[torch.Tensor]:
        model.zero_grad()
        model(input_ids=ids, labels=ids).loss.backward()
        return [p.grad.clone() for p in trained if p.grad is not None]

    before = gradients()
    model.eval()
    with torch.no_grad():
        model(input_ids=ids)
    model.train()
    after = gradients()
    assert len(before) == len(after) == len(trained)
    assert all(torch.equal(a, b) for a, b in zip(before, after, strict=True))
