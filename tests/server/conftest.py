"""The tiny model, base and tuned, and a server with it."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from sartor.base.settings import GenerationSettings
from sartor.inference.engine import Engine
from sartor.server.app import ServerSettings
from support.serving import LIMITS, Served
from support.tiny import make_model
from support.tiny_adapter import save_adapter


@pytest.fixture(scope="package")
def tuned_dir(tiny_model_dir: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_adapter(make_model(), tmp_path_factory.mktemp("adapter"), base=tiny_model_dir)


@pytest.fixture(scope="package")
def engine(tiny_model_dir: Path, tuned_dir: Path) -> Engine:
    return Engine.load(str(tiny_model_dir), tuned_dir, dtype="float32", device="cpu")


@pytest.fixture(scope="package")
def served(engine: Engine) -> Iterator[Served]:
    served = Served(engine, ServerSettings("tiny", GenerationSettings(max_new_tokens=24), LIMITS))
    yield served
    served.close()


@pytest.fixture
def tooled(engine: Engine, monkeypatch: pytest.MonkeyPatch) -> Engine:
    """The engine, prompting without tools: the tiny model's template has no place for them."""
    plain = engine.prompt
    monkeypatch.setattr(engine, "prompt", lambda messages, tools=(): plain(messages))
    return engine
