"""Several models over the same rows, one training with several seeds: fair rows, right differences, clear errors."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from sartor import api
from sartor.api import seed_sweep
from sartor.base.errors import ConfigError, DataError, EndpointError
from sartor.base.permissions import NOTHING_ALLOWED
from sartor.cli import main
from sartor.evaluation.difference import LOSS, compare_rows
from sartor.evaluation.verdict import Findings, Verdict, make_verdict

QUICK = ["metrics=rouge-l.char,exact-match"]


@pytest.fixture
def run(settings: dict[str, Any]) -> api.Run:
    return api.train(**settings, save_strategy="steps", save_steps=2)


@pytest.fixture
def endpoint() -> Iterator[tuple[str, list[dict[str, Any]]]]:
    """A server that knows every answer; (its address, the requests it heard)."""
    heard: list[dict[str, Any]] = []

    class Answers(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            asked = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            heard.append({**asked, "key": self.headers.get("Authorization")})
            number = int(asked["messages"][-1]["content"].split("章")[0][1:])
            text = f"第{number}章的题目是数字{number * 7}。"
            body = json.dumps({"choices": [{"message": {"content": text}}]}).encode()
            self.send_response(200)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: object) -> None: ...

    server = ThreadingHTTPServer(("127.0.0.1", 0), Answers)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}/v1#wise", heard
    server.shutdown()
    server.server_close()


def test_base_checkpoint_and_run_over_the_same_rows(run: api.Run) -> None:
    found = api.compare_several("base", run.path / "checkpoint-2", run.path, overrides=QUICK)
    alone = api.compare(run.path, [*QUICK, "forgetting_probe=false"])
    assert [c.name for c in found.candidates] == ["base", "one-checkpoint-2", "one"]
    same = ("metric", "base", "tuned", "difference", "n", "se", "margin")  # the same rows, losses and decoding
    assert [getattr(found.verdicts[1].primary, name) for name in same] == [
        getattr(alone.primary, name) for name in same
    ]
    assert len({c.answered_by for c in found.candidates}) == 3
    assert found.verdicts[0].primary.tuned != found.verdicts[1].primary.tuned
    assert {v.primary.comparisons for v in found.verdicts} == {len(found.verdicts)}
    written = json.loads((run.path / "comparisons" / "base-vs-one-checkpoint-2-vs-one" / "comparison.json").read_text())
    assert written == json.loads(json.dumps(found.to_json()))
    assert len(written["rows"]) == 8


def test_an_endpoint_is_compared_by_its_texts(
    run: api.Run, endpoint: tuple[str, list[dict[str, Any]]], monkeypatch: pytest.MonkeyPatch
) -> None:
    address, heard = endpoint
    monkeypatch.setenv("WISE_KEY", "secret-1")
    found = api.compare_several(run.path, address, overrides=QUICK, key_env="WISE_KEY")
    assert found.metric == "rouge-l.char"
    assert "wise reports no losses" in str(found.notes[0])
    assert found.candidates[1].scores["exact-match"].value == 100
    assert found.verdicts[0].primary.difference > 50
    assert found.verdicts[0].outcome == "not_proven"  # eight rows are too few for a claim
    assert any("at least 10" in str(note) for note in found.notes)
    assert {request["key"] for request in heard} == {"Bearer secret-1"}
    assert len(heard) == 8
    folder = run.path / "comparisons" / "one-vs-wise"
    assert "secret-1" not in "".join(file.read_text(encoding="utf-8") for file in folder.rglob("*.json*"))


def test_rows_that_one_of_them_learned_from_are_left_out(run: api.Run, settings: dict[str, Any], project: Path) -> None:
    other = api.train(**{**settings, "seed": 7, "output_dir": str(project / "runs" / "two")})
    mine, theirs = (set(r.dir.read_json("data.json")["split"]["held_out"]) for r in (run, other))
    found = api.compare_several(run.path, other.path, overrides=QUICK)
    assert set(found.row_ids) == mine & theirs
    assert str(found.notes[0]) == f"{8 - len(mine & theirs)} of 8 rows are left out: two was trained on them."
    everything = api.train(**{**settings, "val_size": 0, "output_dir": str(project / "runs" / "all")})
    with pytest.raises(DataError, match="No row is left"):
        api.compare_several(run.path, everything.path, overrides=QUICK)


def test_models_without_a_run_answer_the_rows_that_are_named(project: Path, tiny_model_dir: Path) -> None:
    asked = ["eval_dataset=chapters", f"dataset_dir={project / 'data'}", "max_samples=6", "max_new_tokens=4", *QUICK]
    found = api.compare_several(tiny_model_dir, tiny_model_dir, overrides=asked, out=project / "out")
    assert found.verdicts[0].primary.difference == 0
    assert found.verdicts[0].outcome == "not_proven"
    assert (project / "out" / "comparison.json").exists()


def test_rows_named_now_go_before_those_held_out(run: api.Run, project: Path) -> None:
    rows = [{"instruction": f"第{n}章写了什么？", "output": f"数字{n}。"} for n in range(3)]
    (project / "data" / "new.json").write_text(json.dumps(rows), encoding="utf-8")
    registry = project / "data" / "dataset_info.json"
    entries = {**json.loads(registry.read_text(encoding="utf-8")), "new": {"file_name": "new.json"}}
    registry.write_text(json.dumps(entries), encoding="utf-8")
    found = api.compare_several(run.path, "base", overrides=["eval_dataset=new", *QUICK])
    assert len(found.row_ids) == 3
    assert all(row.startswith("new") for row in found.row_ids)


def test_a_text_learned_under_another_name_is_left_out(run: api.Run, project: Path) -> None:
    learned = set(run.dir.read_json("data.json")["split"]["train"])
    rows = json.loads((project / "data" / "chapters.json").read_text(encoding="utf-8"))
    known = [row for number, row in enumerate(rows, 1) if f"chapters:{number}" in learned][:3]
    turns = [{**turn, "value": f"{turn['from']} 说了谁也没有学过的一句话。"} for turn in known[0]["conversations"]]
    new = [{**known[0], "conversations": turns}]
    assert len(known) == 3
    (project / "data" / "copy.json").write_text(json.dumps([*known, *new]), encoding="utf-8")
    registry = project / "data" / "dataset_info.json"
    entries = json.loads(registry.read_text(encoding="utf-8"))
    entries["copy"] = {**entries["chapters"], "file_name": "copy.json"}
    registry.write_text(json.dumps(entries), encoding="utf-8")
    found = api.compare_several(run.path, "base", overrides=["eval_dataset=copy", *QUICK])
    assert found.row_ids == ("copy:4",)
    assert str(found.notes[0]) == "3 of 4 rows are left out: one was trained on the same texts."


def test_what_cannot_be_compared_is_said(run: api.Run, tiny_model_dir: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ConfigError, match="at least two"):
        api.compare_several(run.path)
    with pytest.raises(ConfigError, match="names no model"):
        api.compare_several("http://127.0.0.1:9/v1", run.path, overrides=QUICK)
    monkeypatch.delenv("NO_SUCH_KEY", raising=False)
    with pytest.raises(ConfigError, match="NO_SUCH_KEY"):
        api.compare_several("http://127.0.0.1:9/v1#m", run.path, overrides=QUICK, key_env="NO_SUCH_KEY")
    monkeypatch.setattr("sartor.base.openai_client.ATTEMPTS", 1)
    with pytest.raises(EndpointError, match="did not answer"):
        api.compare_several("http://127.0.0.1:9/v1#m", run.path, overrides=QUICK)
    with pytest.raises(ConfigError, match="needs a run"):
        api.compare_several("base", tiny_model_dir)


def test_seeds_train_again_on_the_same_split_and_show_the_spread(run: api.Run) -> None:
    verdict = api.compare(run.path, [*QUICK, "forgetting_probe=false"], seeds=3)
    others = [run.path.with_name(f"one-seed-{seed}") for seed in (43, 44)]
    splits = [json.loads((folder / "data.json").read_text())["split"] for folder in (run.path, *others)]
    assert splits[0] == splits[1] == splits[2]
    assert verdict.spread is not None
    assert len(set(verdict.spread.differences)) == 3
    assert verdict.spread.differences[0] == verdict.primary.difference
    assert verdict.spread.low <= verdict.spread.mean <= verdict.spread.high
    stamps = [(folder / "events.jsonl").stat().st_mtime_ns for folder in others]
    again = api.compare(run.path, [*QUICK, "forgetting_probe=false"], seeds=3)
    assert again == verdict
    assert [(folder / "events.jsonl").stat().st_mtime_ns for folder in others] == stamps  # not trained twice


@pytest.mark.parametrize(("others", "outcome"), [((-0.4, -0.6), "better"), ((-0.4, 0.1), "not_proven")])
def test_what_depends_on_the_seed_is_not_proven(
    run: api.Run, monkeypatch: pytest.MonkeyPatch, others: tuple[float, ...], outcome: str
) -> None:
    base = [3.0 + i / 10 for i in range(20)]

    def verdict(change: float) -> Verdict:
        return make_verdict(Findings(compare_rows(base, [b + change for b in base], LOSS)))

    monkeypatch.setattr(seed_sweep, "train", lambda *_, **__: run)
    changes = iter(others)
    found = seed_sweep.with_spread(run.dir, verdict(-0.5), 3, lambda _: verdict(next(changes)), NOTHING_ALLOWED)
    assert found.outcome == outcome
    assert Verdict.from_json(run.dir.read_json("verdict.json")).outcome == outcome


@pytest.mark.parametrize("several", [True, False])
def test_the_margin_is_a_setting_a_keyword_and_an_option(
    run: api.Run, several: bool, capsys: pytest.CaptureFixture[str]
) -> None:
    targets = ("base", str(run.path)) if several else (str(run.path),)
    with pytest.raises(SystemExit):
        main(["compare", *targets, "--margin", "0.25", *QUICK, "forgetting_probe=false", "--json"])
    shown = json.loads(capsys.readouterr().out)
    assert (shown["verdicts"][0] if several else shown)["primary"]["margin"] == 0.25
    given = [*QUICK, "forgetting_probe=false"]
    if several:
        assert api.compare_several(*targets, overrides=given, margin=0.5).verdicts[0].primary.margin == 0.5
        assert api.compare_several(*targets, overrides=[*given, "margin=2"]).verdicts[0].primary.margin == 2
    else:
        assert api.compare(run.path, given, margin=0.5).primary.margin == 0.5
        assert api.compare(run.path, [*given, "margin=2"]).primary.margin == 2


def test_the_command_line_compares_one_and_several(run: api.Run, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as left:
        main(["compare", "base", str(run.path), *QUICK])
    assert left.value.code == 0
    assert "differences from base" in capsys.readouterr().out
    with pytest.raises(SystemExit):
        main(["compare", str(run.path), *QUICK, "forgetting_probe=false", "--json"])
    assert json.loads(capsys.readouterr().out)["primary"]["metric"] == "loss"
