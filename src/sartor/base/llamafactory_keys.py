"""LLaMA-Factory's arguments that are no settings here: without effect (and why), or refused (and what to write).

Together with the settings these are all arguments of LLaMA-Factory 0.9 and of transformers' Seq2SeqTrainingArguments,
and the keys of other files that people pass by mistake.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from sartor.base.i18n import Text, tr

_NOT_UPLOADED = tr("Nothing is uploaded.")
_ENCODING = tr("Encoding is a single fast pass and needs no workers.")
_BATCHES = tr("Batches are made from encoded rows in memory.")
_DISTRIBUTED = tr("Sartor sets up its own processes; see docs/scale.md.")
_EVALUATION = tr("Evaluation keeps sums, not logits.")
_LOGGING = tr("Every step's numbers are in events.jsonl; logging_steps sets the lines of trainer_log.jsonl.")
_SAVING = tr("Checkpoints are written as Sartor writes them, each complete.")
_PROFILING = tr("No profile is recorded.")
_VLLM = tr("The rows decide vLLM's length; its other options keep their defaults.")
_MEDIA = tr("Sartor does not train on images, audio or video yet.")
_SWANLAB = tr("SwanLab takes these from its environment variables.")
_GPU_OPTIONS = tr("A matter of speed or memory alone, which Sartor decides by itself.")

_IGNORED: tuple[tuple[Text, str], ...] = (
    (_ENCODING, "preprocessing_num_workers preprocessing_batch_size data_shared_file_system"),
    (
        _BATCHES,
        "dataloader_num_workers dataloader_pin_memory dataloader_persistent_workers dataloader_prefetch_factor "
        "dataloader_multiprocessing_context dataloader_in_order length_column_name split_batches dispatch_batches",
    ),
    (tr("The last batch of an epoch is used, however short."), "dataloader_drop_last"),
    (tr("When a rank dies, the job stops and names it; see docs/scale.md."), "ddp_timeout"),
    (tr("Every trained weight is used in every step."), "ddp_find_unused_parameters"),
    (
        _DISTRIBUTED,
        "ddp_bucket_cap_mb ddp_broadcast_buffers ddp_static_graph ddp_backend local_rank master_addr master_port "
        "ray_num_workers ray_init_kwargs ray_run_name ray_storage_path ray_storage_filesystem ray_scope "
        "placement_strategy resources_per_worker xpu_backend tpu_num_cores tpu_metrics_debug mp_parameters",
    ),
    (
        tr("FSDP2 shards every decoder layer."),
        "fsdp_config fsdp_transformer_layer_cls_to_wrap fsdp_min_num_params",
    ),
    (tr("The token cache is keyed by content and never stale."), "overwrite_cache"),
    (tr("Encoded rows are cached automatically."), "tokenized_path"),
    (tr("predict always generates."), "predict_with_generate"),
    (tr("Tokens are always counted."), "include_num_input_tokens_seen"),
    (tr("Tokens per second are always measured."), "include_tokens_per_second"),
    (tr("Label tokens are always counted."), "include_effective_tokens_per_second"),
    (tr("Merging runs on the CPU in float32."), "export_device"),
    (tr("Hugging Face's default shard size is used."), "export_size"),
    (tr("Exports are always safetensors."), "export_legacy_format"),
    (tr("The fast tokenizer is always used."), "use_fast_tokenizer"),
    (tr("User text never becomes a control token."), "split_special_tokens"),
    (tr("Always enabled."), "low_cpu_mem_usage save_safetensors average_tokens_across_devices use_kv_cache"),
    (tr("Set attn_implementation to choose a kernel; sdpa is the default."), "flash_attn use_flash_attention_2"),
    (
        tr("The LM head runs on label positions only."),
        "enable_liger_kernel use_liger_kernel liger_kernel_config enable_kernels",
    ),
    (tr("The loss is computed in float32."), "upcast_lmhead_output"),
    (tr("Sartor uses its own training loop."), "use_unsloth"),
    (
        _GPU_OPTIONS,
        "use_v1_kernels use_unsloth_gc use_reentrant_gc gradient_checkpointing_kwargs activation_checkpointing_kwargs "
        "torch_empty_cache_steps torch_compile_backend torch_compile_mode torchdynamo tf32 offload_folder use_cache "
        "jit_mode_eval use_ipex half_precision_backend fp16_opt_level fp16_backend",
    ),
    (tr("Norms keep the model's dtype."), "upcast_layernorm"),
    (tr("Columns are named in dataset_info.json."), "remove_unused_columns label_names"),
    (tr("Progress adapts to the terminal."), "disable_tqdm"),
    (tr("The plan lists what is trained."), "print_param_status"),
    (
        _NOT_UPLOADED,
        "hub_model_id push_to_hub hub_strategy hub_private_repo hub_always_push hub_revision export_hub_model_id "
        "push_to_hub_model_id push_to_hub_organization trackio_space_id trackio_bucket_id trackio_static_space_id",
    ),
    (tr("Experiment trackers take this from their own environment variables."), "project logging_dir"),
    (tr("predict uses greedy decoding by default."), "eval_num_beams"),
    (tr("Only for beam search, which is not supported."), "length_penalty"),
    (tr("Answers are text without control tokens."), "skip_special_tokens"),
    (tr("Padding is never trained on."), "ignore_pad_token_for_loss"),
    (tr("Set HF_HOME."), "cache_dir"),
    (tr("Set HF_TOKEN in the environment."), "hf_hub_token hub_token push_to_hub_token use_auth_token"),
    (tr("Set MODELSCOPE_API_TOKEN in the environment."), "ms_hub_token"),
    (tr("The Modelers hub is not used."), "om_hub_token"),
    (tr("Evaluation uses the training dtype."), "bf16_full_eval fp16_full_eval"),
    (tr("Always enabled: a PiSSA adapter is saved as a plain LoRA of the original base."), "pissa_convert"),
    (
        _EVALUATION,
        "eval_accumulation_steps eval_do_concat_batches eval_use_gather_object batch_eval_metrics prediction_loss_only "
        "include_for_metrics include_inputs_for_metrics",
    ),
    (tr("eval_strategy and eval_steps decide when held-out rows are evaluated."), "eval_on_start eval_delay"),
    (tr("Evaluation during training measures the loss; predict and compare measure the rest."), "compute_accuracy"),
    (tr("A lower held-out loss is better."), "greater_is_better"),
    (
        _LOGGING,
        "logging_strategy logging_first_step logging_nan_inf_filter log_on_each_node log_level log_level_replica",
    ),
    (
        _SAVING,
        "save_on_each_node enable_jit_checkpoint restore_callback_states_from_checkpoint "
        "use_legacy_prediction_loop past_index",
    ),
    (tr("A resumed run continues with the rows that it has not seen."), "ignore_data_skip"),
    (tr("Everything random is seeded."), "full_determinism"),
    (tr("The pre-flight tries the longest batch before the first step."), "auto_find_batch_size"),
    (
        _PROFILING,
        "debug skip_memory_metrics enable_torch_profiler profiler_output_dir profiler_wait_steps "
        "profiler_warmup_steps profiler_active_steps profiler_repeat profiler_record_shapes profiler_profile_memory "
        "profiler_with_stack profile_modules",
    ),
    (tr("Sartor adds no tokens to the vocabulary."), "resize_vocab init_special_tokens"),
    (tr("Set dtype."), "infer_dtype"),
    (_VLLM, "vllm_maxlen vllm_max_lora_rank vllm_gpu_util vllm_enforce_eager vllm_config"),
    (
        tr("SGLang is no backend here."),
        "sglang_maxlen sglang_mem_fraction sglang_tp_size sglang_config sglang_lora_backend",
    ),
    (tr("Sartor places the model itself."), "quantization_device_map"),
    (
        _MEDIA,
        "media_dir image_resolution image_max_pixels image_min_pixels image_do_pan_and_scan crop_to_patches "
        "video_max_pixels video_min_pixels video_fps video_maxlen use_audio_in_video audio_sampling_rate",
    ),
    (
        _SWANLAB,
        "swanlab_project swanlab_workspace swanlab_run_name swanlab_mode swanlab_api_key swanlab_logdir "
        "swanlab_lark_webhook_url swanlab_lark_secret",
    ),
    (
        tr("Only has an effect with {setting}.", setting="use_galore"),
        "galore_target galore_rank galore_update_interval galore_scale galore_proj_type galore_layerwise",
    ),
    (
        tr("Only has an effect with {setting}.", setting="use_apollo"),
        "apollo_target apollo_rank apollo_update_interval apollo_scale apollo_proj apollo_proj_type "
        "apollo_scale_type apollo_layerwise apollo_scale_front",
    ),
    (
        tr("Only has an effect with {setting}.", setting="use_badam"),
        "badam_mode badam_start_block badam_switch_mode badam_switch_interval badam_update_ratio badam_mask_mode "
        "badam_verbose",
    ),
    (
        tr("Only has an effect with {setting}.", setting="finetuning_type: oft"),
        "module_dropout oft_rank oft_block_size oft_target",
    ),
    (
        tr("Only has an effect with {setting}.", setting="stage: ppo"),
        "ppo_buffer_size ppo_epochs ppo_score_norm ppo_target ppo_whiten_rewards reward_model_adapters "
        "reward_model_quantization_bit reward_model_type",
    ),
    (tr("Only has an effect with {setting}.", setting="fp8"), "fp8_backend fp8_enable_fsdp_float8_all_gather"),
    (tr("Only has an effect with {setting}.", setting="use_asft_loss"), "asft_alpha"),
    (tr("Only has an effect with {setting}.", setting="use_eaft_loss"), "eaft_alpha"),
    (
        tr("Only has an effect with {setting}.", setting="use_kt"),
        "kt_weight_path kt_expert_checkpoint_path kt_use_lora_experts kt_lora_expert_num "
        "kt_lora_expert_intermediate_size",
    ),
    (tr("Only has an effect with {setting}.", setting="use_hyper_parallel"), "hyper_parallel_args"),
    (
        tr("Only has an effect with {setting}.", setting="export_quantization_bit"),
        "export_quantization_dataset export_quantization_nsamples export_quantization_maxlen",
    ),
)
"""Why a key has no effect, and the keys."""

IGNORED_KEYS: Mapping[str, Text] = {key: why for why, keys in _IGNORED for key in keys.split()}
"""Setting → why it has no effect; listed in `plan.json`."""

SETTINGS_WITHOUT_EFFECT: Mapping[str, Text] = {
    "do_eval": tr("eval_strategy decides; held-out rows are evaluated whenever there are any."),
    "trust_remote_code": tr("Only --trust-remote-code (or Permissions in Python) allows a model's own code."),
}
"""Setting → why it has no effect; listed in `plan.json` like the ignored keys."""

_CROSS_ENTROPY = tr("Stage sft trains on cross-entropy; remove this key.")
_TEXT_MODEL = tr("Only the language model is trained; remove this key.")
_NO_TOKENS = tr("Sartor adds no tokens to the vocabulary; add them to the tokenizer first.")
_PARALLELISM = tr("Use `fsdp: full_shard` or a `deepspeed` file; see docs/scale.md.")
_ACCELERATE = tr(
    "This is a file for `accelerate launch`. Give a training file instead, and start several processes with torchrun; "
    "see docs/scale.md."
)
_MEGATRON = tr("Megatron is not supported; use `fsdp: full_shard` or a `deepspeed` file, and see docs/scale.md.")
_LLAMAFACTORY_1 = tr(
    "This is a key of LLaMA-Factory's v1 files, which are not read here. Write the keys of its other examples: "
    "model_name_or_path, dataset, finetuning_type, per_device_train_batch_size."
)
_OPTIMIZER_MEMORY = tr("To save optimizer memory, use `optim: adafactor` or `optim: adamw_8bit`.")

_UNSUPPORTED: tuple[tuple[Text, Mapping[str, Any]], ...] = (
    (tr("Use `bf16: true` or `dtype: float32`."), {"fp16": False}),
    (tr("Remove this key: Sartor trains in bfloat16 or float32."), {"fp8": False}),
    (
        tr("Quantization uses bitsandbytes; set only quantization_bit."),
        {"quantization_method": ("bnb", "bitsandbytes")},
    ),
    (_OPTIMIZER_MEMORY, {"use_galore": False, "use_apollo": False, "use_badam": False, "use_adam_mini": False}),
    (tr("Use `optim: muon`."), {"use_muon": False}),
    (tr("Use `optim: adafactor`."), {"adafactor": False}),
    (tr("Remove this key: optimizers take learning_rate, weight_decay and adam_*."), {"optim_args": None}),
    (tr("Remove this key: the optimizer updates all trained weights."), {"optim_target_modules": None}),
    (tr("Remove this key: A and B differ by loraplus_lr_ratio alone."), {"loraplus_lr_embedding": 1e-6}),
    (tr("Use freeze_trainable_layers."), {"num_layer_trainable": None}),
    (
        tr("Remove this key: freeze trains whole layers, and freeze_extra_modules besides."),
        {"freeze_trainable_modules": ("all", ["all"])},
    ),
    (tr("Use `pure_bf16: true`."), {"lora_bf16_mode": False}),
    (tr("Stage ppo is not supported; use dpo or kto."), {"reward_model": None}),
    (tr("Set rope_scaling in the model's own config.json."), {"rope_scaling": None}),
    (tr("Use eval_strategy."), {"evaluation_strategy": None, "evaluate_during_training": False}),
    (tr("Use `finetuning_type: freeze`."), {"use_llama_pro": False}),
    (tr("Not supported; use a model with the context length you need."), {"shift_attn": False}),
    (tr("Not supported; remove this key."), {"mixture_of_depths": None, "train_from_scratch": False}),
    (tr("Use dtype."), {"torch_dtype": None}),
    (tr("Sartor trains the template's own end tokens."), {"efficient_eos": False}),
    (tr("The template decides how tools are formatted."), {"tool_format": None}),
    (tr("The template decides what becomes of earlier reasoning."), {"preserve_thinking": False}),
    (tr("Each dataset is already scored separately; remove this key."), {"eval_on_each_dataset": False}),
    (
        _NO_TOKENS,
        {
            "new_special_tokens": None,
            "add_tokens": None,
            "add_special_tokens": None,
            "new_special_tokens_config": None,
        },
    ),
    (tr("Write the whole path in adapter_name_or_path."), {"adapter_folder": None}),
    (tr("Remove this key: the router's auxiliary loss is not added."), {"moe_aux_loss_coef": None}),
    (_CROSS_ENTROPY, {"use_dft_loss": False, "use_asft_loss": False, "use_eaft_loss": False}),
    (tr("Remove this key: labels are not smoothed."), {"label_smoothing_factor": 0.0}),
    (tr("Remove this key: the preference losses are those of pref_loss."), {"pref_bco_weight": 0.0, "ld_alpha": None}),
    (tr("Merge them into a model and name it in ref_model."), {"ref_model_adapters": None}),
    (tr("Use quantization_bit."), {"ref_model_quantization_bit": None, "load_in_4bit": False, "load_in_8bit": False}),
    (
        _TEXT_MODEL,
        {"freeze_vision_tower": True, "freeze_multi_modal_projector": True, "freeze_language_model": False},
    ),
    (
        tr("Rows are shuffled in every epoch; remove this key."),
        {"disable_shuffling": False, "train_sampling_strategy": "random", "sortish_sampler": False},
    ),
    (tr("Use `packing: true`."), {"group_by_length": False}),
    (tr("Use `report_to: swanlab`."), {"use_swanlab": False}),
    (tr("KTransformers is not supported; remove this key."), {"use_kt": False, "kt_config": None}),
    (_MEGATRON, {"use_mca": False, "tensor_model_parallel_size": 1, "pipeline_model_parallel_size": 1}),
    (
        _MEGATRON,
        {"expert_model_parallel_size": 1, "sequence_parallel": False, "use_distributed_optimizer": False},
    ),
    (_PARALLELISM, {"use_hyper_parallel": False, "accelerator_config": None, "parallelism_config": None}),
    (tr("Export to GGUF instead: sartor export RUN --to gguf."), {"export_quantization_bit": None}),
    (tr("Use max_new_tokens."), {"generation_max_length": None}),
    (tr("Beam search is not supported; remove this key."), {"generation_num_beams": (None, 1)}),
    (tr("Set do_sample, temperature, top_p and top_k instead."), {"generation_config": None}),
    (tr("Use gradient_checkpointing."), {"activation_checkpointing": None}),
    (tr("Use `device: cpu`."), {"no_cuda": False}),
    (tr("Use `device: mps`."), {"use_mps_device": False}),
    (
        tr("Use per_device_train_batch_size and per_device_eval_batch_size."),
        {"per_gpu_train_batch_size": None, "per_gpu_eval_batch_size": None, "batch_size": None},
    ),
    (tr("Use cutoff_len for examples and max_new_tokens for answers."), {"max_length": 1024}),
    (tr("Use cutoff_len."), {"max_seq_length": None}),
    (tr("Use lora_rank."), {"lora_r": None}),
    (tr("Use num_train_epochs."), {"num_epochs": None, "epochs": None}),
    (tr("Use learning_rate."), {"lr": None}),
    (_ACCELERATE, {"compute_environment": None, "distributed_type": None, "main_process_ip": None}),
    (_LLAMAFACTORY_1, {"model": None, "model_class": None, "train_dataset": None, "peft_config": None}),
    (_LLAMAFACTORY_1, {"dist_config": None, "quant_config": None, "kernel_config": None, "init_config": None}),
    (_LLAMAFACTORY_1, {"micro_batch_size": None, "global_batch_size": None, "batching_strategy": None}),
)
"""What to write instead of a key, and the key with the value (or values) that changes nothing."""

UNSUPPORTED_KEYS: Mapping[str, Text] = {key: instead for instead, keys in _UNSUPPORTED for key in keys}
"""Setting → what to use instead."""

_NEUTRAL: Mapping[str, tuple[Any, ...]] = {
    key: value if isinstance(value, tuple) else (value,) for _, keys in _UNSUPPORTED for key, value in keys.items()
}


def changes_nothing(key: str, value: Any) -> bool:
    """True for a value of an unsupported key that asks for nothing: its default, null, and empty; also false and 0
    where the default is not true."""
    neutral = _NEUTRAL[key]
    switched_off = value is False and any(default is True for default in neutral)
    return value is None or value in neutral or (not value and not switched_off)
