"""Jobs run one at a time, in their order, as processes of their own; their state is in files alone."""

from __future__ import annotations

import json
import os
import sys
import threading
from pathlib import Path
from types import SimpleNamespace
from typing import Any, ClassVar, get_args

import pytest

from sartor.base.config import to_yaml
from sartor.base.errors import ConfigError, RunError, SartorError
from sartor.base.locks import file_lock
from sartor.base.process import ProcessIdentity
from sartor.web import jobs as queue
from sartor.web import worker
from sartor.web.chat_models import ChatModels
from sartor.web.form import free_name
from sartor.web.jobs import Job, Jobs
from sartor.web.pages.train import TrainForm, _beginning
from sartor.web.queue_view import page_of
from sartor.web.workspace import Workspace


class Child:
    """A process that is not one."""

    pid = os.getpid()
    options: ClassVar[list[dict[str, Any]]] = []

    def __init__(self, words: list[str], **options: Any) -> None:
        self.options.append(options)
        assert words[0] == sys.executable
        assert options["start_new_session"], "it must outlive the server"

    def poll(self) -> None:
        return None


@pytest.fixture
def jobs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Jobs:
    monkeypatch.setattr(queue.subprocess, "Popen", Child)
    monkeypatch.setenv(queue.VISIBLE, "")
    return Jobs(tmp_path / "jobs", tmp_path)


def test_one_at_a_time_in_their_order(jobs: Jobs) -> None:
    first, second, third = (jobs.add("train", name, settings="s.yaml") for name in "abc")
    assert [job.state() for job in (first, second, third)] == ["running", "waiting", "waiting"]
    second.stop()
    assert second.state() == "stopped", "what waits leaves the queue"
    first.write("ended.json", {"exit": 0})
    jobs.advance()
    assert [job.state() for job in (first, second, third)] == ["done", "stopped", "running"]


