"""LLaMA-Factory's keys that Sartor does not use: accepted without effect (and why), or refused (and the way)."""

from __future__ import annotations

from collections.abc import Mapping

IGNORED_KEYS: Mapping[str, str] = {
    "preprocessing_num_workers": "Encoding is one fast pass; it needs no workers.",
    "preprocessing_batch_size": "Encoding is one fast pass; it has no batches.",
    "dataloader_num_workers": "Batches are cut from encoded rows in memory.",
    "dataloader_pin_memory": "Batches are cut from encoded rows in memory.",
    "ddp_timeout": "A killed rank ends the job by name; see docs/scale.md.",
    "ddp_find_unused_parameters": "Every trained weight is used in every step.",
    "overwrite_cache": "The token store is keyed by content and never stale.",
    "tokenized_path": "The token store keeps encoded rows by itself.",
    "predict_with_generate": "predict always generates.",
    "include_num_input_tokens_seen": "Tokens are always counted.",
    "include_tokens_per_second": "Tokens a second are always measured.",
    "export_device": "Merging happens on the CPU in float32.",
    "export_size": "Hugging Face's default shard size is used.",
    "export_legacy_format": "Exports are safetensors.",
    "use_fast_tokenizer": "The fast tokenizer is always used.",
    "split_special_tokens": "User text never becomes a control token here.",
    "low_cpu_mem_usage": "Always on.",
    "flash_attn": "Set attn_implementation to choose a kernel; sdpa is the default.",
    "enable_liger_kernel": "The vocabulary head runs on label positions only.",
    "use_unsloth": "Sartor's own loop is used.",
    "upcast_layernorm": "Norms keep the model's type.",
    "remove_unused_columns": "Columns are named in dataset_info.json.",
    "disable_tqdm": "Progress adapts to the terminal.",
    "print_param_status": "The plan lists what is trained.",
    "save_safetensors": "Always.",
    "hub_model_id": "Nothing is uploaded.",
    "push_to_hub": "Nothing is uploaded.",
    "eval_num_beams": "Greedy decoding is the default of predict.",
    "ignore_pad_token_for_loss": "Padding is never learned.",
    "cache_dir": "Set HF_HOME.",
    "hf_hub_token": "Set HF_TOKEN in the environment.",
    "bf16_full_eval": "Evaluation uses the training type.",
    "pissa_convert": "Always: a PiSSA adapter is saved as a plain LoRA over the original base.",
    "include_effective_tokens_per_second": "Label tokens are always counted.",
    "eval_accumulation_steps": "Evaluation keeps sums, not logits.",
    "resize_vocab": "Sartor adds no tokens.",
    "infer_dtype": "Set dtype.",
}
"""key → why it has no effect; listed in `plan.json`."""

SETTINGS_WITHOUT_EFFECT: Mapping[str, str] = {
    "do_eval": "eval_strategy decides; held-out rows are evaluated whenever there are any.",
    "trust_remote_code": "Only --trust-remote-code (or Permissions in Python) allows a model's own code.",
}
"""setting → why it has no effect; listed in `plan.json` like the ignored keys."""

UNSUPPORTED_KEYS: Mapping[str, str] = {
    "fp16": "Write `bf16: true`, or `dtype: float32`.",
    "quantization_method": "bitsandbytes is used; write only quantization_bit.",
    "use_galore": "Write `optim: adafactor` or `optim: muon` to save optimizer memory.",
    "use_apollo": "Write `optim: adafactor` or `optim: muon` to save optimizer memory.",
    "use_badam": "Write `optim: adafactor` or `optim: muon` to save optimizer memory.",
    "use_adam_mini": "Write `optim: adamw_8bit` or `optim: adafactor`.",
    "use_muon": "Write `optim: muon`.",
    "num_layer_trainable": "Write freeze_trainable_layers.",
    "lora_bf16_mode": "Write `pure_bf16: true`.",
    "reward_model": "Stage ppo is not offered; use dpo or kto.",
    "image_max_pixels": "Sartor does not train on media yet.",
    "video_max_pixels": "Sartor does not train on media yet.",
    "media_dir": "Sartor does not train on media yet.",
    "rope_scaling": "Set rope_scaling in the model's own config.json.",
    "evaluation_strategy": "Write eval_strategy.",
    "use_llama_pro": "Write `finetuning_type: freeze`.",
    "shift_attn": "Not offered; use a model of the length you need.",
    "torch_dtype": "Write dtype.",
    "efficient_eos": "Sartor trains the template's own end tokens.",
    "tool_format": "The template decides how tools are written.",
    "eval_on_each_dataset": "Each dataset is scored apart already; leave the key out.",
    "new_special_tokens": "Sartor adds no tokens; add them to the tokenizer first.",
    "add_tokens": "Sartor adds no tokens; add them to the tokenizer first.",
    "add_special_tokens": "Sartor adds no tokens; add them to the tokenizer first.",
    "max_length": "Write cutoff_len.",
    "max_seq_length": "Write cutoff_len.",
    "lora_r": "Write lora_rank.",
    "num_epochs": "Write num_train_epochs.",
    "epochs": "Write num_train_epochs.",
    "batch_size": "Write per_device_train_batch_size.",
    "lr": "Write learning_rate.",
}
"""key → what to write instead."""
