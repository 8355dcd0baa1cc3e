"""vLLM must agree before it answers. Here a module of its interface answers through an engine of its own."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest

from sartor.base.config import RunConfig
from sartor.base.errors import ConfigError, ModelError
from sartor.base.settings import GenerationSettings
from sartor.base.types import Demonstration, Message, Origin
from sartor.evaluation.predict import ChosenBackend, PredictOptions, predict
from sartor.inference.backends import BACKENDS, BackendRequest, chosen_backend
from sartor.inference.engine import Engine
from support.tiny_adapter import save_adapter

EXAMPLES = [
    Demonstration((Message("user", f"Say {n}"), Message("assistant", str(n))), Origin("made", "made.json", n + 1))
    for n in range(11)
]
GENERATION = GenerationSettings(max_new_tokens=6)


class StandIn(ModuleType):
    """LLM and SamplingParams as vLLM's documentation has them; `change` spoils an answer."""

    def __init__(self, change: Any = None, hands_out_stops: bool = True) -> None:
        super().__init__("vllm")
        self.made: list[dict[str, Any]] = []
        standing = self

        class LLM:
            def __init__(self, **given: Any) -> None:
                standing.made.append(given)
                dtype = given["dtype"]
                self.engine = Engine.load(given["model"], dtype=dtype, device="cpu")

            def generate(self, prompts: list[dict[str, list[int]]], parameters: list[Any], use_tqdm: bool) -> list[Any]:
                import numpy as np

                from sartor.base.types import TokenSequence

                rows = [TokenSequence(np.asarray(p["prompt_token_ids"], np.int32), ()) for p in prompts]
                settings = GenerationSettings(max_new_tokens=parameters[0].max_tokens)
                assert all(one.temperature == 0 and one.ignore_eos and not one.detokenize for one in parameters)
                found = []
                for number, answer in enumerate(self.engine.generate(rows, settings)):
                    ids = list(answer.ids)
                    ended = ids[-1] in parameters[0].stop_token_ids
                    if change:
                        ids = change(number, ids)
                    if ended and not hands_out_stops:
                        ids = ids[:-1]
                    output = SimpleNamespace(token_ids=ids, finish_reason="stop" if ended else "length")
                    found.append(SimpleNamespace(outputs=[output]))
                return found

        self.LLM, self.SamplingParams = LLM, SimpleNamespace


@pytest.fixture
def tuned(tiny_model_dir: Path, tmp_path: Path) -> Engine:
    from transformers import AutoModelForCausalLM

    model = AutoModelForCausalLM.from_pretrained(tiny_model_dir, dtype="float32")
    adapter = save_adapter(model, tmp_path / "adapter", base=tiny_model_dir)
    return Engine.load(str(tiny_model_dir), adapter, dtype="float32")


def config_of(model: Path, **settings: Any) -> RunConfig:
    return RunConfig.from_dict({"model_name_or_path": str(model), **settings})


def vllm(model: Path) -> ChosenBackend:
    return ChosenBackend(BACKENDS.get("vllm"), config_of(model))


def open_vllm(engine: Engine, prompts: Any, generation: GenerationSettings, *, config: RunConfig) -> Any:
    return BACKENDS.get("vllm").open(BackendRequest(engine, prompts, generation, config))


@pytest.mark.parametrize("hands_out_stops", [True, False])
def test_it_answers_as_the_engine_does(
    tuned: Engine, tiny_model_dir: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, hands_out_stops: bool
) -> None:
    ours = predict(tuned, EXAMPLES, tmp_path / "ours", PredictOptions(generation=GENERATION, metrics=("rouge-l.char",)))
    module = StandIn(hands_out_stops=hands_out_stops)
    monkeypatch.setitem(sys.modules, "vllm", module)
    theirs = predict(
        tuned,
        EXAMPLES,
        tmp_path / "theirs",
        PredictOptions(generation=GENERATION, metrics=("rouge-l.char",), backend=vllm(tiny_model_dir)),
    )
    assert [(r.text, r.stop_reason) for r in theirs.rows] == [(r.text, r.stop_reason) for r in ours.rows]
    assert theirs.results["backend"] == "vllm"
    assert theirs.results["agreement"]["rows"] == 8
    assert theirs.results["fingerprint"] == ours.results["fingerprint"]
    (given,) = module.made
    assert given["skip_tokenizer_init"] is True
    assert not Path(given["model"]).exists(), "the merged weights are gone afterwards"
    written = json.loads((tmp_path / "theirs" / "predict_results.json").read_text(encoding="utf-8"))
    assert written["agreement"]["near_ties"] == 0


def test_stop_strings_are_the_engines(tuned: Engine, tiny_model_dir: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    prompts = [tuned.prompt(example.messages[:-1]) for example in EXAMPLES[:2]]
    (whole, _) = tuned.generate(prompts, GENERATION)
    stop = GenerationSettings(max_new_tokens=6, stop=(whole.text[1:2] or "x",))
    expected = tuned.generate(prompts, stop)
    monkeypatch.setitem(sys.modules, "vllm", StandIn())
    with open_vllm(tuned, prompts, stop, config=config_of(tiny_model_dir)) as backend:
        found = backend.generate(prompts, stop)
    assert [(a.text, a.stop_reason) for a in found] == [(a.text, a.stop_reason) for a in expected]


def test_it_is_refused_when_it_disagrees(
    tuned: Engine, tiny_model_dir: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sartor.inference.agreement.NEAR_TIE", 1e-6)
    spoil = StandIn(lambda number, ids: [*ids[:2], (ids[2] + 1) % 200, *ids[3:]] if number == 4 else ids)
    monkeypatch.setitem(sys.modules, "vllm", spoil)
    with pytest.raises(ModelError, match="row 5, token 3"):
        predict(tuned, EXAMPLES, tmp_path / "out", PredictOptions(generation=GENERATION, backend=vllm(tiny_model_dir)))
    assert not (tmp_path / "out" / "predict_results.json").exists()


def test_a_near_tie_is_counted_and_accepted(
    tuned: Engine, tiny_model_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sartor.inference.agreement.NEAR_TIE", 1e9)
    monkeypatch.setitem(sys.modules, "vllm", StandIn(lambda number, ids: [(ids[0] + 1) % 200, *ids[1:]]))
    prompts = [tuned.prompt(example.messages[:-1]) for example in EXAMPLES[:3]]
    with open_vllm(tuned, prompts, GENERATION, config=config_of(tiny_model_dir)) as backend:
        assert (backend.agreement.rows, backend.agreement.near_ties) == (3, 3)


def test_without_vllm_it_says_what_to_do(tuned: Engine, tiny_model_dir: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "vllm", None)
    prompts = [tuned.prompt(EXAMPLES[0].messages[:-1])]
    with (
        pytest.raises(ModelError, match=r"sartor\[vllm\]"),
        open_vllm(tuned, prompts, GENERATION, config=config_of(tiny_model_dir)),
    ):
        pass


def test_it_is_offered_for_predictions_only(tiny_model_dir: Path) -> None:
    from sartor.api.predicting import load_engine

    with pytest.raises(ConfigError, match="predictions only"):
        load_engine(RunConfig.from_dict({"model_name_or_path": str(tiny_model_dir), "infer_backend": "vllm"}))


def test_an_unknown_backend_is_named_with_the_nearest() -> None:
    with pytest.raises(ConfigError, match="Unknown backend 'vlm'") as caught:
        chosen_backend("vlm")
    assert "vllm" in str(caught.value.fix)
    assert chosen_backend("huggingface") is None
