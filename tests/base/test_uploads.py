"""Nothing leaves this machine because a file says so: a person names the host, by a flag or by typing the setting."""

from __future__ import annotations

from pathlib import Path

import pytest

from sartor.api.judging import check_judge
from sartor.api.resolve_target import config_for
from sartor.api.training import train
from sartor.base.config import RunConfig, read_config
from sartor.base.errors import ConfigError
from sartor.base.permissions import NOTHING_ALLOWED, Permissions
from sartor.base.uploads import is_allowed, tracker_host, uploads_of
from sartor.web.form import check_permissions

JUDGE = {"judge_endpoint": "https://judge.example/v1", "judge_model": "m"}


def of_file(tmp_path: Path, text: str, overrides: tuple[str, ...] = ()) -> RunConfig:
    (tmp_path / "run.yaml").write_text("model_name_or_path: x\n" + text, encoding="utf-8")
    return read_config(tmp_path / "run.yaml", overrides)


def test_a_judge_in_a_file_is_asked_for_first(tmp_path: Path) -> None:
    config = of_file(tmp_path, "judge_endpoint: https://judge.example:8443/v1\njudge_model: m\n")
    with pytest.raises(ConfigError, match=r"would be sent to judge\.example") as caught:
        check_judge(config)
    assert caught.value.code == "upload-not-allowed"
    host = str(caught.value.fix).split("--allow-upload ")[1].split()[0]
    check_judge(config.allowing(Permissions(allow_upload=(host,))))
    for other in ("evil.example", "judge.example.evil.example", "example", ""):
        with pytest.raises(ConfigError, match=r"judge\.example"):
            check_judge(config.allowing(Permissions(allow_upload=(other,))))


def test_who_types_the_address_has_named_the_host(tmp_path: Path, tiny_model_dir: Path) -> None:
    check_judge(of_file(tmp_path, "", ("judge_endpoint=https://judge.example/v1", "judge_model=m")))
    (tmp_path / "model.safetensors").touch()
    check_judge(config_for(str(tiny_model_dir), ["judge_endpoint=https://judge.example/v1", "judge_model=m"]))
    half = of_file(tmp_path, "judge_endpoint: https://judge.example/v1\n", ("judge_model=m",))
    with pytest.raises(ConfigError, match="--allow-upload"):
        check_judge(half)


@pytest.mark.parametrize("url", ["http://127.0.0.1:1/v1", "http://localhost/v1", "http://[::1]:8000/v1"])
def test_this_machine_needs_no_word(url: str) -> None:
    check_judge(RunConfig.from_dict({"model_name_or_path": "x", "judge_endpoint": url, "judge_model": "m"}))


def test_a_file_cannot_send_a_key_elsewhere(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", "sk-secret-1")
    monkeypatch.delenv("OPENAI_BASE_URL", raising=False)
    given = {"model_name_or_path": "x", **JUDGE, "judge_api_key": "${OPENAI_API_KEY}"}
    allowed = Permissions(allow_upload=("judge.example",))
    with pytest.raises(ConfigError, match=r"meant for api\.openai\.com.*not for judge\.example"):
        check_judge(RunConfig.from_dict(given, permissions=allowed))
    own = given | {"judge_endpoint": "https://api.openai.com/v1"}
    with pytest.raises(ConfigError, match="--allow-upload"):
        check_judge(RunConfig.from_dict(own))
    check_judge(RunConfig.from_dict(own, permissions=Permissions(allow_upload=("https://api.openai.com/v1",))))


def test_a_tracker_on_another_machine_is_asked_for_before_anything_is_trained(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("WANDB_MODE", "WANDB_BASE_URL", "MLFLOW_TRACKING_URI", "TRACKIO_SPACE_ID"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.chdir(tmp_path)
    (tmp_path / "run.yaml").write_text("model_name_or_path: x\ndataset: d\nreport_to: wandb\n", encoding="utf-8")
    with pytest.raises(ConfigError, match=r"would be sent to api\.wandb\.ai"):
        train(tmp_path / "run.yaml")
    assert not (tmp_path / "runs").exists()
    typed = read_config(tmp_path / "run.yaml", ["report_to=wandb"])
    assert is_allowed("api.wandb.ai", typed.permissions)
    assert tracker_host("tensorboard") is None
    assert tracker_host("wandb", {"WANDB_MODE": "offline"}) is None
    assert tracker_host("wandb", {"WANDB_BASE_URL": "http://localhost:8080"}) is None
    assert tracker_host("swanlab", {}) == "api.swanlab.cn"
    assert tracker_host("mlflow", {"MLFLOW_TRACKING_URI": "https://ml.example"}) == "ml.example"
    assert tracker_host("mlflow", {"MLFLOW_TRACKING_URI": "file:///tmp/x"}) is None


def test_the_page_sends_nothing_that_its_settings_name() -> None:
    for settings in (JUDGE, {"report_to": "wandb"}):
        with pytest.raises(ConfigError, match="cannot be used on the page"):
            check_permissions(RunConfig.from_dict({"model_name_or_path": "x", **settings}))
    check_permissions(
        RunConfig.from_dict({"model_name_or_path": "x", "judge_endpoint": "http://127.0.0.1/v1", "judge_model": "m"})
    )


def test_a_permission_never_comes_from_a_file(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="Unknown setting"):
        of_file(tmp_path, "allow_upload: judge.example\n")
    assert uploads_of(("none", "tensorboard"), None) == ()
    assert NOTHING_ALLOWED.allow_upload == ()
