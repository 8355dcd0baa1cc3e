"""Every later command sees a run's own rows: whatever setting decided them, wherever it is called from."""

from __future__ import annotations

import json
import os
import typing
from pathlib import Path
from typing import Any

import pytest

from sartor import api
from sartor.api.prepare_data import PreparedRows
from sartor.api.resolve_target import config_for, settings_of
from sartor.api.run_rows import MAY_DIFFER, rows_of
from sartor.base.config import RunConfig, section_of
from sartor.base.errors import ConfigError, DataError, RunError
from sartor.base.settings import SECTIONS
from sartor.base.types import Ledger

DECIDE_ROWS = [*SECTIONS["data"].model_fields, *SECTIONS["prompt"].model_fields, "seed", "data_seed", "stage"]
OTHER_VALUES: dict[str, dict[str, Any]] = {
    "dataset": {"dataset": "chapters,more"},
    "eval_dataset": {"eval_dataset": "more"},
    "dataset_dir": {},
    "encoding": {"encoding": "utf-8"},
    "interleave_probs": {
        "mix_strategy": "interleave_under",
        "interleave_probs": [0.7, 0.3],
        "dataset": "chapters,more",
    },
    "mix_strategy": {"mix_strategy": "interleave_over", "dataset": "chapters,more"},
    "max_skipped": {"max_skipped": 0.9, "cutoff_len": 79},
    "cutoff_len": {"cutoff_len": 78, "max_skipped": 0.9},
    "history": {"history": "as_rendered"},
    "overlong": {"overlong": "truncate", "cutoff_len": 70},
    "template": {"template": "alpaca"},
    "default_system": {"default_system": "Answer in one sentence."},
    "streaming": {"streaming": True},
    "buffer_size": {"buffer_size": 4, "streaming": True},
    "stage": {"stage": "pt", "dataset": "novel"},
}
"""Where one cannot guess another value from the type, or it needs company."""


class Rows:
    """Keeps what the training was given."""

    def on_rows(self, rows: PreparedRows) -> None:
        self.rows = rows

    def on_event(self, event: Any) -> None: ...


def other_value(key: str) -> dict[str, Any]:
    if key in OTHER_VALUES:
        return OTHER_VALUES[key]
    field = SECTIONS[section_of()[key]].model_fields[key]
    if bool in (field.annotation, *typing.get_args(field.annotation)):
        return {key: not field.default}
    return {key: 19}


@pytest.fixture
def more(project: Path) -> Path:
    data = project / "data"
    registry = json.loads((data / "dataset_info.json").read_text(encoding="utf-8"))
    (data / "more.json").write_text(
        json.dumps([{"instruction": f"How much is {i} and {i}?", "output": f"It is {2 * i}."} for i in range(30)])
    )
    (data / "novel.json").write_text(json.dumps([{"text": f"Chapter {i}. It was a truth." * 3} for i in range(30)]))
    registry |= {
        "more": {"file_name": "more.json"},
        "novel": {"file_name": "novel.json", "columns": {"prompt": "text"}},
    }
    (data / "dataset_info.json").write_text(json.dumps(registry), encoding="utf-8")
    return project


@pytest.mark.parametrize("key", DECIDE_ROWS)
def test_a_run_keeps_its_rows_whatever_setting_decided_them(more: Path, settings: dict[str, Any], key: str) -> None:
    seen = Rows()
    run = api.train(**{**settings, "max_steps": 1, **other_value(key)}, callbacks=[seen])
    config = config_for(run.path)
    rows = rows_of(run.dir, config)
    assert [row.origin.id for row in rows.held_out] == [row.origin.id for row in seen.rows.held_out]
    assert [list(row.ids) for row in rows.held_out_ids] == [list(row.ids) for row in seen.rows.held_out_ids]
    if key not in ("streaming", "buffer_size"):
        assert rows.digest == seen.rows.digest
        assert rows.ledger == seen.rows.ledger


@pytest.mark.parametrize("key", [*SECTIONS["data"].model_fields, *SECTIONS["prompt"].model_fields])
def test_a_comparison_refuses_settings_that_would_choose_other_rows(
    trained: api.Run, monkeypatch: pytest.MonkeyPatch, key: str
) -> None:
    """And names the run's value; the same value again is none of its business."""
    monkeypatch.setattr("sartor.api.comparing.rows_of", lambda *_: pytest.fail("other rows were read"))
    (changed, value), *_ = [*other_value(key).items(), ("dataset_dir", "elsewhere")]
    if key in MAY_DIFFER:
        return
    with pytest.raises(ConfigError, match=f"{changed} was decided when the run was trained"):
        api.compare(trained, [f"{changed}={json.dumps(value)}"])


@pytest.fixture
def trained(more: Path, settings: dict[str, Any]) -> api.Run:
    return api.train(**{**settings, "cutoff_len": 79, "max_skipped": 0.9})


def test_train_predict_compare_and_check_count_the_same_rows(trained: api.Run) -> None:
    ledgers: list[Ledger] = []
    api.predict(trained.path, on_ledger=ledgers.append)
    api.compare(trained, ["cutoff_len=79", "forgetting_probe=false"], on_ledger=ledgers.append)
    recorded = trained.dir.read_json("data.json")["ledger"]
    assert recorded["skipped"]
    for ledger in ledgers:
        assert api.ledger_json(ledger) == recorded
    checked = api.check("chapters", settings_of(trained.dir))
    assert sum(finding.code == "overlong" for finding in checked.result.findings) == len(recorded["skipped"])
    assert checked.result.rows == recorded["training"] + recorded["held_out"] + len(recorded["skipped"])


