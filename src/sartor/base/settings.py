"""Every setting a person can write, grouped in sections: its name, type, default and explanation; no parsing here.

Names are Hugging Face's and LLaMA-Factory's. The same schema draws `--help`, the web form and the reference page.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field

from sartor.base import registry


def _number(value: Any) -> Any:
    """YAML 1.1 reads `1e-4` as text; people mean a number."""
    if isinstance(value, str) and re.fullmatch(r"[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?", value.strip()):
        return float(value)
    return value


def _listed(value: Any) -> Any:
    """`a,b` and `[a, b]` mean the same, as in LLaMA-Factory."""
    if isinstance(value, str):
        return tuple(part.strip() for part in value.split(",") if part.strip())
    return tuple(value) if isinstance(value, list) else value


def _tupled(value: Any) -> Any:
    """A YAML list is a tuple here; a text alone is one item (prompts hold commas)."""
    return (value,) if isinstance(value, str) else tuple(value) if isinstance(value, list) else value


def _no(value: Any) -> Any:
    """YAML 1.1 reads a bare `no` as false."""
    return "no" if value is False else value


@dataclass(frozen=True, slots=True)
class PluginChoices:
    """The choices of a setting that names a plug-in: the files of a folder, and what installed packages add.

    A new stage or optimizer is one new file; it is not listed here.
    """

    package: str

    def names(self) -> tuple[str, ...]:
        return registry.available(self.package)

    def check(self, name: str) -> str:
        """Raises: ValueError listing the plug-ins."""
        if name not in self.names():
            raise ValueError(f"unknown name, not one of {', '.join(self.names())}")
        return name


_STAGES = PluginChoices("sartor.training.stages")
_OPTIMIZERS = PluginChoices("sartor.training.optimizers")
StageName = Annotated[str, _STAGES, AfterValidator(_STAGES.check)]
OptimizerName = Annotated[str, _OPTIMIZERS, AfterValidator(_OPTIMIZERS.check)]
IntervalStrategy = Annotated[Literal["steps", "epoch", "no"], BeforeValidator(_no)]
Number = Annotated[float, BeforeValidator(_number)]
Fraction = Annotated[float, BeforeValidator(_number), Field(ge=0.0, le=1.0)]
Names = Annotated[tuple[str, ...], BeforeValidator(_listed)]
Texts = Annotated[tuple[str, ...], BeforeValidator(_tupled)]
Count = Annotated[int, Field(ge=0)]
Positive = Annotated[int, Field(ge=1)]


class Section(BaseModel):
    """Strict and frozen; unknown keys never get here, `RunConfig.of` names them first."""

    model_config = ConfigDict(strict=True, frozen=True, extra="forbid")


class ModelSettings(Section):
    """Which model, and how it is loaded."""

    model_name_or_path: str = Field("smollm2-135m", description="A folder, a hub name, or `smollm2-135m` (embedded).")
    adapter_name_or_path: Names = Field((), description="One or more adapter folders (a finished run is one).")
    model_revision: str = Field("main", description="The hub revision.")
    trust_remote_code: bool = Field(
        False, description="Accepted and grants nothing: only `--trust-remote-code` on the command line runs code."
    )
    dtype: Literal["auto", "bfloat16", "float32"] = Field(
        "auto", description="The type of weights and arithmetic; auto: bfloat16 where the machine computes in it."
    )
    attn_implementation: Literal["auto", "eager", "sdpa", "flash_attention_2"] = Field(
        "auto", description="Attention kernel; auto: sdpa."
    )
    quantization_bit: Literal[4, 8] | None = Field(None, description="QLoRA: load the base in 4 or 8 bit.")
    quantization_type: Literal["nf4", "fp4"] = Field("nf4", description="The 4-bit number format.")
    double_quantization: bool = Field(True, description="Quantise the quantisation constants too.")
    device: Literal["auto", "cpu", "cuda", "mps", "xpu"] = Field("auto", description="Where to compute.")
    use_cpu: bool = Field(False, description="The Trainer's name for `device: cpu`.")
    infer_backend: Literal["huggingface", "vllm"] = Field("huggingface", description="What generates text.")


class DataSettings(Section):
    """Which rows, in which order, in which form."""

    dataset: Names = Field((), description="Names in dataset_info.json, to learn from.")
    eval_dataset: Names = Field((), description="Names in dataset_info.json, to evaluate or predict on.")
    dataset_dir: str = Field("data", description="The folder that holds dataset_info.json.")
    val_size: Annotated[float, BeforeValidator(_number), Field(ge=0.0)] = Field(
        0.0, description="Rows held out of `dataset`: a fraction below 1, or a count."
    )
    split_seed: int | None = Field(None, description="The seed that draws held-out rows and samples; default: seed.")
    max_samples: Positive | None = Field(None, description="At most so many rows of each dataset (a seeded sample).")
    mix_strategy: Literal["concat", "interleave_under", "interleave_over"] = Field(
        "concat", description="How several datasets are joined."
    )
    interleave_probs: Annotated[tuple[Number, ...], BeforeValidator(_listed)] = Field(
        (), description="The share of each dataset when interleaving."
    )
    streaming: bool = Field(False, description="Encode while training; needs max_steps.")
    buffer_size: Positive = Field(16384, description="Rows shuffled at a time when streaming.")
    max_skipped: Number = Field(
        0.05, ge=0.0, description="Stop when more rows are skipped: a fraction below 1, or a count."
    )
    encoding: str | None = Field(None, description="Text encoding of the data files; detected when unset.")


class PromptSettings(Section):
    """How a conversation becomes tokens, and which of them are learned."""

    template: str | None = Field(None, description="A named template; unset: the model's own chat template.")
    default_system: str | None = Field(
        None, description='System text where a row has none; "" removes the model\'s own.'
    )
    enable_thinking: bool | None = Field(None, description="Ask for reasoning, or not; unset: the template's default.")
    cutoff_len: Positive = Field(2048, description="The longest example, in tokens.")
    overlong: Literal["skip", "truncate", "split"] = Field(
        "skip",
        description="Longer ones are skipped with a reason, cut without an end token, or (pt) split.",
    )
    mask_history: bool = Field(False, description="Learn the last answer only.")
    train_on_prompt: bool = Field(False, description="Learn the prompts too.")


class MethodSettings(Section):
    """What is learned (stage) and which weights move (method)."""

    stage: StageName = Field("sft", description="The objective.")
    finetuning_type: Literal["lora", "full", "freeze"] = Field("lora", description="Which weights move.")
    lora_rank: Positive = Field(8, description="Rank of the LoRA matrices.")
    lora_alpha: Positive | None = Field(None, description="LoRA scale; unset: twice the rank.")
    lora_dropout: Fraction = Field(0.0, description="Dropout on LoRA inputs.")
    lora_target: Names = Field(("all",), description="Module names, or `all` linear layers but the head.")
    additional_target: Names = Field((), description="Modules trained in full beside LoRA (embed_tokens, lm_head).")
    create_new_adapter: bool = Field(False, description="Put a new adapter on top of the given one.")
    use_rslora: bool = Field(False, description="Scale by alpha/√rank (rsLoRA).")
    use_dora: bool = Field(False, description="Weight-decomposed LoRA.")
    pissa_init: bool = Field(False, description="Start from the principal singular vectors (PiSSA).")
    pissa_iter: int = Field(16, ge=-1, description="Iterations of PiSSA's fast SVD; -1: exact.")
    loraplus_lr_ratio: Number | None = Field(None, description="Learning rate of B over that of A (LoRA+).")
    freeze_trainable_layers: int = Field(2, description="freeze: how many last layers move (negative: the first).")
    freeze_extra_modules: Names = Field((), description="freeze: further modules that move.")
    neftune_noise_alpha: Number | None = Field(None, description="Noise on the embeddings while training (NEFTune).")
    pref_beta: Number = Field(0.1, ge=0.0, description="β of the preference losses.")
    pref_ftx: Number = Field(0.0, ge=0.0, description="Weight of the SFT loss beside the preference loss.")
    pref_loss: Literal["sigmoid", "hinge", "ipo", "kto_pair", "orpo", "simpo"] = Field(
        "sigmoid", description="The preference loss of stage dpo."
    )
    dpo_label_smoothing: Fraction = Field(0.0, description="cDPO: the share of flipped labels assumed.")
    simpo_gamma: Number = Field(0.5, description="SimPO's target margin.")
    kto_chosen_weight: Number = Field(1.0, description="Weight of good answers in KTO.")
    kto_rejected_weight: Number = Field(1.0, description="Weight of bad answers in KTO.")
    ref_model: str | None = Field(None, description="The reference model; unset: the base itself.")


class TrainSettings(Section):
    """The optimiser's way."""

    output_dir: str | None = Field(None, description="The run's folder; unset: runs/<dataset>-<model>.")
    do_train: bool | None = Field(None, description="Must fit the command.")
    overwrite_output_dir: bool = Field(False, description="Move a finished run to the trash and start anew.")
    resume_from_checkpoint: bool | str | None = Field(None, description="null/true: the newest that verifies; a path.")
    num_train_epochs: Number = Field(3.0, gt=0.0, description="Passes over the data.")
    max_steps: int = Field(-1, ge=-1, description="Optimizer steps; overrides epochs when positive.")
    per_device_train_batch_size: Positive = Field(8, description="Rows a device sees at once.")
    gradient_accumulation_steps: Positive = Field(1, description="Micro-batches to one optimizer step.")
    learning_rate: Number = Field(5e-5, ge=0.0, description="The highest learning rate.")
    lr_scheduler_type: Literal[
        "linear",
        "cosine",
        "constant",
        "constant_with_warmup",
        "polynomial",
        "inverse_sqrt",
        "cosine_with_min_lr",
        "cosine_with_restarts",
        "warmup_stable_decay",
    ] = Field("linear", description="How the learning rate falls.")
    lr_scheduler_kwargs: dict[str, Any] = Field(default_factory=dict, description="Options of the schedule.")
    warmup_ratio: Fraction = Field(0.0, description="Warm-up as a share of all steps.")
    warmup_steps: Annotated[float, BeforeValidator(_number), Field(ge=0.0)] = Field(
        0, description="Warm-up steps; below 1 a share. Wins over warmup_ratio."
    )
    optim: OptimizerName = Field("adamw_torch", description="The optimizer; adamw_torch is fused where torch has it.")
    weight_decay: Number = Field(0.0, ge=0.0, description="Decoupled weight decay (not on biases and norms).")
    adam_beta1: Fraction = Field(0.9, description="β₁ of Adam.")
    adam_beta2: Fraction = Field(0.999, description="β₂ of Adam.")
    adam_epsilon: Number = Field(1e-8, description="ε of Adam.")
    max_grad_norm: Number = Field(1.0, ge=0.0, description="Gradients are clipped to this norm; 0: not at all.")
    bf16: bool | None = Field(None, description="Compute in bfloat16; unset: as `dtype` says.")
    fp16: bool = Field(False, description="Refused: bf16 or float32.")
    pure_bf16: bool = Field(False, description="Keep trained weights in bfloat16 too.")
    packing: bool = Field(False, description="Put several examples into one row, never attending across.")
    neat_packing: bool = Field(False, description="LLaMA-Factory's name for the same.")
    gradient_checkpointing: bool | None = Field(None, description="Recompute activations; unset: as memory asks.")
    disable_gradient_checkpointing: bool = Field(False, description="LLaMA-Factory's way to say false.")
    torch_compile: bool | None = Field(None, description="Compile the repeated block; unset: where it pays.")
    seed: int = Field(42, ge=0, description="Of everything random.")
    data_seed: int | None = Field(None, ge=0, description="Of the data's order; unset: `seed`.")
    logging_steps: Positive = Field(1, description="A line in trainer_log.jsonl every so many steps.")
    save_strategy: IntervalStrategy = Field("steps", description="When checkpoints are made.")
    save_steps: Number = Field(500, gt=0, description="Steps between checkpoints; below 1 a share of all.")
    save_total_limit: Positive | None = Field(None, description="How many checkpoints are kept.")
    save_only_model: bool = Field(False, description="Checkpoints without optimizer state (cannot resume).")
    load_best_model_at_end: bool = Field(False, description="End with the best checkpoint by metric_for_best_model.")
    metric_for_best_model: Literal["eval_loss"] = Field("eval_loss", description="What best means.")
    early_stopping_steps: Positive | None = Field(None, description="Stop after so many evaluations without a gain.")
    sample_steps: Count = Field(0, description="Every so many steps answer `sample_prompts`; 0: never.")
    sample_prompts: Texts = Field((), description="The fixed prompts for it.")
    plot_loss: bool = Field(True, description="Draw training_loss.png.")
    report_to: Names = Field(("none",), description="Trackers: none, trackio, wandb, swanlab, mlflow, tensorboard.")
    run_name: str | None = Field(None, description="The run's name for trackers.")
    deepspeed: str | None = Field(None, description="A DeepSpeed config, passed through.")
    fsdp: bool | str | Names = Field(False, description="Shard with FSDP2.")


