"""Registry entries and settings from strangers: none names a file, a builder or an address that it may not open."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from sartor.base.addresses import is_public
from sartor.base.config import RunConfig
from sartor.base.errors import ConfigError, DataError, PromptError
from sartor.base.permissions import Permissions
from sartor.data.dataset_info import parse_entry
from sartor.data.load import load_spec
from sartor.prompt.template_source import template_source
from sartor.web.form import check_paths
from sartor.web.workspace import Workspace


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """What reaches the hub's client."""
    found: list[Any] = []

    def load_dataset(*words: Any, **keys: Any) -> Any:
        found.append((words, keys))
        return [{"instruction": "q", "output": "a"}]

    monkeypatch.setitem(sys.modules, "datasets", SimpleNamespace(load_dataset=load_dataset))
    monkeypatch.setattr("sartor.data.remote._from_modelscope", lambda name: found.append(name) or "there")
    return found


def load(home: Path, **entry: Any) -> Any:
    return load_spec(parse_entry("x", entry, home / "dataset_info.json"))


NOT_NAMES = (
    "text",
    "json",
    "csv",
    "parquet",
    "arrow",
    "imagefolder",
    "webdataset",
    "/etc",
    "/etc/ssl",
    "./data/x",
    "../x",
    "..",
    "a/../b",
    "a/..",
    "../../a/b",
    "~/x",
    "a/b/c",
    "a//b",
    "a/",
    "/a/b",
    "C:\\x",
    "a\\b",
    "file:///etc/passwd",
    "https://example.org/x",
    "hf://datasets/a/b",
    "s3://a/b",
    "zip://a/b::x",
    "a/b\n",
    "a/b\0",
    "a/b@main",
    "a/*",
    " a/b",
    "ä/b",
)


@pytest.mark.parametrize("name", NOT_NAMES)
@pytest.mark.parametrize("key", ["hf_hub_url", "ms_hub_url"])
def test_only_names_of_a_hub_reach_its_client(key: str, name: str, tmp_path: Path, asked: list[Any]) -> None:
    with pytest.raises(DataError, match=r"not the name of a dataset on a hub|NUL character"):
        load(tmp_path, **{key: name})
    assert not asked


@pytest.mark.parametrize(
    "keys",
    [
        {"folder": "/etc"},
        {"folder": "../x"},
        {"folder": "a/../../x"},
        {"folder": "~"},
        {"folder": "C:/x"},
        {"folder": "file:///etc"},
        {"folder": "a\0"},
        {"folder": "/tmp/*"},
        {"subset": "../x"},
        {"subset": "/etc"},
        {"subset": "a\\b"},
    ],
)
def test_subset_and_folder_stay_in_the_dataset(keys: dict[str, str], tmp_path: Path, asked: list[Any]) -> None:
    with pytest.raises(DataError, match=r"not a folder of the dataset|Invalid subset|NUL character"):
        load(tmp_path, hf_hub_url="someone/something", **keys)
    assert not asked


def test_names_with_subset_and_folder_reach_it_unchanged(tmp_path: Path, asked: list[Any]) -> None:
    load(tmp_path, hf_hub_url="Some-one_1/some.thing", subset="zh-CN", folder="data/v1.0", split="train[:10%]")
    assert asked == [(("Some-one_1/some.thing",), {"name": "zh-CN", "data_dir": "data/v1.0", "split": "train[:10%]"})]


