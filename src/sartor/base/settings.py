"""Every setting, grouped in sections: its name, type, default and description.

Names are those of Hugging Face and LLaMA-Factory. `sartor settings`, the web form and the reference page are made
from this schema.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field
from pydantic_core import PydanticCustomError

from sartor.base import registry


def _number(value: Any) -> Any:
    """YAML 1.1 reads `1e-4` as a string; a number is meant."""
    if isinstance(value, str) and re.fullmatch(r"[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?", value.strip()):
        return float(value)
    return value


def _listed(value: Any) -> Any:
    """`a,b` and `[a, b]` mean the same, as in LLaMA-Factory."""
    if isinstance(value, str):
        return tuple(part.strip() for part in value.split(",") if part.strip())
    return tuple(value) if isinstance(value, list) else value


def _tupled(value: Any) -> Any:
    """A YAML list becomes a tuple; a single string is one item (prompts contain commas)."""
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
    own: tuple[str, ...] = ()
    """Choices that are no plug-in."""

    def names(self) -> tuple[str, ...]:
        return (*self.own, *registry.available(self.package))

    def check(self, name: str) -> str:
        """Raises: PydanticCustomError (`unknown_plugin`, with the names) for a name that is not among them."""
        if name not in self.names():
            raise PydanticCustomError("unknown_plugin", "unknown name", {"names": list(self.names())})
        return name


_STAGES = PluginChoices("sartor.training.stages")
_OPTIMIZERS = PluginChoices("sartor.training.optimizers")
StageName = Annotated[str, _STAGES, AfterValidator(_STAGES.check)]
_BACKENDS = PluginChoices("sartor.inference.backends", ("huggingface",))
BackendName = Annotated[str, _BACKENDS, AfterValidator(_BACKENDS.check)]
OptimizerName = Annotated[str, _OPTIMIZERS, AfterValidator(_OPTIMIZERS.check)]
IntervalStrategy = Annotated[Literal["steps", "epoch", "no"], BeforeValidator(_no)]
Number = Annotated[float, BeforeValidator(_number), Field(allow_inf_nan=False)]
Fraction = Annotated[float, BeforeValidator(_number), Field(ge=0.0, le=1.0, allow_inf_nan=False)]
Decay = Annotated[float, BeforeValidator(_number), Field(ge=0.0, lt=1.0, allow_inf_nan=False)]
Names = Annotated[tuple[str, ...], BeforeValidator(_listed)]
Texts = Annotated[tuple[str, ...], BeforeValidator(_tupled)]
Count = Annotated[int, Field(ge=0)]
Seed = Annotated[int, Field(ge=0, le=2**32 - 1)]
"""What NumPy's global generator takes."""
Positive = Annotated[int, Field(ge=1)]


class Section(BaseModel):
    """A group of settings, strict and frozen. `RunConfig.from_dict` rejects unknown settings before they get here."""

    model_config = ConfigDict(strict=True, frozen=True, extra="forbid")


class ModelSettings(Section):
    """The model, and how it is loaded."""

    model_name_or_path: str = Field("smollm2-135m", description="A folder, a hub name, or `smollm2-135m` (included).")
    adapter_name_or_path: Names = Field((), description="One or more adapter folders; a finished run is one.")
    model_revision: str = Field("main", description="Hub revision: a branch, tag or commit.")
    trust_remote_code: bool = Field(
        False, description="Has no effect in a file: only `--trust-remote-code` on the command line allows it."
    )
    dtype: Literal["auto", "bfloat16", "float32"] = Field(
        "auto", description="Dtype of weights and computation; auto: bfloat16 if the hardware supports it."
    )
    attn_implementation: Literal["auto", "eager", "sdpa", "flash_attention_2"] = Field(
        "auto", description="Attention implementation; auto: sdpa."
    )
    quantization_bit: Literal[4, 8] | None = Field(None, description="QLoRA: load the base model in 4 or 8 bits.")
    quantization_type: Literal["nf4", "fp4"] = Field("nf4", description="4-bit data type.")
    double_quantization: bool = Field(True, description="Also quantize the quantization constants.")
    device: Literal["auto", "cpu", "cuda", "mps", "xpu"] = Field(
        "auto", description="Device to run on; auto: a GPU if there is one."
    )
    use_cpu: bool = Field(False, description="Hugging Face Trainer's name for `device: cpu`.")
    infer_backend: BackendName = Field(
        "huggingface", description="What generates text: huggingface (Sartor's own engine), or a backend such as vllm."
    )