class EvaluationSettings(Section):
    """Evaluation while training, and prediction after it."""

    do_eval: bool | None = Field(None, description="Must fit the command.")
    do_predict: bool | None = Field(None, description="Must fit the command.")
    eval_strategy: IntervalStrategy | None = Field(
        None, description="When held-out loss is measured; unset: each epoch when there are held-out rows."
    )
    eval_steps: Number | None = Field(None, gt=0, description="Steps between evaluations; below 1 a share of all.")
    per_device_eval_batch_size: Positive = Field(8, description="Rows at once when evaluating.")
    metrics: Names = Field(("all",), description="Metric names, or all.")
    primary_metric: str = Field("loss", description="The one metric that decides the verdict.")
    forgetting_probe: bool = Field(True, description="compare asks base and tuned sixty general questions.")
    judge_endpoint: str | None = Field(None, description="An OpenAI-compatible address that judges answers.")
    judge_model: str | None = Field(None, description="The judge's model name.")
    judge_labels: str | None = Field(None, description="A JSONL file of people's labels: id and base, tuned or tie.")
    judge_api_key: str | None = Field(None, description="As ${ENV_NAME}; a literal secret is refused.")


class GenerationSettings(Section):
    """How answers are drawn; recorded with every prediction."""

    do_sample: bool = Field(False, description="Sample instead of taking the likeliest token.")
    temperature: Number = Field(0.95, ge=0.0, description="Sampling temperature.")
    top_p: Fraction = Field(0.7, description="Nucleus sampling.")
    top_k: Count = Field(50, description="Only the k likeliest tokens; 0: all.")
    num_beams: Literal[1] = Field(1, description="Beam search is not offered.")
    repetition_penalty: Number = Field(1.0, gt=0.0, description="Above 1: repeated tokens lose weight.")
    max_new_tokens: Positive = Field(1024, description="The longest answer, in tokens.")
    stop: Texts = Field((), description="Texts that end an answer.")


class ExportSettings(Section):
    """Taking the model home."""

    export_dir: str | None = Field(None, description="Where the export goes.")


SECTIONS: dict[str, type[Section]] = {
    "model": ModelSettings,
    "data": DataSettings,
    "prompt": PromptSettings,
    "method": MethodSettings,
    "train": TrainSettings,
    "evaluation": EvaluationSettings,
    "generation": GenerationSettings,
    "export": ExportSettings,
}
