"""TRL's SFTTrainer on the rows of bench/train.py, in a process of its own; the argument is a job as JSON."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import torch
from datasets import Dataset
from peft import LoraConfig
from transformers import AutoTokenizer
from trl import SFTConfig, SFTTrainer

from train import SETTINGS

CHATML = (
    "{% for message in messages %}{{ '<|im_start|>' + message['role'] + '\n' + message['content'] + '<|im_end|>\n' }}"
    "{% endfor %}{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)


def main(job: dict[str, Any]) -> None:
    rows = json.loads(Path(job["data"]).read_text(encoding="utf-8"))
    tokenizer = AutoTokenizer.from_pretrained(job["model"])
    tokenizer.chat_template = CHATML
    dataset = Dataset.from_list(
        [
            {
                "prompt": [{"role": "system", "content": job["system"]}, {"role": "user", "content": r["instruction"]}],
                "completion": [{"role": "assistant", "content": r["output"]}],
            }
            for r in rows
        ]
    )
    tuned: dict[str, Any] = {"packing": True, "gradient_checkpointing": False} if job["tuned"] else {}
    arguments = SFTConfig(
        output_dir=job["out"],
        num_train_epochs=job["epochs"],
        max_length=SETTINGS["cutoff_len"],
        use_cpu=True,
        bf16=True,
        learning_rate=SETTINGS["learning_rate"],
        lr_scheduler_type="cosine",
        save_strategy="no",
        per_device_train_batch_size=SETTINGS["per_device_train_batch_size"],
        report_to="none",
        logging_steps=1,
        gradient_accumulation_steps=SETTINGS["gradient_accumulation_steps"],
        disable_tqdm=True,
        model_init_kwargs={"dtype": torch.bfloat16},
        **tuned,
    )
    lora = LoraConfig(
        r=SETTINGS["lora_rank"],
        lora_alpha=2 * SETTINGS["lora_rank"],
        target_modules="all-linear",
        task_type="CAUSAL_LM",
    )
    trainer = SFTTrainer(
        model=job["model"], args=arguments, train_dataset=dataset, processing_class=tokenizer, peft_config=lora
    )
    results = trainer.train()
    trainer.save_model(job["out"])
    Path(job["out"], "results.json").write_text(
        json.dumps({k: results.metrics[k] for k in ("train_runtime", "train_loss")}), encoding="utf-8"
    )


if __name__ == "__main__":
    main(json.loads(sys.argv[1]))