class DataSettings(Section):
    """Which rows to read, hold out and mix."""

    dataset: Names = Field((), description="Datasets to train on: names in dataset_info.json.")
    eval_dataset: Names = Field((), description="Datasets to evaluate or predict on: names in dataset_info.json.")
    dataset_dir: str = Field("data", description="Folder that contains dataset_info.json.")
    val_size: Number = Field(0.0, ge=0.0, description="Rows of `dataset` to hold out: a fraction below 1, or a count.")
    split_seed: Seed | None = Field(None, description="Random seed for the split and for max_samples; unset: `seed`.")
    max_samples: Positive | None = Field(
        None, description="Maximum number of rows from each dataset (a random sample)."
    )
    mix_strategy: Literal["concat", "interleave_under", "interleave_over"] = Field(
        "concat", description="How several datasets are combined."
    )
    interleave_probs: Annotated[tuple[Number, ...], BeforeValidator(_listed)] = Field(
        (), description="Sampling probability of each dataset when interleaving."
    )
    streaming: bool = Field(False, description="Read and encode rows while training; requires max_steps.")
    buffer_size: Positive = Field(16384, description="Size of the shuffle buffer when streaming, in rows.")
    max_skipped: Number = Field(
        0.05, ge=0.0, description="Stop if more rows than this are skipped: a fraction below 1, or a count."
    )
    encoding: str | None = Field(None, description="Text encoding of the data files; unset: detected.")


class PromptSettings(Section):
    """How a conversation becomes tokens, and which of them are trained on."""

    template: str | None = Field(
        None, description="Name of a template or a .jinja file; unset: the model's own chat template."
    )
    default_system: str | None = Field(
        None, description='System prompt for rows without one; "" removes the template\'s default.'
    )
    enable_thinking: bool | None = Field(None, description="Turn reasoning on or off; unset: the template's default.")
    cutoff_len: Positive = Field(2048, description="Maximum length of an example, in tokens.")
    overlong: Literal["skip", "truncate", "split"] = Field(
        "skip",
        description="What to do with longer examples: skip, with a reason; truncate; or split (stage pt only).",
    )
    mask_history: bool = Field(False, description="Train on the last answer of a conversation only.")
    history: Literal["split", "last", "as_rendered"] = Field(
        "split",
        description="Where the template renders earlier answers differently than when they were last (without "
        "their reasoning): split the conversation into a sequence for each; train on the last only; or train on all as "
        "rendered.",
    )
    train_on_prompt: bool = Field(False, description="Also train on the prompts.")


class MethodSettings(Section):
    """Training objective, and which weights are trained."""

    stage: StageName = Field("sft", description="Training objective.")
    finetuning_type: Literal["lora", "full", "freeze"] = Field("lora", description="Which weights are trained.")
    lora_rank: Positive = Field(8, description="Rank of the LoRA matrices.")
    lora_alpha: Positive | None = Field(None, description="LoRA scaling; unset: twice the rank.")
    lora_dropout: Fraction = Field(0.0, description="Dropout on the input of LoRA layers.")
    lora_target: Names = Field(
        ("all",), description="Names of the modules that get LoRA; `all`: every linear layer except the LM head."
    )
    additional_target: Names = Field(
        (), description="Modules trained in full alongside LoRA, such as embed_tokens and lm_head."
    )
    create_new_adapter: bool = Field(False, description="Merge the given adapters and train a new one.")
    use_rslora: bool = Field(False, description="Scale LoRA by alpha/√rank (rsLoRA).")
    use_dora: bool = Field(False, description="Weight-decomposed LoRA (DoRA).")
    pissa_init: bool = Field(False, description="Initialize LoRA with the principal singular vectors (PiSSA).")
    pissa_iter: int = Field(16, ge=-1, description="Iterations of the fast SVD for PiSSA; -1: exact SVD.")
    loraplus_lr_ratio: Number | None = Field(
        None, gt=0.0, description="Ratio of the learning rates of the LoRA matrices B and A (LoRA+)."
    )
    freeze_trainable_layers: int = Field(
        2, description="With freeze: number of last layers to train (negative: first layers)."
    )
    freeze_extra_modules: Names = Field((), description="With freeze: additional modules to train.")
    neftune_noise_alpha: Number | None = Field(
        None, ge=0.0, description="Strength of the noise on embeddings in training (NEFTune)."
    )
    pref_beta: Number = Field(0.1, ge=0.0, description="β of the preference loss.")
    pref_ftx: Number = Field(0.0, ge=0.0, description="Weight of an SFT loss added to the preference loss.")
    pref_loss: Literal["sigmoid", "hinge", "ipo", "kto_pair", "orpo", "simpo"] = Field(
        "sigmoid", description="Preference loss of stage dpo."
    )
    dpo_label_smoothing: Fraction = Field(0.0, description="Assumed fraction of flipped labels (cDPO).")
    simpo_gamma: Number = Field(0.5, description="Target margin of SimPO.")
    kto_chosen_weight: Number = Field(1.0, description="Weight of good answers in KTO.")
    kto_rejected_weight: Number = Field(1.0, description="Weight of bad answers in KTO.")
    ref_model: str | None = Field(None, description="Reference model; unset: the base model.")