def test_each_gpu_has_a_line_of_its_own_and_a_run_never_two_processes(
    jobs: Jobs, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(queue.VISIBLE, "2,5")
    assert queue.devices() == ("2", "5")
    kinds: tuple[tuple[queue.Kind, str], ...] = (("train", "a"), ("compare", "a"), ("train", "b"), ("train", "c"))
    first, again, second, third = (jobs.add(kind, name, settings="s.yaml") for kind, name in kinds)
    assert [job.state() for job in (first, again, second, third)] == ["running", "waiting", "running", "waiting"]
    assert [(job.read("started.json") or {})["device"] for job in (first, second)] == ["2", "5"]
    assert [options["env"][queue.VISIBLE] for options in Child.options[-2:]] == ["2", "5"]
    second.write("ended.json", {"exit": 0})
    jobs.advance()
    assert (third.read("started.json") or {})["device"] == "5"
    assert again.state() == "waiting", "the run has a process already"


def test_gpus_are_counted_without_loading_torch(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(queue.VISIBLE, raising=False)
    assert queue.devices(tmp_path / "none") == ("",)
    for name in ("0000:1b:00.0", "0000:2c:00.0"):
        (tmp_path / "gpus" / name).mkdir(parents=True)
    assert queue.devices(tmp_path / "gpus") == ("0", "1")
    monkeypatch.setenv(queue.VISIBLE, "")
    assert queue.devices(tmp_path / "gpus") == ("",), "hidden ones are not used"


def test_what_waits_is_started_by_the_next_server(jobs: Jobs, tmp_path: Path) -> None:
    first, second = (jobs.add("train", name, settings="s.yaml") for name in "ab")
    del jobs
    first.write("ended.json", {"exit": 0})
    other = Jobs(tmp_path / "jobs", tmp_path)
    assert [job.state() for job in other.all()] == ["done", "waiting"]
    other.advance()
    assert second.state() == "running"


def test_another_server_sees_the_same(jobs: Jobs, tmp_path: Path) -> None:
    job = jobs.add("train", "a", settings="s.yaml")
    other = Jobs(tmp_path / "jobs", tmp_path)
    assert [(j.id, j.state()) for j in other.all()] == [(job.id, "running")]
    assert other.of("a", "train") == job
    assert other.of("a", "export") is None


def test_a_process_that_died_or_whose_number_is_anothers_now_has_failed(jobs: Jobs) -> None:
    job = jobs.add("train", "a", settings="s.yaml")
    here = ProcessIdentity.of().to_json()
    for other in ({"born": 1.0}, {"pid": 2**22 + 5}, {"boot": "an earlier one"}):
        job.write("started.json", {"process": {**here, **other}})
        assert job.state() == "failed"
    job.write("started.json", {"process": here})
    assert job.state() == "running"


def test_a_job_whose_server_died_before_it_could_write_is_not_started_twice(jobs: Jobs, tmp_path: Path) -> None:
    job = jobs.add("train", "a", settings="s.yaml")
    (job.path / "started.json").unlink()
    with file_lock(job.worker):
        assert job.state() == "running", "its process holds the lock"
        with pytest.raises(SartorError, match="In use"):
            worker.main(job.path)
    assert job.read("ended.json") is None
    assert job.state() == "waiting"


def test_a_queued_run_has_its_name_before_it_has_a_folder(jobs: Jobs, tmp_path: Path) -> None:
    workspace = Workspace(tmp_path)
    assert free_name(workspace, "a", jobs.runs_to_come()) == "runs/a"
    jobs.add("train", "a", settings="s.yaml")
    assert free_name(workspace, "a", jobs.runs_to_come()) == "runs/a-2"


def test_the_queue_leads_to_the_page_where_the_work_is_seen(tmp_path: Path) -> None:
    for kind in get_args(queue.Kind):
        place = page_of(Job(tmp_path, kind, "a b/?c", {}))
        assert place.startswith(("/runs/", "/generate?name=", "/train?", "/evaluate?run=", "/export?run="))
        assert place.endswith("a%20b%2F%3Fc")
    assert page_of(Job(tmp_path, "compare_many", "a", {})) == "/evaluate?run=a"


def test_the_worker_writes_how_it_ended(tmp_path: Path) -> None:
    (tmp_path / "j").mkdir()
    job = Job(tmp_path / "j", "train", "a", {"settings": str(tmp_path / "gone.yaml")})
    job.write("job.json", {"kind": job.kind, "run": job.run, "arguments": dict(job.arguments)})
    assert worker.main(job.path) == 1
    ended = json.loads((job.path / "ended.json").read_text(encoding="utf-8"))
    assert "not found" in ended["what"]["text"]
    assert job.state() == "failed"


def test_a_second_click_starts_nothing(jobs: Jobs, tmp_path: Path) -> None:
    """One training a run: neither another job, nor other settings for the one that waits."""
    settings = tmp_path / "a.yaml"
    first = jobs.add("train", "a", prepare=lambda: settings.touch(), settings="a.yaml")
    waiting = jobs.add("train", "b", settings="b.yaml")
    for run in ("a", "b"):
        with pytest.raises(RunError, match="The queue has this job already") as error:
            jobs.add("train", run, prepare=lambda: settings.write_text("other"), settings="c.yaml")
        assert error.value.code == "queued"
    assert settings.read_text(encoding="utf-8") == ""
    assert [job.id for job in jobs.all()] == [first.id, waiting.id]
    waiting.stop()
    assert jobs.add("train", "b", settings="b.yaml").state() == "waiting"


def test_the_same_job_is_queued_once_and_others_of_a_run_follow_it(jobs: Jobs) -> None:
    jobs.add("train", "a", settings="a.yaml")
    jobs.add("export", "a", to="gguf")
    jobs.add("export", "a", to="merged")
    jobs.add("estimate", "a", settings="a.yaml")
    jobs.add("estimate", "a", settings="a.yaml")  # it may have other settings by now
    with pytest.raises(RunError, match="already"):
        jobs.add("export", "a", to="merged")
    assert len(jobs.all()) == 5


def test_of_clicks_at_once_one_counts(jobs: Jobs) -> None:
    refused = []

    def click() -> None:
        try:
            jobs.add("train", "a", settings="a.yaml")
        except RunError as error:
            refused.append(error.code)

    threads = [threading.Thread(target=click) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert refused == ["queued"] * 7
    assert len(jobs.all()) == 1


@pytest.mark.parametrize("given", [{}, {"output_dir": "runs/mine"}])
def test_a_double_click_on_the_train_page_starts_one_run(jobs: Jobs, tmp_path: Path, given: dict[str, Any]) -> None:
    """Also where the page chooses the run's name, and whatever was changed in between."""
    shown: list[SartorError | None] = []
    form = TrainForm(Workspace(tmp_path), jobs, str, {"dataset": "d", **given})  # type: ignore[arg-type]
    form.yaml, form.show_error = SimpleNamespace(value=""), shown.append  # type: ignore[assignment, method-assign]
    first = form._add("train")
    assert first is not None
    form.settings["lora_rank"] = 4
    assert form._add("train") is None
    assert shown[-1] is not None
    assert shown[-1].code == "queued"
    assert "lora_rank" not in Path(first.arguments["settings"]).read_text(encoding="utf-8")
    estimate = form._add("estimate")
    assert estimate is not None
    assert estimate.arguments["settings"] != first.arguments["settings"]


def test_the_train_page_says_why_it_does_not_show_the_settings_of_a_run(jobs: Jobs, tmp_path: Path) -> None:
    workspace = Workspace(tmp_path)
    settings, problem = _beginning(workspace, jobs, "", "gone")
    assert settings["lora_rank"] == 16
    assert problem is not None
    (tmp_path / "runs" / "a").mkdir(parents=True)
    (tmp_path / "runs" / "a" / "config.yaml").write_bytes(b"dataset: \xff\n")
    assert "UTF-8" in str(_beginning(workspace, jobs, "", "a")[1])
    (tmp_path / "runs" / "a" / "config.yaml").write_text("dataset: d\n", encoding="utf-8")
    assert _beginning(workspace, jobs, "", "a") == ({"dataset": "d", "output_dir": "runs/a-2"}, None)


def test_a_queue_without_jobs_writes_nothing(jobs: Jobs) -> None:
    """The page asks every second, also where it may not write."""
    jobs.advance()
    assert not jobs.folder.exists()


OUTSIDE = [
    {"template": "/etc/template.jinja"},
    {"model_name_or_path": "/etc"},
    {"ref_model": "/etc"},
    {"dataset_dir": "/etc"},
    {"judge_labels": "/etc/passwd"},
]


@pytest.mark.parametrize("settings", OUTSIDE, ids=str)
def test_a_runs_own_settings_do_not_lead_out_of_the_folder(
    jobs: Jobs, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, settings: dict[str, Any]
) -> None:
    """A run folder may come from anybody: what its config.yaml names is opened by no job and no chat."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(worker, "api", SimpleNamespace())  # would fail if it were reached
    run = tmp_path / "runs" / "a"
    run.mkdir(parents=True)
    adapter = json.dumps({"base_model_name_or_path": "smollm2-135m"})
    (run / "adapter_config.json").write_text(adapter, encoding="utf-8")
    (run / "config.yaml").write_text(to_yaml({"dataset": "d", **settings}), encoding="utf-8")
    given: dict[queue.Kind, dict[str, Any]] = {
        "train": {"settings": "runs/a/config.yaml"},
        "compare": {"run": "runs/a", "overrides": []},
        "compare_many": {"targets": ["runs/a", "base"], "overrides": []},
        "export": {"run": "runs/a", "to": "merged", "out": "out"},
    }
    needs_data = settings.keys() & {"dataset_dir", "judge_labels"}
    for kind, arguments in given.items():
        with pytest.raises(AttributeError if needs_data and kind == "export" else ConfigError):
            worker.work(Job(tmp_path, kind, "a", arguments))
    if not needs_data:
        with pytest.raises(ConfigError, match="outside the folder of this page"):
            ChatModels(Workspace(tmp_path))._loaded("runs/a", None)


def test_a_job_may_use_the_models_that_the_page_was_started_with(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(queue.subprocess, "Popen", Child)
    models = tmp_path.parent / "models"
    work = tmp_path / "work"
    work.mkdir()
    monkeypatch.chdir(work)
    (work / "s.yaml").write_text(to_yaml({"dataset": "d", "model_name_or_path": str(models / "m")}), encoding="utf-8")
    job = Jobs(work / "jobs", work, (models,)).add("train", "a", settings="s.yaml")
    worker._check_paths(Job.read_from(job.path))
    with pytest.raises(ConfigError, match="outside"):
        worker._check_paths(Job(job.path, "train", "a", job.arguments))
