"""What a resumed training says, the times of a progress bar, and answers from a run that is not finished."""

from __future__ import annotations

import io
import sys
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from sartor import api
from sartor.base.errors import Interrupted
from sartor.cli.console import BarProgress, Clock
from support.commands import run as command
from support.process_runs import project_settings


class Stop:
    def on_event(self, event: Any) -> None:
        if event["kind"] == "step" and event["step"] == 3:
            raise Interrupted(9, "killed")


@pytest.fixture
def interrupted(tmp_path: Path, tiny_model_dir: Path) -> Path:
    settings = project_settings(tmp_path, tiny_model_dir, longest=1, val_size=4, max_steps=4, save_steps=1)
    with pytest.raises(Interrupted):
        api.train(**settings, callbacks=[Stop()])
    return tmp_path / "one"


def words(run: Path) -> list[str]:
    return [str(run / "config.yaml")]


def test_a_resumed_training_says_where_it_goes_on(interrupted: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert command("train", *words(interrupted)) == 0
    assert "resuming after step 2 (checkpoint-2)" in capsys.readouterr().err


def test_without_a_checkpoint_it_says_that_it_starts_over(
    interrupted: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for folder in interrupted.glob("checkpoint-*"):
        (folder / "sartor_manifest.json").unlink()
    assert command("train", *words(interrupted)) == 0
    said = capsys.readouterr().err
    assert "checkpoint-2: it has no manifest" in said
    assert "the training starts over at step 1" in said


def test_chat_takes_the_newest_whole_checkpoint_and_names_it(
    interrupted: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    for target, step in ((interrupted, 2), (interrupted / "checkpoint-1", 1)):
        monkeypatch.setattr(sys, "stdin", io.StringIO("/exit\n"))
        assert command("chat", target, "max_new_tokens=2") == 0
        assert f"Weights of step {step}: {interrupted / f'checkpoint-{step}'}" in capsys.readouterr().out
    (interrupted / "checkpoint-2" / "adapter_model.safetensors").write_bytes(b"")
    monkeypatch.setattr(sys, "stdin", io.StringIO("/exit\n"))
    assert command("chat", interrupted) == 0
    assert "Weights of step 1" in capsys.readouterr().out


@pytest.mark.parametrize("word", ["predict", "export", "compare"])
def test_what_counts_wants_final_weights_or_a_named_checkpoint(
    interrupted: Path, capsys: pytest.CaptureFixture[str], word: str
) -> None:
    assert command(word, interrupted) == 1
    said = capsys.readouterr().err
    assert "No weights in this folder" in said
    assert "checkpoint-2" in said


def test_left_is_not_elapsed() -> None:
    moment = [0.0]
    clock = Clock(lambda: moment[0])

    def at(seconds: float, done: int, total: int | None = 40) -> str:
        moment[0] = seconds
        return str(clock.times(done, total))

    assert at(10, 21) == "0:00:10 elapsed", "resumed: twenty steps were not taken in ten seconds"
    assert at(15, 22) == f"0:00:15 elapsed, {timedelta(seconds=90)} left"
    assert at(105, 40) == "0:01:45 elapsed, 0:00:00 left"
    assert at(106, 41, None) == "0:01:46 elapsed"


def test_a_bar_shows_the_time_left_that_it_was_told() -> None:
    moment, shown = [0.0], {}
    bar = BarProgress(lambda **fields: shown.update(fields), Clock(lambda: moment[0]))
    moment[0] = 10.0
    bar.time_left(None)
    bar(1, 100)
    assert shown["times"] == "0:00:10 elapsed"
    bar.time_left(75.4)
    bar(2, 100)
    assert shown["times"] == "0:00:10 elapsed, 0:01:15 left"
    moment[0] = 20.0
    bar(3, 100)  # nobody told: the clock's own, which begins now
    assert shown["times"] == "0:00:20 elapsed"
    moment[0] = 21.0
    bar(4, 100)
    assert shown["times"] == "0:00:21 elapsed, 0:01:36 left"