class TrainSettings(Section):
    """Optimizer, schedule and checkpoints."""

    output_dir: str | None = Field(None, description="Run folder; unset: runs/<dataset>-<model>.")
    do_train: bool | None = Field(None, description="If set, must agree with the command.")
    overwrite_output_dir: bool = Field(False, description="Move a finished run to the trash and start over.")
    resume_from_checkpoint: bool | str | None = Field(
        None, description="Checkpoint to resume from; unset or true: the latest valid one."
    )
    num_train_epochs: Number = Field(3.0, gt=0.0, description="Number of epochs.")
    max_steps: int = Field(-1, ge=-1, description="Number of optimizer steps; overrides num_train_epochs if positive.")
    per_device_train_batch_size: Positive = Field(8, description="Rows per device and forward pass.")
    gradient_accumulation_steps: Positive = Field(1, description="Micro-batches per optimizer step.")
    learning_rate: Number = Field(5e-5, ge=0.0, description="Peak learning rate.")
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
    ] = Field("linear", description="Learning rate schedule.")
    lr_scheduler_kwargs: dict[str, Any] = Field(
        default_factory=dict, description="Options of the learning rate schedule."
    )
    warmup_ratio: Fraction = Field(0.0, description="Warmup as a fraction of all steps.")
    warmup_steps: Number = Field(0, ge=0.0, description="Warmup steps, or a fraction below 1; overrides warmup_ratio.")
    optim: OptimizerName = Field(
        "adamw_torch", description="Optimizer; adamw_torch uses the fused version if available."
    )
    weight_decay: Number = Field(0.0, ge=0.0, description="Decoupled weight decay, not applied to biases and norms.")
    adam_beta1: Decay = Field(0.9, description="β₁ of Adam.")
    adam_beta2: Decay = Field(0.999, description="β₂ of Adam.")
    adam_epsilon: Number = Field(1e-8, gt=0.0, description="ε of Adam.")
    max_grad_norm: Number = Field(1.0, ge=0.0, description="Maximum gradient norm for clipping; 0: no clipping.")
    bf16: bool | None = Field(None, description="Compute in bfloat16; unset: according to `dtype`.")
    fp16: bool = Field(False, description="Not supported; use bf16 or float32.")
    pure_bf16: bool = Field(False, description="Keep trained weights in bfloat16 instead of float32.")
    packing: bool = Field(False, description="Pack several examples into one row, without attention between them.")
    neat_packing: bool = Field(False, description="LLaMA-Factory's name for packing.")
    gradient_checkpointing: bool | None = Field(
        None, description="Recompute activations to save memory; unset: if memory requires it."
    )
    disable_gradient_checkpointing: bool = Field(
        False, description="LLaMA-Factory's name for `gradient_checkpointing: false`."
    )
    torch_compile: bool | None = Field(None, description="Compile the decoder layers; unset: if it saves time.")
    seed: Seed = Field(42, description="Random seed.")
    data_seed: Seed | None = Field(None, description="Random seed for the order of the data; unset: `seed`.")
    logging_steps: Positive = Field(1, description="Steps between lines of trainer_log.jsonl.")
    save_strategy: IntervalStrategy = Field("steps", description="When to save checkpoints.")
    save_steps: Number = Field(500, gt=0, description="Steps between checkpoints, or a fraction of all steps below 1.")
    save_total_limit: Positive | None = Field(None, description="Maximum number of checkpoints to keep.")
    save_only_model: bool = Field(
        False, description="Save checkpoints without optimizer state; they cannot be resumed."
    )
    load_best_model_at_end: bool = Field(
        False, description="Load the best checkpoint by metric_for_best_model at the end."
    )
    metric_for_best_model: Literal["eval_loss"] = Field(
        "eval_loss", description="Metric that selects the best checkpoint."
    )
    early_stopping_steps: Positive | None = Field(
        None, description="Stop after this many evaluations without improvement."
    )
    sample_steps: Count = Field(0, description="Steps between answers to `sample_prompts`; 0: never.")
    sample_prompts: Texts = Field((), description="Prompts to answer while training.")
    plot_loss: bool = Field(True, description="Plot training_loss.png.")
    report_to: Names = Field(
        ("none",), description="Experiment trackers: none, trackio, wandb, swanlab, mlflow, tensorboard."
    )
    run_name: str | None = Field(None, description="Name of the run in experiment trackers.")
    deepspeed: str | None = Field(None, description="DeepSpeed config file.")
    fsdp: bool | str | Names = Field(False, description="Shard the model with FSDP2.")


