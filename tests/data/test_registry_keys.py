"""Every key of dataset_info.json does what the reference says; one test shows each."""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from sartor.base.errors import ConfigError, DataError
from sartor.base.permissions import Permissions
from sartor.base.settings import DataSettings
from sartor.base.types import Demonstration, Document, Example, Feedback, Preference
from sartor.data import access, remote
from sartor.data.dataset_info import KEYS, parse_entry
from sartor.data.dataset_spec import COLUMNS, TAGS
from sartor.data.load import Loaded, load_many, load_spec

ROWS = [{"instruction": f"Q{n}", "output": f"A{n}"} for n in range(10)]


def read(
    folder: Path, /, rows: Any = None, stage: str = "sft", permissions: Permissions | None = None, **keys: Any
) -> Loaded:
    """Rows written to x.json and read by an entry of these keys."""
    (folder / "x.json").write_text(json.dumps(ROWS if rows is None else rows), encoding="utf-8")
    places = {"hf_hub_url", "ms_hub_url", "om_hub_url", "script_url", "cloud_file_name", "file_name"} & keys.keys()
    entry = keys if places else {"file_name": "x.json", **keys}
    return load_spec(parse_entry("x", entry, folder / "dataset_info.json"), stage=stage, permissions=permissions)


def answers(loaded: Loaded) -> list[str]:
    return [e.messages[-1].text for e in loaded.examples if isinstance(e, Demonstration)]


def test_file_name_is_a_file_or_a_folder(tmp_path: Path) -> None:
    assert len(read(tmp_path, file_name="x.json").examples) == 10
    (tmp_path / "parts").mkdir()
    (tmp_path / "parts" / "a.csv").write_text("instruction,output\nQ,A\n", encoding="utf-8")
    (tmp_path / "parts" / "b.jsonl").write_text('{"instruction": "Q", "output": "B"}', encoding="utf-8")
    loaded = read(tmp_path, file_name="parts")
    assert (answers(loaded), [e.origin.id for e in loaded.examples]) == (
        ["A", "B"],
        ["x/parts/a.csv:1", "x/parts/b.jsonl:1"],
    )


@pytest.mark.parametrize("kind", ["sha1", "sha256"])
def test_hashes_are_verified(kind: str, tmp_path: Path) -> None:
    right = hashlib.new(kind, json.dumps(ROWS).encode()).hexdigest()
    assert len(read(tmp_path, **{f"file_{kind}": right.upper()}).examples) == 10
    with pytest.raises(DataError, match=kind.upper()):
        read(tmp_path, **{f"file_{kind}": right[:-1] + "x"})


def test_encoding_is_used(tmp_path: Path) -> None:
    (tmp_path / "y.csv").write_bytes("instruction,output\nWer?,Größe\n".encode("cp1252"))
    assert answers(read(tmp_path, file_name="y.csv", encoding="cp1252")) == ["Größe"]


@pytest.mark.parametrize(
    ("split", "rows"),
    [
        ("train", range(10)),
        ("train[:30%]", range(3)),
        ("test[3:5]", range(3, 5)),
        ("train[-2:]", range(8, 10)),
        ("train[95%:]", range(0)),
    ],
)
def test_split_slices_files(split: str, rows: range, tmp_path: Path) -> None:
    loaded = read(tmp_path, split=split)
    assert answers(loaded) == [f"A{n}" for n in rows if split != "train[95%:]" or n]
    assert (loaded.ledger.read, loaded.ledger.balanced) == (10, True)


def test_a_split_that_is_not_understood_says_what_is(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="Invalid split"):
        read(tmp_path, split="train[:x]")


def test_num_samples_draws_and_repeats_only_beyond_the_data(tmp_path: Path) -> None:
    loaded = read(tmp_path, num_samples=4)
    assert (len(set(answers(loaded))), loaded.ledger.training, loaded.ledger.left_out, loaded.ledger.repeats) == (
        4,
        4,
        6,
        0,
    )
    loaded = read(tmp_path, num_samples=25)
    assert (len(loaded.examples), len(set(answers(loaded)))) == (25, 10)
    assert (loaded.ledger.training, loaded.ledger.left_out, loaded.ledger.repeats, loaded.ledger.balanced) == (
        10,
        0,
        15,
        True,
    )


