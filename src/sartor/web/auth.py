"""Password login: a login page, sessions in memory, and a limit on attempts that are counted before they are read."""

from __future__ import annotations

import asyncio
import hashlib
import hmac
import html
import secrets
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from ipaddress import IPv6Address, ip_address, ip_network
from typing import Any
from urllib.parse import parse_qs

from starlette.requests import cookie_parser

from sartor.web.origin_check import App, Receive, Scope, Send, one, refuse

COOKIE, DEVICE = "sartor-session", "sartor-device"
SESSION_S, DEVICE_S = 12 * 3600.0, 365 * 24 * 3600.0
MAX_ATTEMPTS, MAX_ATTEMPTS_OF_ALL, WINDOW_S = 8, 64, 300.0
"""Attempts per sender, and of all senders together, in a time window in seconds."""
MAX_FORM_BYTES = 4096


@dataclass(slots=True)
class Attempts:
    """Login attempts of the last minutes by sender. Only attempts that are let through count, so that whoever keeps on
    guessing does not make the wait longer; a browser that has logged in before is a sender of its own, so that others
    cannot keep it out.
    """

    clock: Callable[[], float] = time.monotonic
    at: dict[str, list[float]] = field(default_factory=dict)
    """Sender → the times of its attempts. At most as many as are let through in one window."""

    def count(self, sender: str, *, known: bool) -> bool:
        """Count an attempt; False if the sender has to wait. `known`: it does not share in the limit of all."""
        now = self.clock()
        recent = {who: [moment for moment in moments if now - moment < WINDOW_S] for who, moments in self.at.items()}
        self.at = {who: moments for who, moments in recent.items() if moments}
        mine = self.at.get(sender, [])
        if len(mine) >= MAX_ATTEMPTS or (not known and sum(map(len, self.at.values())) >= MAX_ATTEMPTS_OF_ALL):
            return False
        self.at[sender] = [*mine, now]
        return True

    def forgive(self, sender: str) -> None:
        """The password was right."""
        self.at.pop(sender, None)


class PasswordAuth:
    """ASGI middleware that requires a login for every HTTP request and websocket."""

    def __init__(self, app: App, password: str, attempts: Attempts | None = None) -> None:
        self.app = app
        self.salt, self.secret = secrets.token_bytes(16), secrets.token_bytes(32)
        self.hashed = self._hash(password)
        self.sessions: dict[str, float] = {}
        self.attempts = attempts or Attempts()

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
        return hashlib.scrypt(password.encode("utf-8", "replace"), salt=self.salt, n=2**14, r=8, p=1)

    def _known(self, scope: Scope) -> bool:
        token = _cookie(scope, COOKIE)
        return self.sessions.get(hashlib.sha256(token.encode()).hexdigest(), 0.0) > time.time()

    async def _login(self, scope: Scope, receive: Receive, send: Send) -> None:
        device = self._device(scope)
        sender = device or _network(scope)
        if not self.attempts.count(sender, known=device is not None):  # before anything is awaited
            await _page(send, "Too many attempts. Wait five minutes. · 尝试次数过多,请等五分钟。", 429)
            return
        given = parse_qs((await _body(receive)).decode("utf-8", "replace")).get("password", [""])[0]
        if not hmac.compare_digest(await asyncio.to_thread(self._hash, given), self.hashed):
            await _page(send, "Wrong password. · 密码错误。", 401)
            return
        self.attempts.forgive(sender)
        token = secrets.token_urlsafe(32)
        self.sessions = {key: until for key, until in self.sessions.items() if until > time.time()}
        self.sessions[hashlib.sha256(token.encode()).hexdigest()] = time.time() + SESSION_S
        secure = "; Secure" if one(scope, b"x-forwarded-proto") == "https" or scope.get("scheme") == "https" else ""
        cookies = [(DEVICE, device or self._new_device(), DEVICE_S), (COOKIE, token, SESSION_S)]
        headers = [
            (b"set-cookie", f"{n}={v}; HttpOnly; SameSite=Strict; Path=/; Max-Age={s:.0f}{secure}".encode())
            for n, v, s in cookies
        ]
        await _answer(send, 303, b"", [(b"location", b"/"), *headers])

    def _new_device(self) -> str:
        name = secrets.token_urlsafe(16)
        return f"{name}.{self._signature(name)}"

    def _device(self, scope: Scope) -> str | None:
        """The device cookie of a browser that has logged in before."""
        given = _cookie(scope, DEVICE)
        name, _, signature = given.partition(".")
        return given if hmac.compare_digest(signature.encode(), self._signature(name).encode()) else None

    def _signature(self, name: str) -> str:
        return hmac.new(self.secret, name.encode(), hashlib.sha256).hexdigest()


def _cookie(scope: Scope, name: str) -> str:
    """A cookie's value, or an empty text."""
    given = "; ".join(value.decode("latin-1") for key, value in scope["headers"] if key == b"cookie")
    return cookie_parser(given).get(name, "")


def _network(scope: Scope) -> str:
    """The client's address; of IPv6 the /64 network, all of which one machine may use."""
    client = str((scope.get("client") or ("?",))[0])
    try:
        address = ip_address(client)
    except ValueError:
        return client
    if not isinstance(address, IPv6Address):
        return client
    return str(address.ipv4_mapped or ip_network((address, 64), strict=False))


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
