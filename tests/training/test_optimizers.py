"""Every optimizer's declaration is complete, and what it declares is true."""

from __future__ import annotations

import importlib.util

import pytest
import torch

from sartor.base.config import RunConfig
from sartor.base.errors import ConfigError
from sartor.base.settings import MethodSettings, TrainSettings
from sartor.training.optimizer import make_optimizer
from sartor.training.optimizers import OPTIMIZERS, OptimizerPlugin
from sartor.training.stages import STAGES, Stage


def test_the_settings_offer_every_stage_and_optimizer() -> None:
    for name in STAGES.names():
        assert MethodSettings(stage=name).stage == name
    for name in OPTIMIZERS.names():
        assert TrainSettings(optim=name).optim == name
    for key, wrong, near in (("stage", "sftt", "sft"), ("optim", "adamw_torhc", "adamw_torch")):
        with pytest.raises(ConfigError, match=f"Choose one of: .*{near}"):
            RunConfig.from_dict({key: wrong})


@pytest.mark.parametrize("stage", tuple(STAGES.all()), ids=lambda stage: stage.name)
def test_a_stage_declares_what_others_need(stage: Stage[object]) -> None:
    for text in (stage.label, stage.description, stage.row_error, stage.row_fix):
        assert text
    assert stage.examples
    assert set(stage.options) <= set(MethodSettings.model_fields)


@pytest.mark.parametrize("plugin", tuple(OPTIMIZERS.all()), ids=lambda plugin: plugin.name)
def test_an_optimizer_declares_what_others_need_and_takes_a_step(plugin: OptimizerPlugin) -> None:
    assert plugin.label
    assert plugin.state_bytes(4) > 0
    for example in plugin.examples:
        assert RunConfig.from_dict(dict(example)).train.optim == plugin.name
    if plugin.package and importlib.util.find_spec(plugin.package) is None:
        pytest.skip(f"{plugin.package} is not installed")
    torch.manual_seed(0)
    model = torch.nn.Linear(64, 64, bias=False)
    before = model.weight.detach().clone()
    optimizer = make_optimizer(model, TrainSettings(optim=plugin.name, learning_rate=0.1))
    model(torch.ones(2, 64)).square().sum().backward()
    optimizer.step()
    assert not torch.equal(model.weight, before)
    if not plugin.package:  # bitsandbytes keeps small states in 32 bits
        size = sum(
            value.numel() * value.element_size()
            for state in optimizer.state.values()
            for value in state.values()
            if isinstance(value, torch.Tensor) and value.ndim > 0
        )
        assert size / model.weight.numel() == pytest.approx(plugin.state_bytes(4), abs=0.1)


def test_matrices_only_is_checked() -> None:
    with pytest.raises(ConfigError, match="matrices only"):
        make_optimizer(torch.nn.Linear(4, 4), TrainSettings(optim="muon"))
