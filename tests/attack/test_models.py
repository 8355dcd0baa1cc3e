"""Model and adapter folders that are incomplete, foreign or hostile: named errors, never random weights."""

from __future__ import annotations

import json
import random
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from sartor import api
from sartor.base.errors import ModelError, SartorError
from sartor.base.settings import MethodSettings, ModelSettings
from sartor.model import adapter_config
from sartor.model.load import adapt, load_adapter, load_model, save_weights
from support.commands import run as command
from support.process_runs import project_settings
from support.tiny import make_model
from support.tiny_adapter import save_adapter


@pytest.fixture
def folder(tmp_path: Path, tiny_model_dir: Path) -> Path:
    copy = tmp_path / "model"
    shutil.copytree(tiny_model_dir, copy)
    return copy


@pytest.fixture
def adapter(tmp_path: Path, tiny_model_dir: Path) -> Path:
    return save_adapter(make_model(), tmp_path / "adapter", base=tiny_model_dir)


def settings_of(folder: Path, **more: Any) -> ModelSettings:
    return ModelSettings(model_name_or_path=str(folder), use_cpu=True, dtype="float32", **more)


def change(file: Path, how: Callable[[dict[str, torch.Tensor]], None]) -> None:
    tensors = load_file(file)
    how(tensors)
    save_file({name: tensor.contiguous() for name, tensor in tensors.items()}, file, metadata={"format": "pt"})


def edit(file: Path, **values: Any) -> None:
    content = json.loads(file.read_text(encoding="utf-8"))
    file.write_text(json.dumps({**content, **values}), encoding="utf-8")


NORM = "model.layers.1.input_layernorm.weight"
UP = "model.layers.0.mlp.up_proj.weight"


def lacking(tensors: dict[str, torch.Tensor]) -> None:
    del tensors[UP], tensors[NORM]


def lacking_tied(tensors: dict[str, torch.Tensor]) -> None:
    """The embedding, from which the head would come."""
    tensors.pop("model.embed_tokens.weight", None)
    tensors.pop("lm_head.weight", None)


def left_over(tensors: dict[str, torch.Tensor]) -> None:
    tensors["model.layers.2.mlp.up_proj.weight"] = tensors[UP].clone()


def misshapen(tensors: dict[str, torch.Tensor]) -> None:
    tensors[UP] = tensors[UP][:, :-1]


def renamed(tensors: dict[str, torch.Tensor]) -> None:
    tensors["model.layers.0.mlp.up_projection.weight"] = tensors.pop(UP)


WRONG = [
    (lacking, r"lack 2 of its tensors.*layers.0.mlp.up_proj.weight, .*input_layernorm.weight"),
    (lacking_tied, r"lack .*embed_tokens"),
    (left_over, r"no place for 1 tensors.*layers.2"),
    (misshapen, r"needs other shapes for 1 of its tensors.*layers.0.mlp.up_proj.weight"),
    (renamed, r"lack 1 of its tensors.*up_proj.weight"),
]


@pytest.mark.parametrize(("how", "match"), WRONG, ids=[how.__name__ for how, _ in WRONG])
def test_a_model_whose_tensors_are_not_all_its_own(folder: Path, how: Any, match: str) -> None:
    load_model(settings_of(folder))
    change(folder / "model.safetensors", how)
    with pytest.raises(ModelError, match=match):
        load_model(settings_of(folder))


@pytest.mark.parametrize("words", ["train", "predict", "compare", "export", "chat"])
def test_no_command_takes_an_incomplete_model(
    tmp_path: Path, tiny_model_dir: Path, folder: Path, words: str, capsys: pytest.CaptureFixture[str]
) -> None:
    settings = project_settings(tmp_path, folder, longest=1, val_size=4, max_steps=1, max_new_tokens=2)
    run = tmp_path / "one"
    if words != "train":
        assert command("train", *_words(settings)) == 0
    change(folder / "model.safetensors", lacking)
    more = ["--out", tmp_path / "out"] if words == "export" else []
    if words == "train":
        assert command("train", *_words(settings)) == 1
    else:
        assert command(words, run, *more) == 1
    assert "lack 2 of its tensors" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def _words(settings: dict[str, Any]) -> list[str]:
    return [f"{key}={json.dumps(value) if isinstance(value, bool) else value}" for key, value in settings.items()]