class EvaluationSettings(Section):
    """Evaluation during training, and predictions afterwards."""

    do_eval: bool | None = Field(None, description="If set, must agree with the command.")
    do_predict: bool | None = Field(None, description="If set, must agree with the command.")
    eval_strategy: IntervalStrategy | None = Field(
        None, description="When to measure held-out loss; unset: every epoch if rows are held out."
    )
    eval_steps: Number | None = Field(
        None, gt=0, description="Steps between evaluations, or a fraction of all steps below 1."
    )
    per_device_eval_batch_size: Positive = Field(8, description="Rows per device and forward pass in evaluation.")
    metrics: Names = Field(("all",), description="Names of metrics, or `all`.")
    primary_metric: str = Field("loss", description="The metric that decides the verdict.")
    margin: Number | None = Field(
        None,
        ge=0,
        description="Smallest difference in the primary metric that is worth having; unset: 1% of its range, of a loss "
        "2% of the base model's.",
    )
    forgetting_probe: bool = Field(
        True, description="Let compare ask both models sixty general questions, to see what was forgotten."
    )
    judge_endpoint: str | None = Field(None, description="URL of an OpenAI-compatible endpoint that judges answers.")
    judge_model: str | None = Field(None, description="Model name of the judge.")
    judge_labels: str | None = Field(None, description="JSONL file of human labels: `id`, and base, tuned or tie.")
    judge_api_key: str | None = Field(None, description="API key of the judge, as ${ENV_NAME}; never in plain text.")


class GenerationSettings(Section):
    """How answers are generated; recorded with every prediction."""

    do_sample: bool = Field(False, description="Sample instead of choosing the most likely token.")
    temperature: Number = Field(0.95, ge=0.0, description="Sampling temperature.")
    top_p: Fraction = Field(0.7, description="Nucleus sampling: the probability mass to sample from.")
    top_k: Count = Field(50, description="Sample from the k most likely tokens; 0: all.")
    num_beams: Literal[1] = Field(1, description="Beam search is not supported.")
    repetition_penalty: Number = Field(1.0, gt=0.0, description="Penalty on repeated tokens; 1: none.")
    max_new_tokens: Positive = Field(1024, description="Maximum length of an answer, in tokens.")
    stop: Texts = Field((), description="Strings that end an answer.")


class ExportSettings(Section):
    """Where an export is written."""

    export_dir: str | None = Field(None, description="Output folder of the export.")


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

FIRST_TRAINING: dict[str, Any] = {
    "model_name_or_path": "smollm2-135m",
    "stage": "sft",
    "finetuning_type": "lora",
    "lora_rank": 16,
    "val_size": 0.1,
    "cutoff_len": 1024,
    "learning_rate": 5e-4,
    "num_train_epochs": 4.0,
    "per_device_train_batch_size": 8,
    "lr_scheduler_type": "cosine",
    "warmup_ratio": 0.1,
    "save_steps": 50,
}
"""What a first training is advised to use, on the page, in the demo and in what the command line says to type next:
LoRA that visibly learns from a hundred rows in minutes. The defaults above are those that LLaMA-Factory's files
expect."""
