"""Password login for addresses other than loopback: a login page, sessions in memory, and a limit on attempts."""

from __future__ import annotations

import hashlib
import hmac
import html
import secrets
import time
from http.cookies import SimpleCookie
from typing import Any
from urllib.parse import parse_qs

from sartor.web.origin_check import App, Receive, Scope, Send, one, refuse

COOKIE = "sartor-session"
SESSION_S = 12 * 3600.0
MAX_ATTEMPTS, WINDOW_S = 8, 300.0
"""Failed attempts allowed per client address and time window in seconds."""
MAX_FORM_BYTES = 4096


class PasswordAuth:
    """ASGI middleware that requires a login for every HTTP request and websocket."""

    def __init__(self, app: App, password: str) -> None:
        self.app = app
        self.salt = secrets.token_bytes(16)
        self.hashed = self._hash(password)
        self.sessions: dict[str, float] = {}
        self.wrong: dict[str, list[float]] = {}

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] not in ("http", "websocket") or self._known(scope):
            await self.app(scope, receive, send)
        elif scope["type"] == "websocket":
            await refuse(scope, send, "Log in first.")
        elif scope["path"] == "/login" and scope["method"] == "POST":
            await self._login(scope, receive, send)
        elif scope["path"] == "/login":
            await _page(send, "")
        else:
            await _answer(send, 303, b"", [(b"location", b"/login")])

    def _hash(self, password: str) -> bytes:
        return hashlib.scrypt(password.encode(), salt=self.salt, n=2**14, r=8, p=1)

    def _known(self, scope: Scope) -> bool:
        cookie: SimpleCookie = SimpleCookie(
            next((v.decode("latin-1") for k, v in scope["headers"] if k == b"cookie"), "")
        )
        token = cookie[COOKIE].value if COOKIE in cookie else ""
        return self.sessions.get(hashlib.sha256(token.encode()).hexdigest(), 0.0) > time.time()

    async def _login(self, scope: Scope, receive: Receive, send: Send) -> None:
        client = (scope.get("client") or ("?",))[0]
        now = time.monotonic()
        recent = [moment for moment in self.wrong.get(client, []) if now - moment < WINDOW_S]
        if len(recent) >= MAX_ATTEMPTS:
            await _page(send, "Too many wrong passwords. Wait five minutes. · 密码错误次数过多,请等五分钟。", 429)
            return
        given = parse_qs((await _body(receive)).decode("utf-8", "replace")).get("password", [""])[0]
        if not hmac.compare_digest(self._hash(given), self.hashed):
            self.wrong[client] = [*recent, now]
            await _page(send, "Wrong password. · 密码错误。", 401)
            return
        self.wrong.pop(client, None)
        token = secrets.token_urlsafe(32)
        self.sessions = {key: until for key, until in self.sessions.items() if until > time.time()}
        self.sessions[hashlib.sha256(token.encode()).hexdigest()] = time.time() + SESSION_S
        secure = "; Secure" if one(scope, b"x-forwarded-proto") == "https" or scope.get("scheme") == "https" else ""
        cookie = f"{COOKIE}={token}; HttpOnly; SameSite=Strict; Path=/; Max-Age={SESSION_S:.0f}{secure}"
        await _answer(send, 303, b"", [(b"location", b"/"), (b"set-cookie", cookie.encode())])


async def _body(receive: Receive) -> bytes:
    body = b""
    while len(body) <= MAX_FORM_BYTES:
        message: Any = await receive()
        body += message.get("body", b"")
        if not message.get("more_body"):
            break
    return body[:MAX_FORM_BYTES]


async def _page(send: Send, remark: str, status: int = 200) -> None:
    text = (
        '<!doctype html><meta charset="utf-8"><meta name="viewport" content="width=device-width">'
        "<title>Sartor</title><style>body{font:16px system-ui;display:grid;place-items:center;min-height:90vh;"
        "background:#f7f7f5;color:#1d2321}form{display:grid;gap:12px;width:280px}input,button{font:inherit;padding:9px "
        "12px;border-radius:8px;border:1px solid #ccc}button{background:#0b6e66;color:#fff;border:0}</style>"
        '<form method="post" action="/login"><b>Sartor</b><label>Password · 密码<br><input type="password" '
        'name="password" autofocus autocomplete="current-password"></label>'
        f"<button>Open · 打开</button><span role=alert>{html.escape(remark)}</span></form>"
    )
    await _answer(send, status, text.encode(), [(b"content-type", b"text/html; charset=utf-8")])


async def _answer(send: Send, status: int, body: bytes, headers: list[tuple[bytes, bytes]]) -> None:
    length = (b"content-length", str(len(body)).encode())
    await send({"type": "http.response.start", "status": status, "headers": [*headers, length]})
    await send({"type": "http.response.body", "body": body})
