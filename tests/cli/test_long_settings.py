"""Settings written as options, as LLaMA-Factory's command line takes them: `--key value`, `--key=value`, `--flag`."""

from __future__ import annotations

import pytest
import typer.main

from sartor.cli import app
from sartor.cli.arguments import settings_as_words

GROUP = typer.main.get_command(app)


@pytest.mark.parametrize(
    ("typed", "read"),
    [
        ("train --learning_rate 1e-4 --stage=sft", "train learning_rate=1e-4 stage=sft"),
        ("train a.yaml --learning-rate 1e-4", "train a.yaml learning_rate=1e-4"),
        ("train --do_train --bf16 true --plot_loss", "train do_train=true bf16=true plot_loss=true"),
        ("train --json --fresh --lora_rank 4 seed=1", "train --json --fresh lora_rank=4 seed=1"),
        ("train --overwrite_cache --dataset a,b", "train overwrite_cache=true dataset=a,b"),
        ("train --weight_decay -1 --use_galore", "train weight_decay=-1 use_galore=true"),
        ("train --learnin_rate 1", "train learnin_rate=1"),
        ("train --nonsense 1", "train --nonsense 1"),
        ("chat --model_name_or_path m --template qwen", "chat model_name_or_path=m template=qwen"),
        ("export runs/a --to gguf --export_dir=out", "export runs/a --to gguf export_dir=out"),
        ("predict a.yaml --shard 1/2 --max_new_tokens 9", "predict a.yaml --shard 1/2 max_new_tokens=9"),
        ("--debug estimate --dataset d", "--debug estimate dataset=d"),
        ("show pride --dataset-dir data --cutoff_len 9", "show pride --dataset-dir data cutoff_len=9"),
        ("import f.csv --name x", "import f.csv --name x"),
        ("serve m --host 0.0.0.0 --top_p 0.5", "serve m --host 0.0.0.0 top_p=0.5"),
        ("train --template", "train template=true"),
        ("", ""),
        ("--version", "--version"),
    ],
)
def test_settings_as_options(typed: str, read: str) -> None:
    assert settings_as_words(GROUP, typed.split()) == read.split()


def test_a_commands_own_options_win_over_settings_of_the_same_name() -> None:
    for command in GROUP.commands.values():  # type: ignore[attr-defined]
        if any(parameter.name == "settings" for parameter in command.params):
            options = [option for parameter in command.params for option in parameter.opts if option.startswith("--")]
            for option in options:
                assert settings_as_words(GROUP, [command.name, option, "x"])[1] == option


def test_a_slip_in_an_option_is_answered_with_the_setting(capsys: pytest.CaptureFixture[str]) -> None:
    from sartor.cli import main

    with pytest.raises(SystemExit) as stopped:
        main(["train", "--learnin_rate", "1e-4"])
    assert stopped.value.code == 1
    assert "Did you mean learning_rate?" in capsys.readouterr().err


def test_a_file_that_is_answered_with_lists_what_has_no_effect(capsys: pytest.CaptureFixture[str]) -> None:
    from sartor.cli.evaluate import target_or_config

    target_or_config("model_name_or_path=m", ["overwrite_cache=true", "use_badam=false"])
    assert "No effect here: overwrite_cache (" in capsys.readouterr().err