def test_tied_weights_and_old_buffers_are_not_missed(folder: Path) -> None:
    """A head saved besides the embedding that it is tied to, and the buffers that older versions saved."""

    def old(tensors: dict[str, torch.Tensor]) -> None:
        tensors["lm_head.weight"] = tensors["model.embed_tokens.weight"].clone()
        for layer in range(2):
            tensors[f"model.layers.{layer}.self_attn.rotary_emb.inv_freq"] = torch.ones(4)

    change(folder / "model.safetensors", old)
    load_model(settings_of(folder))


def test_a_reward_model_begins_with_a_new_head_alone(folder: Path) -> None:
    load_model(settings_of(folder), head="reward")
    change(folder / "model.safetensors", lacking)
    with pytest.raises(ModelError, match="lack 2"):
        load_model(settings_of(folder), head="reward")


@pytest.fixture
def sharded(tmp_path: Path, tiny_tokenizer: Any) -> Path:
    place = tmp_path / "sharded"
    make_model().save_pretrained(place, max_shard_size="20KB")
    tiny_tokenizer.save_pretrained(place)
    assert len(list(place.glob("model-*.safetensors"))) > 2
    return place


def test_shards_that_are_gone_cut_or_empty(sharded: Path) -> None:
    load_model(settings_of(sharded))
    shard = sorted(sharded.glob("model-*.safetensors"))[1]
    whole = shard.read_bytes()
    for content in (b"", whole[:4], whole[: len(whole) // 2], whole[:-1], b"\xff" * 8 + whole[8:]):
        shard.write_bytes(content)
        with pytest.raises(ModelError):
            load_model(settings_of(sharded))
    shard.unlink()
    with pytest.raises(ModelError, match=r"names .* which is not in the folder"):
        load_model(settings_of(sharded))


def test_an_index_that_names_fewer_or_other_tensors(sharded: Path) -> None:
    index = sharded / "model.safetensors.index.json"
    content = json.loads(index.read_text(encoding="utf-8"))
    shards = sorted(set(content["weight_map"].values()))
    kept = {name: shard for name, shard in content["weight_map"].items() if shard != shards[1]}
    index.write_text(json.dumps({**content, "weight_map": kept}), encoding="utf-8")
    with pytest.raises(ModelError, match="lack"):
        load_model(settings_of(sharded))


# --- adapters ----------------------------------------------------------------------------------------------------


def no_fit(tensors: dict[str, torch.Tensor]) -> None:
    for name in list(tensors):
        tensors[name.replace("model.layers", "model.blocks")] = tensors.pop(name)


def half(tensors: dict[str, torch.Tensor]) -> None:
    for name in [name for name in tensors if "lora_B" in name and "layers.1" in name]:
        del tensors[name]


def extra(tensors: dict[str, torch.Tensor]) -> None:
    name = next(iter(tensors))
    tensors[name.replace("layers.0", "layers.7").replace("layers.1", "layers.7")] = tensors[name].clone()


def empty(tensors: dict[str, torch.Tensor]) -> None:
    tensors.clear()


def ranked(tensors: dict[str, torch.Tensor]) -> None:
    for name in [name for name in tensors if "lora_A" in name]:
        tensors[name] = tensors[name][:2]


ADAPTERS = [
    (no_fit, "lacks .* of its tensors"),
    (half, "lacks 7 of its tensors.*layers.1"),
    (extra, "no place for 1 tensors.*layers.7"),
    (empty, "lacks"),
    (ranked, r"does not match.*size mismatch for .*layers.0.*lora_A"),
]


@pytest.mark.parametrize(("how", "match"), ADAPTERS, ids=[how.__name__ for how, _ in ADAPTERS])
def test_an_adapter_that_does_not_fit(adapter: Path, how: Any, match: str) -> None:
    load_adapter(make_model(), adapter)
    change(adapter / "adapter_model.safetensors", how)
    for trainable in (False, True):
        with pytest.raises(ModelError, match=match):
            load_adapter(make_model(), adapter, trainable=trainable)


@pytest.mark.parametrize("config", [{"hidden_size": 48}, {"num_hidden_layers": 1}])
def test_an_adapter_of_another_base(adapter: Path, config: dict[str, int]) -> None:
    with pytest.raises(ModelError, match=r"does not match|no place|lacks"):
        load_adapter(make_model(**config), adapter)


def test_modules_trained_in_full_must_be_in_the_file(tmp_path: Path) -> None:
    for names in (("lm_head",), ("embed_tokens",), ("embed_tokens", "lm_head"), ("norm",)):
        for tied in (True, False):
            method = MethodSettings(lora_rank=2, additional_target=names)
            tuned = adapt(make_model(tie_word_embeddings=tied), method)
            place = tmp_path / f"{'-'.join(names)}-{tied}"
            save_weights(tuned, place)
            load_adapter(make_model(tie_word_embeddings=tied), place)

            def without(tensors: dict[str, torch.Tensor]) -> None:
                for name in [name for name in tensors if "lora_" not in name]:
                    del tensors[name]

            change(place / "adapter_model.safetensors", without)
            with pytest.raises(ModelError, match=r"lacks|does not match"):
                load_adapter(make_model(tie_word_embeddings=tied), place)


PATTERN = r"model\.layers\.\d+\.(self_attn\.(q|v)|mlp\.up)_proj"


def test_a_pattern_of_modules_means_what_it_meant(tmp_path: Path, tiny_model_dir: Path) -> None:
    from peft import LoraConfig, get_peft_model

    rank = {r"layers\.1\.self_attn\.q_proj": 6}
    config = LoraConfig(r=4, target_modules=PATTERN, rank_pattern=rank, task_type="CAUSAL_LM")
    tuned = get_peft_model(make_model(), config)
    for parameter in tuned.parameters():
        if parameter.requires_grad:
            parameter.data.normal_(std=0.2)
    tuned.save_pretrained(tmp_path / "a")
    again = load_adapter(make_model(), tmp_path / "a")
    ids = torch.arange(12)[None]
    assert sum("lora_A" in name for name, _ in again.named_parameters()) == 6
    torch.testing.assert_close(again(ids).logits, tuned.eval()(ids).logits, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("key", ["target_modules", "exclude_modules", "rank_pattern", "alpha_pattern"])
def test_a_pattern_without_end_is_refused(adapter: Path, key: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """`re` would match `(.*)*…` against a module's name for longer than anybody waits."""
    monkeypatch.setattr(adapter_config, "PATTERN_S", 0.05)
    evil = r"(([a-z._0-9])+|([a-z._0-9][a-z._0-9])+)+(?<=x)(?<!x)\d{9}"
    edit(adapter / "adapter_config.json", **{key: {evil: 4} if key.endswith("pattern") else evil})
    with pytest.raises(ModelError, match=f"{key}.*too long"):
        load_adapter(make_model(), adapter)
    edit(adapter / "adapter_config.json", **{key: {"(": 4} if key.endswith("pattern") else "("})
    with pytest.raises(ModelError, match=f"{key}.*invalid"):
        load_adapter(make_model(), adapter)


@pytest.mark.parametrize(
    "values",
    [
        {"r": 10**9},
        {"r": "4"},
        {"r": 0},
        {"layers_pattern": "(a+)+", "layers_to_transform": [0]},
        {"layer_replication": [[0, 10**6]]},
        {"peft_type": "NOPE"},
        {"peft_type": None},
        {"task_type": 7},
        {"target_modules": 3},
        {"target_modules": ["no_such_layer"]},
        {"lora_alpha": "x"},
        {"rank_pattern": 3},
        {"init_lora_weights": {"a": 1}},
    ],
    ids=str,
)
def test_an_adapter_config_of_nonsense(adapter: Path, values: dict[str, Any]) -> None:
    edit(adapter / "adapter_config.json", **values)
    with pytest.raises(SartorError):
        load_adapter(make_model(), adapter)


JUNK = [None, -1, 0, 10**7, 0.5, "x", "", [], [1], {}, {"a": 1}, True, "a/b"]


@pytest.mark.filterwarnings("ignore")
def test_any_one_value_of_an_adapter_config(adapter: Path, trials: int) -> None:
    file = adapter / "adapter_config.json"
    whole = json.loads(file.read_text(encoding="utf-8"))
    chance = random.Random(3)
    for _ in range(4 * trials):
        key, value = chance.choice(list(whole)), chance.choice(JUNK)
        file.write_text(json.dumps({**whole, key: value}), encoding="utf-8")
        try:
            load_adapter(make_model(), adapter)
        except SartorError:
            pass
        except Exception as error:
            raise AssertionError(f"{key}: {value!r}") from error


@pytest.mark.filterwarnings("ignore")
def test_any_one_value_of_a_config(folder: Path, trials: int) -> None:
    file = folder / "config.json"
    whole = json.loads(file.read_text(encoding="utf-8"))
    chance = random.Random(4)
    for _ in range(4 * trials):
        key = chance.choice(list(whole))
        value = chance.choice([junk for junk in JUNK if junk != 10**7])
        file.write_text(json.dumps({**whole, key: value}), encoding="utf-8")
        try:
            load_model(settings_of(folder))
        except SartorError:
            pass
        except Exception as error:
            raise AssertionError(f"{key}: {value!r}") from error


# --- what data would have fetched --------------------------------------------------------------------------------


@pytest.fixture
def no_network(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The hub is reachable, as on a user's machine, and every attempt is noted and fails."""
    import httpx
    from huggingface_hub import constants

    asked: list[str] = []

    def refuse(self: Any, request: Any, *args: Any, **more: Any) -> Any:
        asked.append(str(request.url))
        raise httpx.ConnectError("no network in tests", request=request)

    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(httpx.Client, "send", refuse)
    return asked


@pytest.mark.parametrize(
    "values",
    [
        {"_attn_implementation": "evil/kernel"},
        {"attn_implementation": "evil/kernel"},
        {"_attn_implementation_internal": "evil/kernel@main:attention"},
        {"attn_implementation": {"": "evil/kernel"}},
        {"_attn_implementation": "flash_attention_2"},
        {"experts_implementation": "evil/kernel"},
        {"_experts_implementation": "deepgemm"},
        {"_name_or_path": "evil/model"},
        {"auto_map": {"AutoModelForCausalLM": "evil/model--modeling.Evil", "AutoConfig": "evil/model--c.Evil"}},
    ],
    ids=str,
)
def test_a_config_fetches_nothing(
    folder: Path, no_network: list[str], monkeypatch: pytest.MonkeyPatch, values: dict[str, Any]
) -> None:
    from transformers import modeling_utils
    from transformers.integrations import hub_kernels

    kernels: list[str] = []

    def load(name: str, *args: Any, **more: Any) -> Any:
        kernels.append(name)
        raise ValueError(name)

    monkeypatch.setattr(modeling_utils, "is_kernels_available", lambda: True)
    monkeypatch.setattr(modeling_utils, "lazy_import_flash_attention", load)
    monkeypatch.setattr(hub_kernels, "load_and_register_attn_kernel", load, raising=False)
    edit(folder / "config.json", **values)
    model = load_model(settings_of(folder))
    assert model.config._attn_implementation in ("sdpa", "sartor_cpu") or "sartor" in model.config._attn_implementation
    assert (kernels, no_network) == ([], [])


def test_a_model_folder_with_an_adapter_fetches_no_other_base(folder: Path, adapter: Path) -> None:
    for name in ("adapter_config.json", "adapter_model.safetensors"):
        shutil.copy(adapter / name, folder / name)
    edit(folder / "adapter_config.json", base_model_name_or_path="evil/model")
    with pytest.raises(ModelError, match="adapter besides the model"):
        load_model(settings_of(folder))


def test_an_adapter_fetches_no_base(adapter: Path, tiny_model_dir: Path, no_network: list[str], tmp_path: Path) -> None:
    edit(adapter / "adapter_config.json", base_model_name_or_path="evil/model")
    tuned = load_adapter(load_model(settings_of(tiny_model_dir)), adapter, trainable=True)
    save_weights(tuned, tmp_path / "again")
    saved = json.loads((tmp_path / "again" / "adapter_config.json").read_text(encoding="utf-8"))
    assert saved["base_model_name_or_path"] == str(tiny_model_dir)
    with pytest.raises(ModelError, match="names the base model 'evil/model'"):
        api.chat(str(adapter))
    assert no_network == []


# --- values ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("value", [float("nan"), float("inf"), float("-inf")])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_weights_that_are_no_numbers(folder: Path, value: float, dtype: torch.dtype) -> None:
    def poison(tensors: dict[str, torch.Tensor]) -> None:
        tensors[UP][3, 2] = value
        tensors[NORM][0] = value

    change(folder / "model.safetensors", lambda tensors: tensors.update({n: t.to(dtype) for n, t in tensors.items()}))
    load_model(settings_of(folder))
    change(folder / "model.safetensors", poison)
    for head in ("text", "reward"):
        with pytest.raises(ModelError, match=rf"2 tensors contain NaN.*{UP}.*{NORM}"):
            load_model(settings_of(folder), head=head)  # type: ignore[arg-type]


def test_a_tied_weight_is_named_once_and_large_ones_are_numbers(folder: Path) -> None:
    def large(tensors: dict[str, torch.Tensor]) -> None:
        tensors[UP][:] = 3e38

    def poison(tensors: dict[str, torch.Tensor]) -> None:
        tensors["model.embed_tokens.weight"][0, 0] = float("nan")

    change(folder / "model.safetensors", large)
    load_model(settings_of(folder))
    change(folder / "model.safetensors", poison)
    with pytest.raises(ModelError, match=r"1 tensors contain NaN.*embed_tokens"):
        load_model(settings_of(folder))


def test_an_adapter_that_is_no_numbers(adapter: Path) -> None:
    def poison(tensors: dict[str, torch.Tensor]) -> None:
        tensors[sorted(tensors)[0]][0, 0] = float("nan")

    change(adapter / "adapter_model.safetensors", poison)
    for trainable in (False, True):
        with pytest.raises(ModelError, match="1 tensors contain NaN"):
            load_adapter(make_model(), adapter, trainable=trainable)


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("bits", [4, 8])
def test_quantized_weights_that_are_no_numbers(folder: Path, bits: int) -> None:
    pytest.importorskip("bitsandbytes")
    for value in (float("nan"), float("inf")):

        def poison(tensors: dict[str, torch.Tensor], value: float = value) -> None:
            tensors[UP][3, 2] = value

        change(folder / "model.safetensors", poison)
        with pytest.raises(ModelError, match=r"tensors contain NaN.*up_proj"):
            load_model(settings_of(folder, quantization_bit=bits))


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("bits", [4, 8])
@pytest.mark.parametrize(
    "shape",
    [
        {},
        {"hidden_size": 64, "intermediate_size": 80},
        {"hidden_size": 64, "intermediate_size": 100},
        {"hidden_size": 24, "intermediate_size": 33},
    ],
)
def test_a_quantized_model_of_any_width_answers(tmp_path: Path, bits: int, shape: dict[str, int]) -> None:
    pytest.importorskip("bitsandbytes")
    make_model(**shape).save_pretrained(tmp_path)
    ids = torch.arange(40).view(2, 20)
    with torch.no_grad():
        whole = load_model(settings_of(tmp_path))(input_ids=ids).logits
        found = load_model(settings_of(tmp_path, quantization_bit=bits))(input_ids=ids).logits.float()
    assert float((found - whole).std()) < 0.5 * float(whole.std())
