"""Writes a GGUF file (weights, tokenizer, chat template) and compares llama.cpp's reading of it with ours."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import gguf
import numpy as np
from torch import Tensor

from sartor.base.errors import ExportError
from sartor.base.i18n import Text, tr
from sartor.base.types import Message
from sartor.exporters import Check, Source, Tolerance
from sartor.exporters._architectures import Family, family_of, rope_factors, write_sizes
from sartor.exporters._llama_cpp import LlamaCpp
from sartor.exporters._parity import PROMPTS, ReferenceAnswers
from sartor.exporters._vocabulary import Vocabulary

SHOWN_BEFORE, SHOWN_AFTER = 8, 16
"""Tokens or characters around the first difference: enough to see a control token whole."""


def write(source: Source, path: Path, quant: str) -> None:
    """Write the file; beside the model, one tensor at a time is in memory.

    Raises: ExportError for an architecture or a tokenizer that GGUF cannot represent.
    """
    engine = source.engine
    engine.weights.use("tuned")
    config = engine.model.config.get_text_config()
    family = family_of(config)
    vocabulary = Vocabulary.of(engine.tokenizer, config.vocab_size)
    writer = gguf.GGUFWriter(path, gguf.MODEL_ARCH_NAMES[family.arch])
    writer.add_name(source.name)
    writer.add_file_type(gguf.LlamaFileType[f"MOSTLY_{quant.upper()}"])
    writer.add_quantization_version(gguf.GGML_QUANT_VERSION)
    write_sizes(writer, config, family)
    vocabulary.write(writer, engine.tokenizer, engine.encoder.stop_ids, engine.template.source)
    tensors = _tensors(engine.model, config, family)
    types = {name: _stored_type(name, tensor, quant) for name, tensor in tensors.items()}
    for name, tensor in tensors.items():
        shape = gguf.quant_shape_to_byte_shape(tuple(tensor.shape), types[name])
        plain = {"F32": np.float32, "F16": np.float16}.get(types[name].name)
        writer.add_tensor_info(
            name,
            tuple(tensor.shape) if plain else shape,
            np.dtype(plain or np.uint8),
            int(np.prod(shape)),
            None if plain else types[name],
        )
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_ti_data_to_file()
    for name, tensor in tensors.items():
        writer.write_tensor_data(gguf.quants.quantize(tensor.float().numpy(), types[name]))
    writer.close()


def verify(source: Source, path: Path, quant: str, tolerance: Tolerance) -> Check:
    """Compare llama.cpp's tokens, rendering and answers with ours. Raises: ExportError naming the first difference."""
    reference = ReferenceAnswers.of(source)
    engine = source.engine
    bos = str(engine.tokenizer.bos_token) if Vocabulary.of(engine.tokenizer, _vocabulary_size(source)).adds_bos else ""
    with LlamaCpp(path, _vocabulary_size(source)) as file:
        for number, prompt in enumerate(PROMPTS):
            messages = [{"role": "user", "content": prompt}]
            text = engine.template.render([Message("user", prompt)], generation=True)
            _same(
                tr("the tokens of prompt {number}", number=number + 1),
                engine.tokenizer.convert_ids_to_tokens(list(reference.prompts[number])),
                engine.tokenizer.convert_ids_to_tokens(file.tokens(text)),
            )
            if "strftime_now" not in engine.template.source:
                rendered = file.render(messages)
                # llama.cpp puts the token that begins a text before the ids, and takes its text out of the rendering
                rendered = rendered if rendered.startswith(bos) else bos + rendered
                _same(tr("the rendering of prompt {number}", number=number + 1), text, rendered)
        return reference.check(f"gguf {quant}", file.log_probabilities, tolerance)


def _vocabulary_size(source: Source) -> int:
    return int(source.engine.model.config.get_text_config().vocab_size)


def _same(part: Text, ours: Sequence[object], theirs: Sequence[object]) -> None:
    if ours != theirs:
        start = next((i for i, (a, b) in enumerate(zip(ours, theirs)) if a != b), min(len(ours), len(theirs)))
        before = max(0, start - SHOWN_BEFORE)
        raise ExportError(
            "llama.cpp reads {part} differently: it has {theirs!r} where the model's own tokenizer has {ours!r}.",
            tr("position {position}", position=start),
            "Nothing was written. Use --to merged instead, and please report the model.",
            part=part,
            theirs=theirs[before : start + SHOWN_AFTER],
            ours=ours[before : start + SHOWN_AFTER],
        )


def _tensors(model: Any, config: Any, family: Family) -> dict[str, Tensor]:
    """GGUF name → tensor [out, in], by the gguf package's own map, without a tied LM head."""
    names = gguf.get_tensor_name_map(family.arch, config.num_hidden_layers)
    found: dict[str, Tensor] = {}
    for name, value in model.state_dict().items():
        if name == "lm_head.weight" and config.tie_word_embeddings:
            continue
        plain = name.replace("model.language_model.", "model.")
        if (known := names.get_name(plain, try_suffixes=(".weight", ".bias"))) is None:
            raise ExportError(
                "llama.cpp does not support the tensor {name}.", config.model_type, "Use --to merged.", name=name
            )
        found[known] = family.tensor(plain, value.detach().cpu(), config)
    if (factors := rope_factors(config)) is not None:
        found["rope_freqs.weight"] = factors
    return found


def _stored_type(name: str, tensor: Tensor, quant: str) -> gguf.GGMLQuantizationType:
    """Vectors stay float32; embedding and LM head lose most in four bits and cost little in eight."""
    types = gguf.GGMLQuantizationType
    if tensor.dim() == 1:
        return types.F32
    if quant != "f16" and tensor.shape[-1] % 32:
        return types.F16
    if quant == "q4_0" and name in ("token_embd.weight", "output.weight"):
        return types.Q8_0
    return types[quant.upper()]
