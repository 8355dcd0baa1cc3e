"""A browser for all, and a folder of the tiny model."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from support.browsing import CHROMIUM, Server


@pytest.fixture(scope="package")
def browser() -> Iterator[Any]:
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        chromium = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        yield chromium
        chromium.close()


@pytest.fixture(scope="package")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    from support.tiny import make_model, make_tokenizer

    folder = tmp_path_factory.mktemp("models")
    make_model(max_position_embeddings=1024).save_pretrained(folder / "tiny")
    make_tokenizer().save_pretrained(folder / "tiny")
    return folder


@pytest.fixture
def server(tmp_path_factory: pytest.TempPathFactory, models: Path) -> Iterator[Server]:
    started = Server(tmp_path_factory.mktemp("workspace"), models)
    yield started
    started.kill()
