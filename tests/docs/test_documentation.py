"""What people read is true: the file tree is made of charters, both READMEs keep step, nothing names this machine."""

from __future__ import annotations

import ast
import re
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
SOURCE = ROOT / "src" / "sartor"


def charters() -> dict[str, str]:
    """Module path under src/sartor → the first sentence of its docstring."""
    found = {}
    for file in sorted(SOURCE.rglob("*.py")):
        text = file.read_text(encoding="utf-8")
        docstring = ast.get_docstring(ast.parse(text)) or ""
        found[file.relative_to(SOURCE).as_posix()] = docstring.split("\n")[0]
    return found


def test_every_module_begins_with_its_charter() -> None:
    without = [path for path, charter in charters().items() if not charter.endswith((".", "…"))]
    assert without == []


def test_the_readmes_file_tree_is_made_of_the_charters() -> None:
    tree = re.search(r"<!-- tree -->\n```\n(.*?)```", (ROOT / "README.md").read_text(encoding="utf-8"), re.S)
    assert tree
    for path, charter in charters().items():
        if path.count("/") == 1 and path.endswith("__init__.py"):
            assert f"{charter}" in tree[1], path


def test_both_readmes_keep_step() -> None:
    shape = [
        [len(match) for match in re.findall(r"^(#+) ", (ROOT / name).read_text(encoding="utf-8"), re.M)]
        for name in ("README.md", "README.zh.md")
    ]
    assert shape[0] == shape[1]
    blocks = [
        re.findall(r"```bash\n(.*?)```", (ROOT / name).read_text(encoding="utf-8"), re.S)
        for name in ("README.md", "README.zh.md")
    ]
    assert blocks[0] == blocks[1]


def test_nothing_we_keep_holds_a_path_of_a_machine() -> None:
    done = subprocess.run(["git", "ls-files"], cwd=ROOT, capture_output=True, text=True, check=False)
    if done.returncode:
        pytest.skip("not a git checkout")
    pattern = re.compile(r"(?<![\w.])/(?:work|farm|root)/\w")
    for name in done.stdout.splitlines():
        file = ROOT / name
        if file.suffix in {".py", ".md", ".toml", ".yaml", ".txt", ".jinja", ".json", ""} and file.exists():
            if name == "tests/docs/test_documentation.py":
                continue
            assert not pattern.search(file.read_text(encoding="utf-8", errors="replace")), name


def test_the_design_names_modules_that_exist() -> None:
    """The layout, the two walks and the extension points: every `package/module` is there."""
    text = (ROOT / "docs" / "design.md").read_text(encoding="utf-8")
    packages = {folder.name for folder in SOURCE.iterdir() if folder.is_dir()}
    named = {name for name in re.findall(r"`([a-z_]+/[a-z_/]*)`", text) if name.split("/")[0] in packages}
    assert len(named) > 40
    missing = [name for name in named if not (SOURCE / name).is_dir() and not (SOURCE / f"{name}.py").exists()]
    assert missing == []


def test_the_walk_of_a_row_passes_each_module_once() -> None:
    text = (ROOT / "docs" / "design.md").read_text(encoding="utf-8")
    for walk in re.findall(r"### The walk.*?(?=\n### )", text, re.S):
        steps = re.findall(r"^\d+\. `([a-z_/]+)`", walk, re.M)
        assert len(steps) > 8
        assert len(steps) == len(set(steps))


def test_no_test_module_imports_another() -> None:
    """What several test modules share is in tests/support or a conftest."""
    pattern = re.compile(r"^\s*(?:from|import) (?:\w+\.)*test_\w+", re.M)
    files = (ROOT / "tests").rglob("*.py")
    assert [str(file) for file in files if pattern.search(file.read_text(encoding="utf-8"))] == []
