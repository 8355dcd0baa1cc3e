"""A small hub on loopback: answers what the clients of Hugging Face and ModelScope ask for one dataset, `org/pairs`."""

from __future__ import annotations

import hashlib
import json
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs, urlsplit

COMMIT = "0123456789abcdef0123456789abcdef01234567"
ROWS = [{"instruction": f"Question {n}?", "input": "", "output": f"Answer {n}."} for n in range(1, 6)]
FILES = {
    "data/train.json": json.dumps(ROWS[:3]).encode(),
    "data/test.json": json.dumps(ROWS[3:]).encode(),
    "README.md": b"---\nlicense: apache-2.0\n---\n",
}


def _facts(path: str) -> Mapping[str, Any]:
    content = FILES[path]
    name = hashlib.sha1(b"blob %d\0" % len(content) + content, usedforsecurity=False).hexdigest()
    return {"type": "file", "path": path, "size": len(content), "oid": name}


class Hub(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def answer(self) -> None:
        url = urlsplit(self.path)
        self.server.heard.append(f"{self.command} {self.path}")  # type: ignore[attr-defined]
        parts = url.path.strip("/").split("/")
        if url.path.startswith("/api/v1/datasets/org/pairs/"):
            self._modelscope(parts[5:], parse_qs(url.query))
        elif url.path.startswith("/api/datasets/org/pairs"):
            self._hugging_face(parts[4:], parse_qs(url.query))
        elif url.path.startswith("/datasets/org/pairs/resolve/"):
            path = "/".join(parts[5:])
            if path in FILES:
                self._say(FILES[path], etag=f'"{_facts(path)["oid"]}"', x_repo_commit=COMMIT)
            else:
                self._say(b"", 404, x_error_code="EntryNotFound")
        else:
            self._say(b"{}", 404, x_error_code="RepoNotFound")

    do_GET = do_HEAD = answer

    def _hugging_face(self, parts: list[str], query: Mapping[str, list[str]]) -> None:
        if not parts or parts[0] == "revision":
            siblings = [{"rfilename": name} for name in FILES]
            self._json({"id": "org/pairs", "sha": COMMIT, "private": False, "tags": [], "siblings": siblings})
            return
        below = "/".join(parts[2:])
        if below:
            self._json([_facts(path) for path in FILES if path.startswith(f"{below}/")])
        else:
            self._json([_facts("README.md"), {"type": "directory", "path": "data", "size": 0, "oid": COMMIT}])

    def _modelscope(self, parts: list[str], query: Mapping[str, list[str]]) -> None:
        if parts == ["repo", "tree"]:
            files = [
                {
                    "Path": path,
                    "Name": path.rpartition("/")[2],
                    "Type": "blob",
                    "Size": len(content),
                    "Sha256": hashlib.sha256(content).hexdigest(),
                }
                for path, content in FILES.items()
            ]
            self._json({"Code": 200, "Success": True, "Data": {"Files": files, "TotalCount": len(files)}})
        elif parts == ["repo"]:
            content = FILES[query["FilePath"][0]]
            self._say(content, x_linked_etag=hashlib.sha256(content).hexdigest())
        else:
            self._json({"Code": 200, "Success": True, "Data": {"Id": 1, "Name": "pairs", "Namespace": "org"}})

    def _json(self, value: Any) -> None:
        self._say(json.dumps(value).encode(), content_type="application/json")

    def _say(self, body: bytes, code: int = 200, **headers: str) -> None:
        self.send_response(code)
        for name, value in headers.items():
            self.send_header(name.replace("_", "-"), value)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def log_message(self, *_: object) -> None: ...


@contextmanager
def hub() -> Iterator[ThreadingHTTPServer]:
    """A running hub; `.heard` lists its requests."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), Hub)
    server.heard = []  # type: ignore[attr-defined]
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    try:
        yield server
    finally:
        server.shutdown()
        thread.join()
        server.server_close()
