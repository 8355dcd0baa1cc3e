"""`make clean` removes what make made, and nothing of the user's."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


@pytest.mark.skipif(shutil.which("make") is None, reason="no make here")
@pytest.mark.parametrize("made_by_make", [True, False])
def test_clean_leaves_the_users_files(tmp_path: Path, made_by_make: bool) -> None:
    shutil.copy(ROOT / "Makefile", tmp_path)
    for name in ("runs/one", "data", "demo", "models", ".venv/bin", "test-results"):
        (tmp_path / name).mkdir(parents=True)
        (tmp_path / name / "mine").write_text("", encoding="utf-8")
    if made_by_make:
        (tmp_path / ".venv" / ".installed").touch()
    subprocess.run(["make", "clean"], cwd=tmp_path, check=True, capture_output=True)
    left = {path.name for path in tmp_path.iterdir()}
    assert left == {"Makefile", "runs", "data", "demo", "models"} | (set() if made_by_make else {".venv"})
    assert (tmp_path / "runs" / "one" / "mine").exists()
