"""docs/generating.md is executed against a server on loopback that answers as a model would."""

from __future__ import annotations

import json
import re
import shlex
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from sartor.cli import main

PAGE = Path(__file__).parents[2] / "docs" / "generating.md"
BLOCKS = re.findall(r"```(\w+) ?(.*?)\n(.*?)```", PAGE.read_text(encoding="utf-8"), re.DOTALL)


class Model(BaseHTTPRequestHandler):
    """Two questions on each passage, with the first words of two sentences as quotes."""

    asked: list[str]

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        text = body["messages"][-1]["content"]
        self.asked.append(text)
        passage = text.split("Passage from")[1].split("\n", 1)[1]
        quotes = re.findall(r"(?:^|(?<=\. ))[A-Z]\w+ \w+ \w+ \w+", passage, re.MULTILINE)[-2:]
        rows = [{"question": f"What of “{q}”?", "answer": f"This: {q}.", "quote": q} for q in quotes]
        answer = {
            "choices": [{"message": {"content": json.dumps(rows)}}],
            "usage": {"prompt_tokens": 200, "completion_tokens": 80},
        }
        sent = json.dumps(answer).encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(sent)))
        self.end_headers()
        self.wfile.write(sent)

    def log_message(self, format: str, *args: object) -> None:
        pass


@pytest.fixture
def address(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    for language, file, text in BLOCKS:
        if language == "text":
            (tmp_path / file).write_text(text, encoding="utf-8")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("MY_KEY", "secret")
    monkeypatch.setenv("SARTOR_LANG", "en")
    Model.asked = []
    with ThreadingHTTPServer(("127.0.0.1", 0), Model) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}/v1"
        server.shutdown()
        thread.join()


def test_the_commands_run_and_nothing_is_paid_twice(
    address: str, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    printed: dict[str, str] = {}
    for language, _, text in BLOCKS:
        for line in text.splitlines() if language == "bash" else ():
            with pytest.raises(SystemExit) as ended:
                main(shlex.split(line.replace("http://127.0.0.1:8000/v1", address))[1:])
            shown = capsys.readouterr()
            assert ended.value.code in (0, None), (line, shown)
            printed[line] = shown.out + shown.err
    dry, priced, first, again, prompt, _, imported, split = printed.values()
    assert "2 passages" in dry
    assert re.search(r"money: about \S+, at most \S+", priced)
    assert "4 pairs; 2 requests sent; 0 answers reused; spent" in first
    assert "4 pairs; 0 requests sent; 2 answers reused" in again
    assert "{passage}" in prompt
    assert "4 rows read = 4 training" in imported
    assert "2 held out" in split
    assert sum("schoolteacher" in text for text in Model.asked) == len(Model.asked) - 2
    rows = json.loads((tmp_path / "data" / "edited.json").read_text(encoding="utf-8"))
    assert {row["section"] for row in rows} == {"Chapter 1", "Chapter 2"}
    assert "secret" not in "".join(path.read_text(encoding="utf-8-sig") for path in (tmp_path / "data").iterdir())


def test_the_python_example_runs(address: str, capsys: pytest.CaptureFixture[str]) -> None:
    (code,) = (text for language, _, text in BLOCKS if language == "python")
    exec(compile(code.replace("http://127.0.0.1:8000/v1", address), str(PAGE), "exec"), {})
    assert len(capsys.readouterr().out.splitlines()) == 2


@pytest.mark.real
def test_the_embedded_model_makes_grounded_pairs_without_an_account(address: str, tmp_path: Path) -> None:
    with pytest.raises(SystemExit) as ended:
        main(["generate", "tay.txt", "--name", "small", "--pairs", "2"])
    assert ended.value.code in (0, None)
    rows = json.loads((tmp_path / "data" / "small.json").read_text(encoding="utf-8"))
    passage = re.sub(r"\s+", " ", (tmp_path / "tay.txt").read_text(encoding="utf-8"))
    assert rows
    assert all(re.sub(r"\s+", " ", row["source"]["quote"]) in passage for row in rows)
    assert Model.asked == []
