"""LLaMA-Factory's arguments and example files: each is used, accepted with a reason, or refused with what to write.

`llamafactory_arguments.json` holds the names and defaults of LLaMA-Factory 0.9.5's own arguments (those of transformers
are asked of the installed library), `llamafactory_examples.json` the keys and values of every YAML file in its
`examples/` folder, each with the key for which it is refused here, if it is.
"""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

import pytest

from sartor.base.config import RunConfig, section_of
from sartor.base.errors import ConfigError, DataError
from sartor.base.llamafactory_keys import IGNORED_KEYS, UNSUPPORTED_KEYS
from sartor.data.dataset_info import read_registry

HERE = Path(__file__).parent
ARGUMENTS: dict[str, Any] = json.loads((HERE / "llamafactory_arguments.json").read_text(encoding="utf-8"))
EXAMPLES: dict[str, dict[str, Any]] = json.loads((HERE / "llamafactory_examples.json").read_text(encoding="utf-8"))


def trainer_arguments() -> dict[str, Any]:
    """transformers' arguments with their defaults, as a YAML file would write them."""
    from transformers import Seq2SeqTrainingArguments

    found = {}
    for field in dataclasses.fields(Seq2SeqTrainingArguments):
        default = field.default
        if not field.init:
            continue
        if default is dataclasses.MISSING:
            default = field.default_factory() if field.default_factory is not dataclasses.MISSING else None
        found[field.name] = getattr(default, "value", default)
    return found


def test_every_argument_is_in_exactly_one_table() -> None:
    known = [set(section_of()) - {"fp16"}, set(IGNORED_KEYS), set(UNSUPPORTED_KEYS)]
    arguments = ARGUMENTS | trainer_arguments()
    assert len(arguments) > 340
    assert {name: sum(name in table for table in known) for name in arguments} == dict.fromkeys(arguments, 1)


def test_every_argument_is_accepted_with_its_default() -> None:
    for name, default in (trainer_arguments() | ARGUMENTS).items():
        if name != "metric_for_best_model":
            RunConfig.from_dict({name: default})
        RunConfig.from_dict({name: None})


@pytest.mark.parametrize("key", sorted(UNSUPPORTED_KEYS))
def test_what_asks_for_nothing_is_accepted_and_the_rest_is_refused(key: str) -> None:
    accepted = [None, False] if key in section_of() else [None, "", [], {}, False]
    for value in accepted:
        if value is False and ARGUMENTS.get(key) is True:
            continue
        RunConfig.from_dict({key: value})
    with pytest.raises(ConfigError) as caught:
        RunConfig.from_dict({key: False if ARGUMENTS.get(key) is True else "something else"})
    assert repr(key) in str(caught.value.what)
    assert caught.value.fix


@pytest.mark.parametrize("name", EXAMPLES)
def test_an_example_is_accepted_or_refused_by_a_named_key(name: str) -> None:
    settings, refused = EXAMPLES[name]["settings"], EXAMPLES[name]["refused"]
    if refused is None:
        config = RunConfig.from_dict(settings)
        unused = {key for key in settings if key not in section_of() and key not in UNSUPPORTED_KEYS}
        assert unused <= set(config.ignored_keys)
        return
    with pytest.raises(ConfigError) as caught:
        RunConfig.from_dict(settings)
    assert refused in str(caught.value.what)
    assert caught.value.fix
    assert refused in settings


@pytest.mark.parametrize("folder", ["REMOTE:llamafactory/demo_data", "ONLINE"])
def test_a_registry_on_a_hub_is_refused_by_the_setting(folder: str) -> None:
    with pytest.raises(DataError, match="dataset_dir") as caught:
        read_registry(Path(folder))
    assert "Download" in str(caught.value.fix)