def test_a_folder_of_that_name_is_not_taken_for_the_hub(
    tmp_path: Path, asked: list[Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The client would read the folder in the working directory instead."""
    (tmp_path / "uploads" / "x").mkdir(parents=True)
    monkeypatch.chdir(tmp_path)
    with pytest.raises(DataError, match="use file_name"):
        load(tmp_path, hf_hub_url="uploads/x")
    assert not asked


@pytest.mark.parametrize("split", ["train", "train[:10%]"])
@pytest.mark.parametrize("name", ["/etc/passwd", "../x.json", "a/../../x.json", "~/x.json", "link.json", "links"])
def test_no_file_name_leads_outside(name: str, split: str, tmp_path: Path) -> None:
    data = tmp_path / "data"
    data.mkdir()
    (tmp_path / "x.json").write_text(json.dumps([{"instruction": "q", "output": "secret"}]), encoding="utf-8")
    (data / "link.json").symlink_to(tmp_path / "x.json")
    (data / "links").mkdir()
    (data / "links" / "x.json").symlink_to(tmp_path / "x.json")
    with pytest.raises(DataError, match=r"outside the dataset folder|File not found"):
        load(data, file_name=name, split=split)


OUTSIDE = (
    {"template": "/etc/x.jinja"},
    {"template": "../x.jinja"},
    {"template": "sub/../../x.jinja"},
    {"template": "~/x.jinja"},
    {"template": "link.jinja"},
    {"template": "/etc/passwd"},
    {"deepspeed": "/etc/x.json"},
    {"deepspeed": "sub/../../x.json"},
    {"judge_labels": "sub/../../x.jsonl"},
    {"dataset_dir": "sub/../.."},
    {"output_dir": "sub/../../x"},
    {"export_dir": "sub/../../x"},
    {"resume_from_checkpoint": "sub/../../x"},
    {"model_name_or_path": "sub/../../x"},
    {"model_name_or_path": "/etc"},
    {"model_name_or_path": "a/b/../../../x"},
    {"adapter_name_or_path": "sub/../../x"},
    {"ref_model": "sub/../../x"},
    {"template": "a\0.jinja"},
)


@pytest.mark.parametrize("settings", OUTSIDE)
def test_no_setting_of_the_page_names_a_file_outside(settings: dict[str, str], tmp_path: Path) -> None:
    folder = tmp_path / "work"
    folder.mkdir()
    (tmp_path / "x.jinja").write_text("secret", encoding="utf-8")
    (folder / "link.jinja").symlink_to(tmp_path / "x.jinja")
    with pytest.raises(ConfigError, match=r"outside the folder of this page|NUL character"):
        check_paths(Workspace(folder), RunConfig.from_dict(settings))


def test_settings_of_the_page_may_name_files_inside_and_hub_names(tmp_path: Path) -> None:
    (tmp_path / "mine.jinja").write_text("x", encoding="utf-8")
    for settings in (
        {"template": "mine.jinja"},
        {"template": "qwen3"},
        {"model_name_or_path": "Qwen/Qwen3-0.6B"},
        {"model_name_or_path": "smollm2-135m"},
        {"adapter_name_or_path": "runs/pride"},
        {"output_dir": "runs/x"},
    ):
        check_paths(Workspace(tmp_path), RunConfig.from_dict(settings))


def test_a_template_that_is_a_device_is_refused() -> None:
    link = Path("/dev/zero")
    if link.exists():
        with pytest.raises(PromptError, match="Not a regular file"):
            template_source(SimpleNamespace(chat_template=""), _jinja_link(link))  # type: ignore[arg-type]


def _jinja_link(target: Path) -> str:
    import tempfile

    place = Path(tempfile.mkdtemp()) / "x.jinja"
    place.symlink_to(target)
    return str(place)


WRAPPED = {
    "mapped": "::ffff:{dotted}",
    "6to4": "2002:{high:x}:{low:x}::1",
    "NAT64": "64:ff9b::{dotted}",
    "local NAT64": "64:ff9b:1::{dotted}",
    "compatible": "::{dotted}",
    "ISATAP": "2001:4860:4860::5efe:{dotted}",
    "Teredo server": "2001:0:{high:x}:{low:x}::f7f7:f7f7",
    "Teredo client": "2001:0:808:808::{other_high:x}:{other_low:x}",
}


@pytest.mark.parametrize("dotted", ["127.0.0.1", "10.0.0.1", "169.254.169.254", "192.168.1.1", "0.0.0.0"])
@pytest.mark.parametrize("form", WRAPPED)
def test_a_private_address_is_private_in_every_wrapping(form: str, dotted: str) -> None:
    a, b, c, d = map(int, dotted.split("."))
    high, low = a << 8 | b, c << 8 | d
    address = WRAPPED[form].format(dotted=dotted, high=high, low=low, other_high=high ^ 0xFFFF, other_low=low ^ 0xFFFF)
    assert not is_public(address), address


@pytest.mark.parametrize("address", ["fec0::1", "feff::1", "fc00::1", "fe80::1%1", "::", "::1", "ff02::1", "100::1"])
def test_addresses_of_private_networks_are_private(address: str) -> None:
    assert not is_public(address)


def test_permissions_reach_what_they_allow(tmp_path: Path) -> None:
    data = tmp_path / "data"
    data.mkdir()
    (tmp_path / "x.json").write_text(json.dumps([{"instruction": "q", "output": "a"}]), encoding="utf-8")
    spec = parse_entry("x", {"file_name": "../x.json"}, data / "dataset_info.json")
    assert load_spec(spec, permissions=Permissions(allow_outside=True)).ledger.training == 1
