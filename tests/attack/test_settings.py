"""Settings, YAML and registry entries that no person meant: each is refused by a SartorError that can be shown."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from sartor import api
from sartor.base.config import RunConfig, parse_override, read_config, read_yaml, section_of
from sartor.base.errors import ConfigError, DataError, SartorError
from sartor.data.dataset_info import KEYS, parse_entry, read_registry
from sartor.data.dataset_spec import COLUMNS, TAGS
from sartor.data.load import load_spec
from sartor.web.form import parse_yaml, typed

TEXT = st.text(st.characters(codec=None, categories=None), max_size=20)
SCALARS = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(),
    st.sampled_from([10**30, -(10**30), 2**63, -1, 0]),
    st.floats(),
    st.sampled_from([float("nan"), float("inf"), float("-inf"), 1e308, -0.0]),
    TEXT,
    st.sampled_from(["1e400", "-1e400", ".nan", "9" * 5000, "\ud83d", "a\0b", "{name}", "[/red]", "no", "1e-4"]),
)
VALUES = st.recursive(
    SCALARS, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(TEXT, inner, max_size=3), max_leaves=6
)


def runs(trials: int) -> settings:
    return settings(
        max_examples=40 * trials,
        deadline=None,
        database=None,
        suppress_health_check=list(HealthCheck),
        derandomize=True,
    )


def shown(error: SartorError) -> None:
    """Every part can be rendered in both languages and written to a terminal."""
    for part in (error.what, error.where, error.fix):
        for language in ("en", "zh"):
            part.render(language).encode("utf-8", "backslashreplace")
    assert str(error.what).strip()


def test_a_setting_of_any_value_is_taken_or_refused(trials: int) -> None:
    @runs(trials)
    @given(st.dictionaries(st.sampled_from(sorted(section_of())) | TEXT, VALUES, min_size=1, max_size=3))
    def check(chosen: dict[str, Any]) -> None:
        try:
            config = RunConfig.from_dict(chosen)
        except ConfigError as error:
            shown(error)
        else:
            json.dumps(config.flat(), allow_nan=False).encode()
            assert RunConfig.from_dict(config.given) == config

    check()


def test_yaml_and_overrides_of_any_text_are_taken_or_refused(trials: int, tmp_path: Path) -> None:
    pieces = [
        "[",
        "]",
        "{",
        "}",
        ":",
        " ",
        "\n",
        "- ",
        "&a",
        "*a",
        "!!",
        "int",
        "timestamp",
        "x",
        "1",
        ".",
        "e9",
        "'",
        '"',
    ]
    pieces += [
        "\\",
        "\\ud83d",
        "<<",
        "?",
        "|",
        ">",
        "%",
        "#",
        "\t",
        "=",
        ".nan",
        "2001-99-99",
        "0b",
        "0x",
        "1:99",
        "\0",
        "é",
    ]
    text = st.lists(st.sampled_from(pieces), max_size=12).map("".join) | TEXT
    file = tmp_path / "s.yaml"

    @runs(2 * trials)
    @given(text)
    def check(words: str) -> None:
        for act in (
            lambda: RunConfig.from_dict(dict([parse_override(f"dataset={words}")])),
            lambda: read_config(None, [words]),
            lambda: RunConfig.from_dict(parse_yaml(words)),
            lambda: typed(words),
            lambda: read_config(file),
        ):
            file.write_bytes(words.encode("utf-8", "surrogatepass"))
            try:
                act()
            except ConfigError as error:
                shown(error)

    check()


@pytest.mark.parametrize(
    "text",
    [
        "dataset: " + "[" * 5000,
        "a: " * 2000,
        "a: &a [x]\nb: &b [*a, *a]\ndataset: [*b, *b]",
        "dataset: &a [*a]",
        "dataset: 2001-99-99",
        "cutoff_len: " + "9" * 5000,
        "x: " + "y" * (1 << 21),
        "dataset: !!timestamp x",
        "val_size: .inf",
    ],
)
def test_deep_long_and_aliased_yaml_is_refused(text: str, tmp_path: Path) -> None:
    (tmp_path / "s.yaml").write_text(text, encoding="utf-8")
    for act in (lambda: read_config(tmp_path / "s.yaml"), lambda: RunConfig.from_dict(parse_yaml(text))):
        with pytest.raises(ConfigError) as caught:
            act()
        shown(caught.value)
        assert len(str(caught.value)) < 1000


def test_a_folder_and_a_missing_file_are_no_settings(tmp_path: Path) -> None:
    for path in (tmp_path, tmp_path / "none.yaml"):
        with pytest.raises(ConfigError):
            read_yaml(path)


@pytest.mark.parametrize("value", [float("nan"), float("inf"), float("-inf"), -1, -0.5])
def test_a_split_of_no_size_is_refused(value: float, tmp_path: Path) -> None:
    rows = [{"instruction": f"Q{n}", "output": "A", "by": str(n % 3)} for n in range(9)]
    (tmp_path / "d.json").write_text(json.dumps(rows), encoding="utf-8")
    (tmp_path / "dataset_info.json").write_text('{"d": {"file_name": "d.json"}}', encoding="utf-8")
    for by in (None, "by"):
        with pytest.raises(ConfigError, match="val_size"):
            api.split("d", tmp_path, val_size=value, by=by)
        with pytest.raises(ConfigError, match="seed"):
            api.split("d", tmp_path, val_size=2, seed=-1, by=by)


def test_an_entry_of_any_value_is_taken_or_refused(trials: int, tmp_path: Path) -> None:
    rows = [{"instruction": f"Q{n}", "output": "A"} for n in range(3)]
    (tmp_path / "d.json").write_text(json.dumps(rows), encoding="utf-8")
    local = [key for key in KEYS if not key.endswith("_url") and key != "cloud_file_name"]
    words = st.sampled_from(
        ["d.json", "alpaca", "sharegpt", "openai", "train[1:]", f"train[{'9' * 5000}:]", "train[-9%:]", "utf-8"]
    )
    names = st.dictionaries(st.sampled_from([*COLUMNS, *TAGS]), TEXT | words, max_size=2)
    entries = st.dictionaries(st.sampled_from(local), VALUES | words | names, max_size=3)

    @runs(trials)
    @given(entries, st.booleans(), TEXT)
    def check(entry: dict[str, Any], whole: bool, name: str) -> None:
        entry = {"file_name": "d.json", **entry} if whole else entry
        try:
            load_spec(parse_entry(name, entry, tmp_path / "dataset_info.json"))
        except SartorError as error:
            shown(error)

    check()


@pytest.mark.parametrize(
    "split", [f"train[{'9' * 5000}:]", f"train[:-{'9' * 5000}%]", "train[9", "train[\ud83d:]", "train[1:2:3]"]
)
def test_a_slice_that_cannot_be_meant_is_refused(split: str, tmp_path: Path) -> None:
    (tmp_path / "d.json").write_text('[{"instruction": "Q", "output": "A"}]', encoding="utf-8")
    with pytest.raises(DataError) as caught:
        load_spec(parse_entry("d", {"file_name": "d.json", "split": split}, tmp_path / "dataset_info.json"))
    shown(caught.value)


@pytest.mark.parametrize(
    "text", ["[" * 100_000, '{"a": ' * 900 + "1" + "}" * 900, '{"\\ud83d": {"file_name": "d.json"}}', '{"a": 9e999}']
)
def test_a_registry_of_any_text_is_refused_or_read(text: str, tmp_path: Path) -> None:
    (tmp_path / "dataset_info.json").write_text(text, encoding="utf-8")
    for name in ("a", "\ud83d"):
        with pytest.raises(DataError) as caught:
            load_spec(read_registry(tmp_path).spec(name))
        shown(caught.value)
