"""The guard and the password let in what comes from the page itself, and nothing else; http and sockets alike."""

from __future__ import annotations

import asyncio
import time
from typing import Any

import pytest

from sartor.web.auth import MAX_ATTEMPTS, SESSION_S, PasswordAuth
from sartor.web.origin_check import OriginCheck


async def inner(scope: Any, receive: Any, send: Any) -> None:
    if scope["type"] == "websocket":
        await send({"type": "websocket.accept"})
        return
    await send({"type": "http.response.start", "status": 200, "headers": []})
    await send({"type": "http.response.body", "body": b"secret"})


def ask(
    app: Any,
    kind: str = "http",
    method: str = "GET",
    path: str = "/",
    body: bytes = b"",
    scheme: str = "http",
    **headers: str,
) -> Any:
    """(status or socket verdict, headers, body) of one request."""
    sent: list[Any] = []

    async def receive() -> Any:
        return {"type": "http.request", "body": body, "more_body": False}

    async def send(message: Any) -> None:
        sent.append(message)

    raw = [(name.replace("_", "-").encode(), value.encode()) for name, value in headers.items()]
    scope = {"type": kind, "method": method, "path": path, "headers": raw, "client": ("10.0.0.9", 1), "scheme": scheme}
    asyncio.run(app(scope, receive, send))
    first = sent[0]
    if kind == "websocket":
        return first["type"], [], b""
    return first["status"], first["headers"], sent[1]["body"]


OURS = {"host": "127.0.0.1:8080"}
REFUSED = [
    {"host": "evil.example:8080"},
    {"host": "127.0.0.1.evil.example:8080"},
    {"host": "192.168.1.4:8080"},
    {},
    {**OURS, "origin": "http://evil.example"},
    {**OURS, "origin": "null"},
    {**OURS, "origin": "http://127.0.0.1:9999"},
    {**OURS, "origin": "http://localhost:8080"},
    {**OURS, "sec_fetch_site": "cross-site", "sec_fetch_mode": "no-cors", "sec_fetch_dest": "script"},
]


@pytest.mark.parametrize("kind", ["http", "websocket"])
@pytest.mark.parametrize("headers", REFUSED, ids=str)
def test_other_pages_are_refused(kind: str, headers: dict[str, str]) -> None:
    status, _, body = ask(OriginCheck(inner), kind, **headers)
    assert status == (403 if kind == "http" else "websocket.close")
    assert b"secret" not in body


@pytest.mark.parametrize(
    "headers",
    [
        OURS,
        {"host": "localhost"},
        {"host": "[::1]:8080"},
        {**OURS, "origin": "http://127.0.0.1:8080"},
        {**OURS, "sec_fetch_site": "same-origin"},
    ],
    ids=str,
)
def test_the_page_itself_is_let_in(headers: dict[str, str]) -> None:
    status, sent, body = ask(OriginCheck(inner), **headers)
    assert (status, body) == (200, b"secret")
    assert (b"x-frame-options", b"DENY") in sent
    assert ask(OriginCheck(inner), "websocket", **headers)[0] == "websocket.accept"


def test_a_followed_link_shows_a_page_but_changes_nothing() -> None:
    visit = {**OURS, "sec_fetch_site": "cross-site", "sec_fetch_mode": "navigate", "sec_fetch_dest": "document"}
    assert ask(OriginCheck(inner), **visit)[0] == 200
    assert ask(OriginCheck(inner), method="POST", **visit)[0] == 403
    assert ask(OriginCheck(inner), "websocket", **visit)[0] == "websocket.close"


def test_two_host_headers_are_refused() -> None:
    sent: list[Any] = []

    async def send(message: Any) -> None:
        sent.append(message)

    scope = {"type": "http", "method": "GET", "path": "/", "headers": [(b"host", b"localhost"), (b"host", b"evil")]}
    asyncio.run(OriginCheck(inner)(scope, send, send))  # type: ignore[arg-type]
    assert sent[0]["status"] == 403


def test_all_addresses_means_numbers_but_no_names() -> None:
    app = OriginCheck(inner, any_address=True)
    assert ask(app, host="192.168.1.4:8080")[0] == 200
    assert ask(app, host="rebind.example:8080")[0] == 403


def test_nothing_is_shown_without_the_password() -> None:
    app = PasswordAuth(inner, "correct horse battery")
    assert ask(app, path="/data")[0] == 303
    assert ask(app, "websocket")[0] == "websocket.close"
    assert ask(app, method="POST", path="/login", body=b"password=wrong")[0] == 401
    status, headers, _ = ask(app, method="POST", path="/login", body=b"password=correct+horse+battery")
    cookie = dict(headers)[b"set-cookie"].decode()
    assert status == 303
    assert "HttpOnly" in cookie
    assert "SameSite=Strict" in cookie
    session = {"cookie": cookie.partition(";")[0]}
    assert ask(app, path="/data", **session) == (200, [], b"secret")
    assert ask(app, "websocket", **session)[0] == "websocket.accept"
    assert ask(app, path="/data", cookie="sartor-session=")[0] == 303


@pytest.mark.parametrize(
    ("scheme", "headers", "secure"),
    [
        ("http", {}, False),
        ("https", {}, True),
        ("http", {"x_forwarded_proto": "https"}, True),
    ],
)
def test_over_tls_the_cookie_is_secure(scheme: str, headers: dict[str, str], secure: bool) -> None:
    app = PasswordAuth(inner, "correct horse battery")
    body = b"password=correct+horse+battery"
    status, sent, _ = ask(app, method="POST", path="/login", body=body, scheme=scheme, **headers)
    assert status == 303
    assert dict(sent)[b"set-cookie"].decode().endswith("; Secure") is secure


def test_the_password_is_kept_hashed_and_sessions_end(monkeypatch: pytest.MonkeyPatch) -> None:
    app = PasswordAuth(inner, "correct horse battery")
    _, sent, _ = ask(app, method="POST", path="/login", body=b"password=correct+horse+battery")
    cookie = dict(sent)[b"set-cookie"].decode().partition(";")[0]
    kept = repr(vars(app))
    assert "correct horse" not in kept
    assert cookie.partition("=")[2] not in kept, "of a session only a hash is kept"
    assert ask(app, cookie=cookie)[0] == 200
    now = time.time()
    monkeypatch.setattr("sartor.web.auth.time.time", lambda: now + SESSION_S + 1)
    assert ask(app, cookie=cookie)[0] == 303


def test_wrong_passwords_are_few() -> None:
    app = PasswordAuth(inner, "correct horse battery")
    for _ in range(MAX_ATTEMPTS):
        ask(app, method="POST", path="/login", body=b"password=x")
    assert ask(app, method="POST", path="/login", body=b"password=correct+horse+battery")[0] == 429