def test_a_run_is_found_and_read_from_any_folder(
    more: Path, settings: dict[str, Any], tiny_model_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Relative paths of its settings start where the training was started."""
    (more / "model").symlink_to(tiny_model_dir)
    monkeypatch.chdir(more)
    given = {**settings, "model_name_or_path": "model", "output_dir": "runs/one"}
    given.pop("dataset_dir")
    run = api.train(**given)
    assert str(more) not in (run.path / "data.json").read_text(encoding="utf-8")
    for place in (run.path, more / "runs", Path("/")):
        monkeypatch.chdir(more)
        monkeypatch.chdir(place)
        path = Path(os.path.relpath(more / "runs" / "one"))
        predictions = api.predict(path)
        assert predictions.folder.resolve() == more / "runs" / "one" / "predictions" / "tuned-held_out"
        assert api.compare(path, ["forgetting_probe=false"]).primary.n == 8


def test_changed_data_is_named(trained: api.Run, more: Path) -> None:
    file = next((more / "data").glob("chapters*"))
    text = json.loads(file.read_text(encoding="utf-8"))
    file.write_text(json.dumps(text[:20]), encoding="utf-8")
    with pytest.raises(DataError, match=file.name):
        api.compare(trained)


def test_edited_texts_under_unchanged_ids_are_refused(trained: api.Run, more: Path) -> None:
    """Else the verdict would be about answers that nobody trained towards."""
    file = next((more / "data").glob("chapters*"))
    before = file.read_bytes()
    rows = json.loads(before)
    rows[0] = {name: f"{text} Edited." for name, text in rows[0].items()}
    file.write_text(json.dumps(rows), encoding="utf-8")
    for command in (api.compare, api.predict):
        with pytest.raises(DataError, match="differs from what the run was trained on") as error:
            command(trained.path)
        assert file.name in str(error.value.where)
    file.write_bytes(before)
    assert api.compare(trained, ["forgetting_probe=false"]).primary.metric == "loss"


def test_predictions_on_other_rows_go_below_the_run(trained: api.Run, more: Path) -> None:
    before = set(trained.path.iterdir())
    predictions = api.predict(trained.path, eval_dataset="more", max_samples=2)
    assert predictions.folder == trained.path / "predictions" / "tuned-more"
    assert set(trained.path.iterdir()) - before == {trained.path / "predictions"}
    elsewhere = api.predict(trained.path, eval_dataset="more", max_samples=2, output_dir=str(more / "out"))
    assert elsewhere.folder == more / "out"


def test_learned_rows_are_never_called_held_out(trained: api.Run, settings: dict[str, Any], tmp_path: Path) -> None:
    """Not even where another adapter than the last one learned them."""
    folder = str(tmp_path / "runs" / "other")
    other = api.train(**{**settings, "dataset": "more", "val_size": 0, "max_steps": 1, "output_dir": folder})
    learned = len(trained.dir.read_json("data.json")["split"]["train"])
    shown: list[Ledger] = []
    model = settings["model_name_or_path"]
    predictions = api.predict(
        RunConfig.from_dict({"model_name_or_path": model, "adapter_name_or_path": f"{trained.path},{other.path}"}),
        eval_dataset=settings["dataset"],
        dataset_dir=settings["dataset_dir"],
        output_dir=str(other.path / "both"),
        max_new_tokens=2,
        on_ledger=shown.append,
    )
    assert sum(row.seen_in_training for row in predictions.rows) == shown[0].training == learned
    assert shown[0].held_out == len(predictions.rows) - learned


def test_fewer_of_the_held_out_rows_can_be_predicted(trained: api.Run) -> None:
    held_out = trained.dir.read_json("data.json")["split"]["held_out"]
    assert [row.id for row in api.predict(trained.path, max_samples=3).rows] == held_out[:3]


def test_without_held_out_rows_there_is_something_to_type(more: Path, settings: dict[str, Any]) -> None:
    run = api.train(**{**settings, "val_size": 0, "max_steps": 1})
    for command, again in ((api.predict, "sartor predict "), (api.compare, "sartor compare base ")):
        with pytest.raises(RunError, match="no held-out rows") as error:
            command(run.path)
        assert f"{again}{run.path} eval_dataset=more" in str(error.value.fix)
        assert f"sartor train {run.dir.config} val_size=0.1 output_dir={run.path}-val" in str(error.value.fix)


def test_the_plan_names_the_model_where_the_settings_leave_it_out(trained: api.Run, settings: dict[str, Any]) -> None:
    """As with the default model: `base` is that one, not what a later version would take."""
    config = trained.dir.config.read_text(encoding="utf-8")
    trained.dir.config.write_text(config.replace(f"model_name_or_path: {settings['model_name_or_path']}\n", ""))
    assert "model_name_or_path" not in trained.dir.config.read_text(encoding="utf-8")
    assert settings_of(trained.dir).model.model_name_or_path == settings["model_name_or_path"]
    comparison = api.compare_several("base", trained.path, overrides=["max_new_tokens=2"])
    assert [candidate.name for candidate in comparison.candidates] == ["base", "one"]
    assert config_for(trained.path).given["model_name_or_path"] == settings["model_name_or_path"]
    assert RunConfig().model.model_name_or_path != settings["model_name_or_path"]


def test_a_runs_folder_is_a_settings_file(trained: api.Run) -> None:
    """`sartor check NAME runs/one`, with the settings that the run was trained with."""
    from sartor.cli.arguments import config_of

    assert config_of([str(trained.path)]).given == settings_of(trained.dir).given
    with pytest.raises(ConfigError, match="not a settings file"):
        config_of([str(trained.path.parent)])
