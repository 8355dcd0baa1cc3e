"""What all tests share: the tiny tokenizer and model as fixtures, how often to repeat, and a quiet environment."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest

from support.tiny import make_model, make_tokenizer

os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ["HF_HUB_OFFLINE"] = "1"
os.environ["SARTOR_LANG"] = "en"
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """The limits of `real` tests are for hangs, on a machine ten times slower too; what repeats is `trials`."""
    for item in items:
        if "trials" in getattr(item, "fixturenames", ()):
            item.add_marker(pytest.mark.trials)
        if item.get_closest_marker("real") and not item.get_closest_marker("timeout"):
            item.add_marker(pytest.mark.timeout(3600))


@pytest.fixture(scope="session")
def trials() -> int:
    """How often a test repeats what is random (kills, fuzz); `make trials` raises it."""
    return int(os.environ.get("SARTOR_TRIALS", "3"))


@pytest.fixture(scope="session")
def tiny_tokenizer() -> Any:
    return make_tokenizer()


@pytest.fixture
def tiny_model() -> Any:
    return make_model()


@pytest.fixture(scope="session")
def tiny_model_dir(tmp_path_factory: pytest.TempPathFactory, tiny_tokenizer: Any) -> Path:
    folder = tmp_path_factory.mktemp("tiny-model")
    make_model().save_pretrained(folder)
    tiny_tokenizer.save_pretrained(folder)
    return folder
