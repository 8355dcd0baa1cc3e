"""Datasets of the two hubs, by their own clients, from a hub on loopback; afterwards offline, from their caches."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from support.hub_server import ROWS, hub

pytestmark = pytest.mark.real
ASK = """
import sys, json
from sartor import api
from sartor.base.errors import SartorError
try:
    loaded = api.load(sys.argv[1], sys.argv[2])
    print(json.dumps([[m.text for m in example.messages] for example in loaded.examples]))
except SartorError as error:
    print(json.dumps({"what": str(error.what), "where": str(error.where), "fix": str(error.fix)}))
"""


def load(name: str, home: Path, **environment: str) -> Any:
    """What a fresh process loads: the clients read their environment when they are imported."""
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", ASK, name, str(home / "data")],
        capture_output=True,
        text=True,
        env={
            **os.environ,
            "HF_HOME": str(home / "hf"),
            "MODELSCOPE_CACHE": str(home / "ms"),
            "HOME": str(home),
            "HF_HUB_DISABLE_TELEMETRY": "1",
            "HF_HUB_OFFLINE": "0",
            **environment,
        },
        timeout=120,
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout.splitlines()[-1])


@pytest.fixture
def home(tmp_path: Path) -> Path:
    entries = {
        "pairs": {"hf_hub_url": "org/pairs", "ms_hub_url": "org/pairs"},
        "held": {"hf_hub_url": "org/pairs", "split": "test"},
        "gone": {"hf_hub_url": "org/gone"},
    }
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "dataset_info.json").write_text(json.dumps(entries), encoding="utf-8")
    return tmp_path


def texts(rows: list[dict[str, str]]) -> list[list[str]]:
    return [[row["instruction"], row["output"]] for row in rows]


def test_hugging_face_and_its_cache(home: Path) -> None:
    refused = load("pairs", home, HF_HUB_OFFLINE="1", HF_ENDPOINT="http://127.0.0.1:9")
    assert "Could not load the dataset" in refused["what"]
    assert "hf:org/pairs" in refused["where"]
    with hub() as server:
        address = f"http://127.0.0.1:{server.server_port}"
        assert load("pairs", home, HF_ENDPOINT=address) == texts(ROWS[:3])
        assert load("held", home, HF_ENDPOINT=address) == texts(ROWS[3:])
        assert "Could not load the dataset" in load("gone", home, HF_ENDPOINT=address)["what"]
        assert any("resolve" in line for line in server.heard)  # type: ignore[attr-defined]
    assert load("pairs", home, HF_HUB_OFFLINE="1", HF_ENDPOINT=address) == texts(ROWS[:3])


def test_modelscope_and_its_cache(home: Path) -> None:
    with hub() as server:
        address = f"http://127.0.0.1:{server.server_port}"
        asked = {"USE_MODELSCOPE_HUB": "1", "MODELSCOPE_ENDPOINT": address}
        assert load("pairs", home, **asked) == texts(ROWS[:3])
        assert all("/api/v1/" in line for line in server.heard)  # type: ignore[attr-defined]
    assert load("pairs", home, **asked, HF_HUB_OFFLINE="1") == texts(ROWS[:3])
    refused = load("pairs", home, **asked, HF_HUB_OFFLINE="1", MODELSCOPE_CACHE=str(home / "empty"))
    assert "ms:org/pairs" in refused["where"]
