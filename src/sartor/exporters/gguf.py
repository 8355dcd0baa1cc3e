"""One GGUF file for llama.cpp and what is built on it: weights, tokenizer and chat template; f16, q8_0 or q4_0."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import gguf
import numpy as np
from torch import Tensor

from sartor.base.errors import ExportError
from sartor.base.types import Message
from sartor.exporters._architectures import Family, family_of, rope_factors, write_sizes
from sartor.exporters._llama_cpp import LlamaCpp
from sartor.exporters._parity import PROMPTS, ReferenceAnswers
from sartor.exporters._source import Check, Exported, Source, exported_folder, write_record
from sartor.exporters._vocabulary import Vocabulary

QUANTS = {
    "f16": (gguf.GGMLQuantizationType.F16, gguf.LlamaFileType.MOSTLY_F16, (1.0, 0.9)),
    "q8_0": (gguf.GGMLQuantizationType.Q8_0, gguf.LlamaFileType.MOSTLY_Q8_0, (3.0, 0.8)),
    "q4_0": (gguf.GGMLQuantizationType.Q4_0, gguf.LlamaFileType.MOSTLY_Q4_0, (15.0, 0.4)),
}
"""Name → type of the matrices, the file's label, largest logit difference and smallest agreement allowed.

SmolLM2-135M, tuned: 0.12 and 99 % (f16), 0.88 and 97 % (q8_0), 8.7 and 66 % (q4_0): four bits hurt small models.
"""
PRECISE = True
"""Rounded from the merge in float32, never from bfloat16."""
EXAMPLES = {"to": "gguf", "files": ("model-f16.gguf",)}


def export(source: Source, out: Path, *, quant: str = "f16", check: bool = True, **options: Any) -> Exported:
    """Write `<name>-<quant>.gguf` and ask llama.cpp.

    Raises: ExportError for a family or tokenizer that has no place in GGUF, and when llama.cpp tokenises, renders or
    answers differently.
    """
    with exported_folder(out) as folder:
        path = folder / f"{source.name}-{quant}.gguf"
        write(source, path, quant)
        checks = (verify(source, path, quant),) if check else ()
        write_record(folder, "gguf", source, checks, quant=quant)
    return Exported(out, tuple(sorted(out.iterdir())), checks)


def write(source: Source, path: Path, quant: str) -> None:
    """The file itself; one tensor at a time is in memory beside the model."""
    if quant not in QUANTS:
        raise ExportError(f"There is no quantisation {quant!r}.", "--quant", f"There are: {', '.join(QUANTS)}.")
    engine = source.engine
    engine.weights.use("tuned")
    config = engine.model.config.get_text_config()
    family = family_of(config)
    vocabulary = Vocabulary.of(engine.tokenizer, config.vocab_size)
    writer = gguf.GGUFWriter(path, gguf.MODEL_ARCH_NAMES[family.arch])
    writer.add_name(source.name)
    writer.add_file_type(QUANTS[quant][1])
    writer.add_quantization_version(gguf.GGML_QUANT_VERSION)
    write_sizes(writer, config, family)
    vocabulary.write(writer, engine.tokenizer, engine.encoder.stop_ids, engine.template.source)
    tensors = _tensors(engine.model, config, family)
    kinds = {name: _kind(name, tensor, quant) for name, tensor in tensors.items()}
    for name, tensor in tensors.items():
        shape = gguf.quant_shape_to_byte_shape(tuple(tensor.shape), kinds[name])
        plain = {"F32": np.float32, "F16": np.float16}.get(kinds[name].name)
        writer.add_tensor_info(
            name,
            tuple(tensor.shape) if plain else shape,
            np.dtype(plain or np.uint8),
            int(np.prod(shape)),
            None if plain else kinds[name],
        )
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_ti_data_to_file()
    for name, tensor in tensors.items():
        writer.write_tensor_data(gguf.quants.quantize(tensor.float().numpy(), kinds[name]))
    writer.close()


def verify(source: Source, path: Path, quant: str) -> Check:
    """Tokens, renderings and answers of llama.cpp beside ours. Raises: ExportError naming the first difference."""
    reference = ReferenceAnswers.of(source)
    engine = source.engine
    with LlamaCpp(path, engine.model.config.get_text_config().vocab_size) as file:
        for number, prompt in enumerate(PROMPTS):
            messages = [{"role": "user", "content": prompt}]
            text = engine.template.render([Message("user", prompt)], generation=True)
            _same(f"prompt {number + 1} as tokens", list(reference.prompts[number]), file.tokens(text))
            if "strftime_now" not in engine.template.source:
                _same(f"prompt {number + 1} as rendered", text, file.render(messages))
        return reference.check(f"gguf {quant}", file.ask, *QUANTS[quant][2])


def _same(what: str, ours: Any, theirs: Any) -> None:
    if ours != theirs:
        place = next((i for i, (a, b) in enumerate(zip(ours, theirs)) if a != b), min(len(ours), len(theirs)))
        raise ExportError(
            f"llama.cpp reads {what} differently: {theirs[place : place + 8]!r}, not {ours[place : place + 8]!r}.",
            f"place {place}",
            "Nothing was written. Export --to merged instead, and please report the model.",
        )


def _tensors(model: Any, config: Any, family: Family) -> dict[str, Tensor]:
    """GGUF name → tensor [out, in], by the gguf package's own map; a tied head is left out."""
    names = gguf.get_tensor_name_map(family.arch, config.num_hidden_layers)
    found: dict[str, Tensor] = {}
    for name, value in model.state_dict().items():
        if name == "lm_head.weight" and config.tie_word_embeddings:
            continue
        plain = name.replace("model.language_model.", "model.")
        if (known := names.get_name(plain, try_suffixes=(".weight", ".bias"))) is None:
            raise ExportError(f"llama.cpp has no place for the tensor {name}.", config.model_type, "Export merged.")
        found[known] = family.tensor(plain, value.detach().cpu(), config)
    if (factors := rope_factors(config)) is not None:
        found["rope_freqs.weight"] = factors
    return found


def _kind(name: str, tensor: Tensor, quant: str) -> gguf.GGMLQuantizationType:
    """Vectors stay float32; embedding and head lose most by four bits and cost little in eight."""
    kinds = gguf.GGMLQuantizationType
    if tensor.dim() == 1:
        return kinds.F32
    if quant != "f16" and tensor.shape[-1] % 32:
        return kinds.F16
    if quant == "q4_0" and name in ("token_embd.weight", "output.weight"):
        return kinds.Q8_0
    kind: gguf.GGMLQuantizationType = QUANTS[quant][0]
    return kind