def test_the_columns_of_instructions(tmp_path: Path) -> None:
    row = {"p": "P", "q": "Q", "r": "R", "s": "S", "h": [["a", "b"]], "t": '[{"name": "f"}]'}
    columns = {"prompt": "p", "query": "q", "response": "r", "system": "s", "history": "h", "tools": "t"}
    (example,) = read(tmp_path, [row], columns=columns).examples
    assert isinstance(example, Demonstration)
    assert [m.text for m in example.messages] == ["S", "a", "b", "P\nQ", "R"]
    assert example.tools[0]["function"] == {"name": "f"}


def test_ranking_with_chosen_and_rejected(tmp_path: Path) -> None:
    rows = [{"instruction": "Q", "good": "A", "bad": "B"}]
    (example,) = read(tmp_path, rows, ranking=True, columns={"chosen": "good", "rejected": "bad"}).examples
    assert isinstance(example, Preference)
    assert (example.chosen.text, example.rejected.text) == ("A", "B")


@pytest.mark.parametrize(("value", "good"), [(True, True), ("false", False), (1, True), ("0", False)])
def test_kto_tag(value: Any, good: bool, tmp_path: Path) -> None:
    (example,) = read(tmp_path, [{"instruction": "Q", "output": "A", "l": value}], columns={"kto_tag": "l"}).examples
    assert isinstance(example, Feedback)
    assert example.good is good


@pytest.mark.parametrize("media", ["images", "videos", "audios"])
def test_media_are_refused_with_a_reason(media: str, tmp_path: Path) -> None:
    with pytest.raises(DataError, match=f"does not train on {media}"):
        read(tmp_path, columns={media: "m"})


def test_formatting_messages_and_every_tag(tmp_path: Path) -> None:
    tags = {
        "role_tag": "r",
        "content_tag": "c",
        "user_tag": "U",
        "assistant_tag": "B",
        "observation_tag": "O",
        "function_tag": "F",
        "system_tag": "S",
    }
    turns = [("S", "sys"), ("U", "q"), ("F", '{"name": "f", "arguments": {"n": 1}}'), ("O", "one"), ("B", "a")]
    row = {"m": [{"r": role, "c": text} for role, text in turns]}
    (example,) = read(tmp_path, [row], formatting="sharegpt", columns={"messages": "m"}, tags=tags).examples
    assert isinstance(example, Demonstration)
    assert [m.role for m in example.messages] == ["system", "user", "assistant", "tool", "assistant"]
    assert example.messages[2].tool_calls[0].arguments == {"n": 1}


def test_stage_pt_takes_the_prompt_column(tmp_path: Path) -> None:
    (example,) = read(tmp_path, [{"body": "text"}], stage="pt", columns={"prompt": "body"}).examples
    assert isinstance(example, Document)


