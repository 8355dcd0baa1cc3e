"""LLaMA-Factory's settings that Sartor ignores (and why) or does not support (and what to write instead)."""

from __future__ import annotations

from collections.abc import Mapping

from sartor.base.i18n import Text, tr

IGNORED_KEYS: Mapping[str, Text] = {
    "preprocessing_num_workers": tr("Encoding is a single fast pass and needs no workers."),
    "preprocessing_batch_size": tr("Encoding is a single fast pass without batches."),
    "dataloader_num_workers": tr("Batches are made from encoded rows in memory."),
    "dataloader_pin_memory": tr("Batches are made from encoded rows in memory."),
    "ddp_timeout": tr("When a rank dies, the job stops and names it; see docs/scale.md."),
    "ddp_find_unused_parameters": tr("Every trained weight is used in every step."),
    "overwrite_cache": tr("The token cache is keyed by content and never stale."),
    "tokenized_path": tr("Encoded rows are cached automatically."),
    "predict_with_generate": tr("predict always generates."),
    "include_num_input_tokens_seen": tr("Tokens are always counted."),
    "include_tokens_per_second": tr("Tokens per second are always measured."),
    "export_device": tr("Merging runs on the CPU in float32."),
    "export_size": tr("Hugging Face's default shard size is used."),
    "export_legacy_format": tr("Exports are always safetensors."),
    "use_fast_tokenizer": tr("The fast tokenizer is always used."),
    "split_special_tokens": tr("User text never becomes a control token."),
    "low_cpu_mem_usage": tr("Always enabled."),
    "flash_attn": tr("Set attn_implementation to choose a kernel; sdpa is the default."),
    "enable_liger_kernel": tr("The LM head runs on label positions only."),
    "use_unsloth": tr("Sartor uses its own training loop."),
    "upcast_layernorm": tr("Norms keep the model's dtype."),
    "remove_unused_columns": tr("Columns are named in dataset_info.json."),
    "disable_tqdm": tr("Progress adapts to the terminal."),
    "print_param_status": tr("The plan lists what is trained."),
    "save_safetensors": tr("Always enabled."),
    "hub_model_id": tr("Nothing is uploaded."),
    "push_to_hub": tr("Nothing is uploaded."),
    "eval_num_beams": tr("predict uses greedy decoding by default."),
    "ignore_pad_token_for_loss": tr("Padding is never trained on."),
    "cache_dir": tr("Set HF_HOME."),
    "hf_hub_token": tr("Set HF_TOKEN in the environment."),
    "bf16_full_eval": tr("Evaluation uses the training dtype."),
    "pissa_convert": tr("Always enabled: a PiSSA adapter is saved as a plain LoRA of the original base."),
    "include_effective_tokens_per_second": tr("Label tokens are always counted."),
    "eval_accumulation_steps": tr("Evaluation keeps sums, not logits."),
    "resize_vocab": tr("Sartor adds no tokens to the vocabulary."),
    "infer_dtype": tr("Set dtype."),
}
"""Setting → why it has no effect; listed in `plan.json`."""

SETTINGS_WITHOUT_EFFECT: Mapping[str, Text] = {
    "do_eval": tr("eval_strategy decides; held-out rows are evaluated whenever there are any."),
    "trust_remote_code": tr("Only --trust-remote-code (or Permissions in Python) allows a model's own code."),
}
"""Setting → why it has no effect; listed in `plan.json` like the ignored keys."""

UNSUPPORTED_KEYS: Mapping[str, Text] = {
    "fp16": tr("Use `bf16: true` or `dtype: float32`."),
    "quantization_method": tr("Quantization uses bitsandbytes; set only quantization_bit."),
    "use_galore": tr("To save optimizer memory, use `optim: adafactor` or `optim: muon`."),
    "use_apollo": tr("To save optimizer memory, use `optim: adafactor` or `optim: muon`."),
    "use_badam": tr("To save optimizer memory, use `optim: adafactor` or `optim: muon`."),
    "use_adam_mini": tr("Use `optim: adamw_8bit` or `optim: adafactor`."),
    "use_muon": tr("Use `optim: muon`."),
    "num_layer_trainable": tr("Use freeze_trainable_layers."),
    "lora_bf16_mode": tr("Use `pure_bf16: true`."),
    "reward_model": tr("Stage ppo is not supported; use dpo or kto."),
    "image_max_pixels": tr("Sartor does not train on images, audio or video yet."),
    "video_max_pixels": tr("Sartor does not train on images, audio or video yet."),
    "media_dir": tr("Sartor does not train on images, audio or video yet."),
    "rope_scaling": tr("Set rope_scaling in the model's own config.json."),
    "evaluation_strategy": tr("Use eval_strategy."),
    "use_llama_pro": tr("Use `finetuning_type: freeze`."),
    "shift_attn": tr("Not supported; use a model with the context length you need."),
    "torch_dtype": tr("Use dtype."),
    "efficient_eos": tr("Sartor trains the template's own end tokens."),
    "tool_format": tr("The template decides how tools are formatted."),
    "eval_on_each_dataset": tr("Each dataset is already scored separately; remove this key."),
    "new_special_tokens": tr("Sartor adds no tokens to the vocabulary; add them to the tokenizer first."),
    "add_tokens": tr("Sartor adds no tokens to the vocabulary; add them to the tokenizer first."),
    "add_special_tokens": tr("Sartor adds no tokens to the vocabulary; add them to the tokenizer first."),
    "max_length": tr("Use cutoff_len."),
    "max_seq_length": tr("Use cutoff_len."),
    "lora_r": tr("Use lora_rank."),
    "num_epochs": tr("Use num_train_epochs."),
    "epochs": tr("Use num_train_epochs."),
    "batch_size": tr("Use per_device_train_batch_size."),
    "lr": tr("Use learning_rate."),
}
"""Setting → what to use instead."""
