"""Every export answers as the adapter over its base does; one that cannot is refused and leaves nothing behind."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from sartor import api
from sartor.base.errors import ConfigError, ExportError
from sartor.base.i18n import tr
from sartor.exporters import EXPORTERS, Check, Exporter, Tolerance, _architectures, _parity
from support.tiny import make_model
from support.tiny_adapter import save_adapter

SIZES = {
    "vocab_size": 264,
    "hidden_size": 64,
    "intermediate_size": 96,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 512,
    "eos_token_id": 256,
    "pad_token_id": 257,
    "bos_token_id": None,
    "head_dim": 16,
}
LLAMA_3_ROPE = {
    "rope_theta": 10000.0,
    "rope_type": "llama3",
    "factor": 8.0,
    "low_freq_factor": 1.0,
    "high_freq_factor": 4.0,
    "original_max_position_embeddings": 64,
}
FAMILIES: dict[str, dict[str, Any]] = {
    "Llama": {"attention_bias": True, "tie_word_embeddings": False},
    "Llama 3.1": {"rope_parameters": LLAMA_3_ROPE, "tie_word_embeddings": True},
    "Qwen2": {},
    "Qwen3": {"tie_word_embeddings": True},
    "Gemma": {},
    "Gemma2": {"query_pre_attn_scalar": 16, "sliding_window": 32},
    "Gemma3": {"query_pre_attn_scalar": 16, "sliding_window": 32, "num_hidden_layers": 7},
}


def family_model(family: str) -> Any:
    import transformers

    name = "Llama" if family.startswith("Llama") else family
    config = getattr(transformers, f"{name}TextConfig" if name == "Gemma3" else f"{name}Config")
    kind = getattr(transformers, f"{name}ForCausalLM")
    torch.manual_seed(0)
    model = kind(config(**{**SIZES, **FAMILIES[family]})).eval()
    for parameter in model.parameters():  # norms and biases that are not 1 and 0: a forgotten one shows
        parameter.data += 0.1 * torch.randn_like(parameter)
    return model


@pytest.fixture(scope="module")
def tuned(tmp_path_factory: pytest.TempPathFactory, tiny_model_dir: Path) -> Path:
    """An adapter of the tiny model, with the tokenizer that a run leaves beside it."""
    folder = tmp_path_factory.mktemp("tuned")
    AutoTokenizer.from_pretrained(tiny_model_dir).save_pretrained(folder)
    return save_adapter(make_model(), folder, base=tiny_model_dir)


@pytest.mark.parametrize("exporter", list(EXPORTERS.all()), ids=lambda exporter: exporter.name)
def test_each_format_holds_its_files_and_answers_the_same(exporter: Exporter, tuned: Path, tmp_path: Path) -> None:
    done = api.export(tuned, exporter.name, tmp_path / "out")
    made = {path.name.replace(tuned.name, "model") for path in done.files}
    assert {*exporter.example_files, "export.json"} <= made
    assert all(check.passed and check.positions >= 8 for check in done.checks)
    record = json.loads((tmp_path / "out" / "export.json").read_text(encoding="utf-8"))
    assert record["checks"][0]["agreement"] == done.checks[0].agreement
    assert not (tmp_path / ".out.part").exists()


HERMETIC = ("Llama", "Qwen3", "Gemma3")
"""One of each kind; the others run with the real tests."""


@pytest.mark.parametrize(
    "family", [pytest.param(name, marks=() if name in HERMETIC else pytest.mark.real) for name in FAMILIES]
)
def test_llama_cpp_answers_as_each_family_does(family: str, tiny_tokenizer: Any, tmp_path: Path) -> None:
    family_model(family).save_pretrained(tmp_path / "base")
    tiny_tokenizer.save_pretrained(tmp_path / "base")
    adapter = save_adapter(family_model(family), tmp_path / "adapter", base=tmp_path / "base")
    done = api.export(adapter, "gguf", tmp_path / "out")
    assert done.checks[0].agreement > 0.97
    assert done.checks[0].largest < 0.1


@pytest.mark.real
def test_quantized_files_are_smaller_and_stay_near(tuned: Path, tmp_path: Path) -> None:
    sizes = {}
    for quant in ("f16", "q8_0", "q4_0"):
        done = api.export(tuned, "gguf", tmp_path / quant, quant=quant)
        sizes[quant] = next(path.stat().st_size for path in done.files if path.suffix == ".gguf")
    assert sizes["q4_0"] < sizes["q8_0"] < sizes["f16"]
    with pytest.raises(ConfigError, match="q9"):
        api.export(tuned, "gguf", tmp_path / "no", quant="q9")


def test_a_wrong_tensor_fails_the_export_by_name_and_leaves_nothing(
    tiny_tokenizer: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = family_model("Llama")
    model.save_pretrained(tmp_path / "base")
    tiny_tokenizer.save_pretrained(tmp_path / "base")
    wrong = _architectures.Family(_architectures.FAMILIES["llama"].arch, rotates_pairs=False)
    monkeypatch.setattr("sartor.exporters._gguf_file.family_of", lambda config: wrong)
    with pytest.raises(ExportError, match="answers differently") as caught:
        api.export(tmp_path / "base", "gguf", tmp_path / "out")
    assert "prompt" in str(caught.value.where)
    assert "position" in str(caught.value.where)
    assert [path.name for path in tmp_path.iterdir()] == ["base"]


def test_merged_equals_adapter_over_base(tuned: Path, tiny_model_dir: Path, tmp_path: Path) -> None:
    done = api.export(tuned, "merged", tmp_path / "out")
    assert done.checks[0].largest < 1e-4
    merged = AutoModelForCausalLM.from_pretrained(tmp_path / "out")
    plain = AutoModelForCausalLM.from_pretrained(tiny_model_dir)
    assert merged.dtype == torch.float32
    assert not torch.equal(merged.lm_head.weight, plain.model.layers[0].self_attn.q_proj.weight)
    assert merged.generation_config.eos_token_id == [256]
    assert AutoTokenizer.from_pretrained(tmp_path / "out").chat_template


def test_a_bfloat16_model_is_merged_in_float32_and_stored_in_bfloat16(tiny_tokenizer: Any, tmp_path: Path) -> None:
    make_model().bfloat16().save_pretrained(tmp_path / "base")
    tiny_tokenizer.save_pretrained(tmp_path / "base")
    adapter = save_adapter(make_model(), tmp_path / "adapter", base=tmp_path / "base")
    api.export(adapter, "merged", tmp_path / "out")
    merged = AutoModelForCausalLM.from_pretrained(tmp_path / "out", dtype="auto")
    base = AutoModelForCausalLM.from_pretrained(tmp_path / "base", dtype=torch.float32)
    from peft import PeftModel

    expected = PeftModel.from_pretrained(base, str(adapter)).merge_and_unload().state_dict()
    assert merged.dtype == torch.bfloat16
    for name, value in merged.state_dict().items():
        assert torch.equal(value, expected[name].bfloat16()), name


def test_sixteen_bits_that_lose_the_training_fail_and_say_what_to_write(tiny_tokenizer: Any, tmp_path: Path) -> None:
    """An update below half a bfloat16 step of its weight vanishes in the merge: here all of them do."""
    base = make_model()
    for parameter in base.parameters():
        parameter.data = (parameter.data + 8.0 * parameter.data.sign()).bfloat16().float()
    base.bfloat16().save_pretrained(tmp_path / "base")
    tiny_tokenizer.save_pretrained(tmp_path / "base")
    adapter = save_adapter(make_model(), tmp_path / "adapter", base=tmp_path / "base", size=0.02)
    with pytest.raises(ExportError, match="merged export answers differently") as caught:
        api.export(adapter, "merged", tmp_path / "out", dtype="bfloat16")
    assert "--dtype float32" in str(caught.value.fix)
    assert not (tmp_path / "out").exists()
    plain = api.export(adapter, "merged", tmp_path / "out")
    record = json.loads((tmp_path / "out" / "export.json").read_text(encoding="utf-8"))
    assert record["dtype"] in ("float16", "float32")
    assert record["notes"][-1] == str(plain.notes[-1])
    assert f"Stored in {record['dtype']}:" in record["notes"][-1]
    assert "bfloat16 would change the answers" in record["notes"][0]
    assert api.export(adapter, "merged", tmp_path / "out", dtype="float32").checks[0].largest < 1e-3
    with pytest.raises(ConfigError, match="Unknown value 'int3' for --dtype"):
        api.export(adapter, "merged", tmp_path / "out", dtype="int3")


def test_llama_factorys_merge_file_works(tuned: Path, tiny_model_dir: Path, tmp_path: Path, capsys: Any) -> None:
    from sartor.cli import main

    file = tmp_path / "merge.yaml"
    file.write_text(
        f"### model\nmodel_name_or_path: {tiny_model_dir}\nadapter_name_or_path: {tuned}\ntemplate: chatml\n"
        f"trust_remote_code: true\n\n### export\nexport_dir: {tmp_path / 'out'}\nexport_size: 5\nexport_device: cpu\n"
        "export_legacy_format: false\n",
        encoding="utf-8",
    )
    with pytest.raises(SystemExit) as ended:
        main(["export", str(file)])
    assert ended.value.code in (0, None)
    assert "tokens agree" in capsys.readouterr().out
    assert (tmp_path / "out" / "model.safetensors").exists()


def test_only_an_earlier_export_is_replaced(tuned: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    out.mkdir()
    (out / "thesis.txt").write_text("mine", encoding="utf-8")
    with pytest.raises(ExportError, match="not empty"):
        api.export(tuned, "adapter", out)
    (out / "thesis.txt").unlink()
    api.export(tuned, "adapter", out)
    api.export(tuned, "merged", out)
    assert (out / "model.safetensors").exists()
    assert (tmp_path / ".trash" / "out-1" / "adapter_model.safetensors").exists()


def test_what_cannot_be_exported_is_refused_with_the_way_out(tiny_model_dir: Path, tuned: Path, tmp_path: Path) -> None:
    with pytest.raises(ExportError, match="No adapter"):
        api.export(tiny_model_dir, "adapter", tmp_path / "out")
    with pytest.raises(ConfigError, match="Unknown export format 'mergd'"):
        api.export(tuned, "mergd", tmp_path / "out")
    with pytest.raises(ConfigError, match="The format adapter has no option --quant"):
        api.export(tuned, "adapter", tmp_path / "out", quant="f16")
    with pytest.raises(ConfigError, match="No output folder"):
        api.export(api.predicting.as_config(tuned, {}), "merged")


def test_a_nan_counts_as_the_worst(tuned: Path) -> None:
    reference = _parity.ReferenceAnswers(
        ((1,),), ((2,),), ((((torch.zeros(2), torch.tensor([0, 1])),)),), AnyTokenizer()
    )
    with pytest.raises(ExportError):
        reference.check("test", lambda prompt, answer: [torch.full((4,), float("nan"))], Tolerance(1.0, 0.0))


class AnyTokenizer:
    def decode(self, ids: list[int]) -> str:
        return "x"


def test_the_formats_declare_their_options() -> None:
    declared = {e.name: (e.quants, e.dtypes, e.needs_float32, e.self_check) for e in EXPORTERS.all()}
    assert declared == {
        "adapter": ((), (), False, "always"),
        "merged": ((), ("bfloat16", "float16", "float32"), False, "always"),
        "gguf": (("f16", "q8_0", "q4_0"), (), True, "optional"),
        "ollama": (("q8_0", "f16", "q4_0"), (), True, "optional"),
    }


def test_a_check_reads_as_one_line_in_the_readers_language() -> None:
    check = Check("merged", 8, 128, 0.992, 0.01234, Tolerance(0.25, 0.95), tr("no position"))
    assert str(check).startswith("merged: 99.2% of 128 tokens agree (at least 95%)")
    assert check.to_json()["form"] == "merged"


def test_one_set_of_weights_can_be_kept_alone(tuned: Path, tiny_model_dir: Path) -> None:
    engine = api.Engine.load(str(tiny_model_dir), tuned, dtype="float32", device="cpu")
    fingerprint = engine.fingerprint("tuned")
    assert engine.fingerprint("base") != fingerprint
    engine.weights.discard_other("tuned")
    assert not engine.weights.has_both
    assert engine.fingerprint("base") == engine.fingerprint("tuned") == fingerprint