def test_hubs_are_given_subset_folder_and_split(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[Any] = []

    def hugging_face(*words: Any, **keys: Any) -> Any:
        asked.append(("hf", *words, *keys.values()))
        return ROWS

    monkeypatch.setitem(__import__("sys").modules, "datasets", SimpleNamespace(load_dataset=hugging_face))
    monkeypatch.setattr(remote, "_from_modelscope", lambda name: f"files of {name}")
    monkeypatch.delenv("USE_MODELSCOPE_HUB", raising=False)
    keys = {"hf_hub_url": "a/b", "ms_hub_url": "c/d", "subset": "en", "folder": "f", "split": "train[:30%]"}
    loaded = read(tmp_path, **keys, file_name="absent.json", script_url="absent")
    assert (len(loaded.examples), loaded.ledger.left_out) == (10, 0)  # the hub slices
    assert loaded.examples[2].origin.id == "x:3"
    monkeypatch.setenv("USE_MODELSCOPE_HUB", "1")
    read(tmp_path, **keys)
    monkeypatch.delenv("USE_MODELSCOPE_HUB")
    read(tmp_path, ms_hub_url="c/d")
    assert asked == [
        ("hf", "a/b", "en", "f", "train[:30%]"),
        ("hf", "files of c/d", "en", "f", "train[:30%]"),
        ("hf", "files of c/d", None, None, "train"),
    ]
    with pytest.raises(DataError, match="om_hub_url is not supported"):
        read(tmp_path, om_hub_url="e/f")


def test_a_script_runs_only_with_permission(tmp_path: Path) -> None:
    (tmp_path / "made").mkdir()
    code = 'def load(split):\n    return [{"instruction": "Q", "output": split}]\n'
    (tmp_path / "made" / "made.py").write_text(code, encoding="utf-8")
    with pytest.raises(DataError) as caught:
        read(tmp_path, script_url="made")
    assert hashlib.sha256(code.encode()).hexdigest() in str(caught.value.where)
    assert "--allow-scripts" in str(caught.value.fix)
    assert answers(read(tmp_path, script_url="made", split="dev", permissions=Permissions(allow_scripts=True))) == [
        "dev"
    ]
    (tmp_path / "sub").mkdir()
    with pytest.raises(DataError, match="outside"):
        read(tmp_path / "sub", script_url="../made", permissions=Permissions(allow_scripts=True))


def test_the_cloud_needs_permission(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(access, "CLOUDS", ("file",))  # a store that needs no network
    (tmp_path / "far.jsonl").write_text('{"instruction": "Q", "output": "A"}\n' * 10, encoding="utf-8")
    url = (tmp_path / "far.jsonl").as_uri()
    with pytest.raises(DataError, match="network"):
        read(tmp_path, cloud_file_name=url)
    loaded = read(tmp_path, cloud_file_name=url, split="train[:2]", permissions=Permissions(allow_network=True))
    assert (len(loaded.examples), loaded.ledger.left_out) == (2, 8)


def mixed(folder: Path, strategy: str, probs: tuple[float, ...] = (), seed: int = 1) -> Loaded:
    for name, count in (("a", 12), ("b", 4)):
        text = "".join(json.dumps({"instruction": f"{name}{n}", "output": "A"}) + "\n" for n in range(count))
        (folder / f"{name}.jsonl").write_text(text, encoding="utf-8")
    info = {name: {"file_name": f"{name}.jsonl"} for name in "ab"}
    (folder / "dataset_info.json").write_text(json.dumps(info), encoding="utf-8")
    return load_many(
        ("a", "b"), DataSettings(dataset_dir=str(folder), mix_strategy=strategy, interleave_probs=probs), seed=seed
    )


def ids(examples: list[Example]) -> list[str]:
    return [example.origin.id for example in examples]


def test_interleaving_takes_turns_until_the_first_or_the_last_is_used_up(tmp_path: Path) -> None:
    under = mixed(tmp_path, "interleave_under")
    assert ids(under.examples) == [f"{name}:{n}" for n in range(1, 5) for name in "ab"]
    assert (under.ledger.training, under.ledger.left_out, under.ledger.repeats, under.ledger.balanced) == (
        8,
        8,
        0,
        True,
    )
    over = mixed(tmp_path, "interleave_over")
    assert Counter(ids(over.examples))["b:1"] == 3
    assert (over.ledger.training, over.ledger.left_out, over.ledger.repeats, over.ledger.balanced) == (16, 0, 7, True)


def test_interleaving_by_probabilities_is_seeded(tmp_path: Path) -> None:
    one, same, other = (mixed(tmp_path, "interleave_over", (0.9, 0.1), seed) for seed in (1, 1, 2))
    assert ids(one.examples) == ids(same.examples) != ids(other.examples)
    assert set(ids(one.examples)) == {f"a:{n}" for n in range(1, 13)} | {f"b:{n}" for n in range(1, 5)}
    assert one.ledger.repeats == len(one.examples) - 16
    for probs in ((0.5,), (0.5, 0.6), (1.0, 0.0)):
        with pytest.raises(ConfigError, match="does not fit"):
            mixed(tmp_path, "interleave_over", probs)


def test_every_key_is_shown_above() -> None:
    text = Path(__file__).read_text(encoding="utf-8")
    hashes = {"file_sha1", "file_sha256"}  # made from `file_{kind}`
    missing = [key for key in {*KEYS, *COLUMNS, *TAGS} - hashes if f'"{key}"' not in text and f"{key}=" not in text]
    assert not missing
