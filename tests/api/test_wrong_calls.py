"""A wrong call of the Python API is a SartorError that says what to do, never a library's traceback."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import sartor

WRONG: dict[str, Callable[[], Any]] = {
    "load unknown": lambda: sartor.load("nothing"),
    "load folder": lambda: sartor.load("nothing", "no/such/folder"),
    "import missing": lambda: sartor.import_file("no.csv", "x"),
    "import folder": lambda: sartor.import_file(".", "x"),
    "train without data": lambda: sartor.train(model_name_or_path="no/such/model/at/all"),
    "train file": lambda: sartor.train("no.yaml"),
    "train folder": lambda: sartor.train("."),
    "train unknown setting": lambda: sartor.train(learningrate=1),
    "predict": lambda: sartor.predict("no/such/run/here"),
    "predict file": lambda: sartor.predict("no.yaml"),
    "compare": lambda: sartor.compare("no/such/run/here"),
    "compare setting": lambda: sartor.compare("no/such/run/here", ["oops"]),
    "compare several": lambda: sartor.compare_several("base", "no/such/run/here"),
    "report": lambda: sartor.report("no/such/run/here"),
    "rerun": lambda: sartor.rerun("no/such/run/here"),
    "chat": lambda: sartor.chat("no/such/run/here"),
    "export": lambda: sartor.export("no/such/run/here"),
    "engine": lambda: sartor.Engine.load("no/such/model/at/all"),
    "engine adapter setting": lambda: sartor.Engine.load("smollm2-135m", adaptor="x"),
    "show": lambda: sartor.show("nothing"),
    "check": lambda: sartor.check("nothing"),
    "check setting": lambda: sartor.check("nothing", colour="red"),
    "split": lambda: sartor.split("nothing"),
    "estimate": lambda: sartor.estimate("no.yaml"),
    "score file": lambda: sartor.score_file("no.jsonl"),
    "score lengths": lambda: sartor.score(["a"], []),
    "score metric": lambda: sartor.score_file(__file__, ("no-such-metric",)),
    "read rows": lambda: sartor.read_rows("nothing"),
}


@pytest.mark.parametrize("name", WRONG)
def test_a_wrong_call_says_what_to_do(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(sartor.SartorError) as error:
        WRONG[name]()
    assert str(error.value.what)
    assert "Repo id" not in str(error.value)
    assert not list(tmp_path.rglob("*.yaml")), "a wrong call leaves nothing behind"


def test_the_package_shows_its_functions() -> None:
    assert set(sartor.__all__) <= set(dir(sartor))
