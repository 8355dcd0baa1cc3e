"""A small project: forty questions in a GBK CSV, imported, and settings that train the tiny model on them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from sartor import api


@pytest.fixture
def project(tmp_path: Path) -> Path:
    rows = "".join(f"{i},第{i}章的题目是什么?,第{i}章的题目是数字{i * 7}。\n" for i in range(1, 41))
    file = tmp_path / "问答.csv"
    file.write_bytes((",问题,答案\n" + rows).encode("gbk"))
    api.import_file(file, "chapters", dataset_dir=tmp_path / "data")
    return tmp_path


@pytest.fixture
def settings(project: Path, tiny_model_dir: Path) -> dict[str, Any]:
    return {
        "model_name_or_path": str(tiny_model_dir),
        "dataset": "chapters",
        "dataset_dir": str(project / "data"),
        "val_size": 8,
        "output_dir": str(project / "runs" / "one"),
        "max_steps": 4,
        "lora_rank": 4,
        "per_device_train_batch_size": 4,
        "learning_rate": 1e-2,
        "use_cpu": True,
        "dtype": "float32",
        "plot_loss": False,
        "max_new_tokens": 8,
        "metrics": ["rouge-l.char", "exact-match"],
    }
