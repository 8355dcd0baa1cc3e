"""Attacks on the page's door: guessing the password, keeping the owner out, and other names of this machine."""

from __future__ import annotations

import asyncio
import random
from pathlib import Path
from typing import Any

import pytest

from sartor.base.errors import ConfigError
from sartor.web.auth import MAX_ATTEMPTS, MAX_ATTEMPTS_OF_ALL, WINDOW_S, Attempts, PasswordAuth
from sartor.web.origin_check import OriginCheck
from sartor.web.reading_process import Readings
from sartor.web.run import PASSWORD, require_password, serve
from sartor.web.workspace import Workspace

RIGHT, WRONG = b"password=correct+horse+battery", b"password=wrong"


async def inner(scope: Any, receive: Any, send: Any) -> None:
    await send({"type": "http.response.start", "status": 200, "headers": []})
    await send({"type": "http.response.body", "body": b"secret"})


class Clock:
    now = 0.0

    def __call__(self) -> float:
        return self.now


class Door:
    """A login whose hash costs nothing and whose clock stands still."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.clock = Clock()
        self.hashed = 0
        monkeypatch.setattr(PasswordAuth, "_hash", self._hash)
        self.app = PasswordAuth(inner, "correct horse battery", Attempts(self.clock))

    def _hash(self, password: str) -> bytes:
        self.hashed += 1
        return password.encode("utf-8", "replace")

    async def login(self, body: bytes, client: str = "10.0.0.9", cookie: str = "", wait: Any = None) -> Any:
        """(status, cookies) of one attempt, whose body arrives after `wait`."""
        sent: list[Any] = []

        async def receive() -> Any:
            if wait is not None:
                await wait.wait()
            return {"type": "http.request", "body": body, "more_body": False}

        async def send(message: Any) -> None:
            sent.append(message)

        headers = [(b"cookie", cookie.encode("latin-1"))] if cookie else []
        scope = {"type": "http", "method": "POST", "path": "/login", "headers": headers, "client": (client, 1)}
        await self.app(scope, receive, send)
        cookies = [value.decode().partition(";")[0] for name, value in sent[0]["headers"] if name == b"set-cookie"]
        return sent[0]["status"], "; ".join(cookies)

    def guess(self, times: int, **given: Any) -> list[int]:
        return [asyncio.run(self.login(WRONG, **given))[0] for _ in range(times)]


@pytest.fixture
def door(monkeypatch: pytest.MonkeyPatch) -> Door:
    return Door(monkeypatch)


def test_guesses_at_the_same_time_are_counted_before_their_bodies_arrive(door: Door) -> None:
    async def together() -> list[int]:
        gate = asyncio.Event()
        guesses = [asyncio.create_task(door.login(WRONG, wait=gate)) for _ in range(301)]
        for _ in range(3):
            await asyncio.sleep(0)
        gate.set()
        return [status for status, _ in await asyncio.gather(*guesses)]

    hashed = door.hashed
    statuses = asyncio.run(together())
    assert statuses.count(401) == MAX_ATTEMPTS
    assert statuses.count(429) == 301 - MAX_ATTEMPTS
    assert door.hashed - hashed == MAX_ATTEMPTS, "a refused guess costs nothing"


def test_many_addresses_guess_no_more_than_a_few(door: Door, trials: int) -> None:
    statuses = [door.guess(1, client=f"10.0.{n // 200}.{n % 200}")[0] for n in range(100 + trials)]
    assert statuses.count(401) == MAX_ATTEMPTS_OF_ALL
    assert len(door.app.attempts.at) <= MAX_ATTEMPTS_OF_ALL
    assert sum(len(moments) for moments in door.app.attempts.at.values()) <= MAX_ATTEMPTS_OF_ALL


def test_one_machine_with_many_ipv6_addresses_is_one_sender(door: Door) -> None:
    statuses = [door.guess(1, client=f"2001:db8::{n:x}")[0] for n in range(30)]
    assert statuses.count(401) == MAX_ATTEMPTS
    assert door.guess(1, client="2001:db8:0:1::1") == [401], "another network"
    door.guess(MAX_ATTEMPTS, client="10.1.1.1")
    assert door.guess(1, client="::ffff:10.1.1.1") == [429], "the same address, written as IPv6"


def test_guessing_on_does_not_make_the_wait_longer(door: Door) -> None:
    door.guess(MAX_ATTEMPTS)
    for _ in range(10):
        door.clock.now += WINDOW_S / 11
        assert set(door.guess(20)) == {429}
    door.clock.now += WINDOW_S / 11 + 1
    assert asyncio.run(door.login(RIGHT))[0] == 303


def test_the_owner_gets_in_while_everybody_guesses(door: Door) -> None:
    status, cookies = asyncio.run(door.login(RIGHT))
    assert status == 303
    device = next(c for c in cookies.split("; ") if c.startswith("sartor-device="))
    for n in range(100):
        door.guess(3, client=f"10.0.1.{n}")
    door.guess(20)  # from the owner's own address too, as behind one proxy
    assert asyncio.run(door.login(RIGHT))[0] == 429
    assert asyncio.run(door.login(RIGHT, cookie=device))[0] == 303
    for forged in ("sartor-device=", "sartor-device=.", device + "0", "sartor-device=x.é", f"{device}; {device[:-1]}"):
        assert asyncio.run(door.login(RIGHT, cookie=forged))[0] == 429, forged
    assert door.guess(20, cookie=device).count(401) == MAX_ATTEMPTS, "a stolen device cookie is no password"


def test_no_cookie_breaks_the_door(door: Door, trials: int) -> None:
    random_ = random.Random(3)
    odd = [
        "a,b=1",
        "a:b=1",
        "=;=;",
        "sartor-session",
        '$Path="x"',
        "expires=1; path",
        '"',
        "\xff=\xff",
        "a=" + "b" * 4000,
    ]
    odd += ["".join(random_.choice('ab=;,"\\: \t\x7f\xe9()[]') for _ in range(30)) for _ in range(20 * trials)]
    for cookie in odd:
        door.clock.now += WINDOW_S
        assert asyncio.run(door.login(WRONG, cookie=cookie))[0] == 401, cookie
        door.clock.now += WINDOW_S
        assert asyncio.run(door.login(b"password=\xff%ff%00&password=" + cookie.encode()))[0] == 401, cookie


def test_a_password_that_is_set_is_asked_for_on_loopback_and_behind_a_proxy(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv(PASSWORD, "correct horse battery")
    given: list[dict[str, Any]] = []

    class Stop(Exception):
        pass

    def create_app(*args: Any, **options: Any) -> Any:
        given.append(options)
        raise Stop

    monkeypatch.setattr("sartor.web.app.create_app", create_app)
    for options in ({}, {"hosts": ("page.example",)}, {"host": "0.0.0.0"}, {"host": "localhost"}):
        with pytest.raises(Stop):
            serve(tmp_path, port=0, **options)  # type: ignore[arg-type]
    assert [options["password"] for options in given] == ["correct horse battery"] * 4


def test_without_a_password_no_other_machine_is_served() -> None:
    require_password(None, ("127.0.0.1",))
    require_password(None, ("::1", "localhost"))
    require_password("x" * 12, ("0.0.0.0",))
    with pytest.raises(ConfigError, match="no password"):
        require_password(None, ("0.0.0.0",))
    with pytest.raises(ConfigError, match="no password") as refused:
        require_password(None, ("127.0.0.1", "page.example"))
    assert "--allow-host page.example" in str(refused.value.where)
    for names in (("127.0.0.1",), ("0.0.0.0",)):
        with pytest.raises(ConfigError, match="too short"):
            require_password("x" * 11, names)


@pytest.mark.parametrize("kind", ["http", "websocket"])
@pytest.mark.parametrize(
    "hosts",
    [
        (),
        (b"testserver",),
        (b"localhost", b"localhost"),
        (b"localhost", b"evil.example"),
        (b"localhost.",),
        (b"localhost@evil.example",),
        (b"evil.example:localhost",),
        (b"[::1].evil.example",),
        (b"[::1",),
        (b"localhost, evil.example",),
        (b"",),
    ],
    ids=repr,
)
def test_a_host_that_is_not_plainly_ours_is_refused(kind: str, hosts: tuple[bytes, ...]) -> None:
    assert _verdict(kind, [(b"host", host) for host in hosts]) in (403, "websocket.close")


@pytest.mark.parametrize("host", [b"LocalHost:8080", b"127.0.0.1", b"[::1]:8080", b"PAGE.example"])
def test_our_names_are_ours_in_any_case(host: bytes) -> None:
    assert _verdict("http", [(b"host", host)]) == 200


def test_a_target_with_another_authority_is_refused() -> None:
    assert _verdict("http", [(b"host", b"localhost")], path="http://evil.example/") == 403


def _verdict(kind: str, headers: list[tuple[bytes, bytes]], path: str = "/") -> Any:
    sent: list[Any] = []

    async def receive() -> Any:
        return {"type": "http.request", "body": b"", "more_body": False}

    async def send(message: Any) -> None:
        sent.append(message)

    scope = {"type": kind, "method": "GET", "path": path, "headers": headers, "client": ("10.0.0.9", 1)}
    asyncio.run(OriginCheck(inner, ("localhost", "127.0.0.1", "::1", "Page.Example"))(scope, receive, send))
    return sent[0].get("status", sent[0]["type"])


def test_a_check_with_a_model_outside_the_folder_reads_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    read = Readings(Workspace(tmp_path))
    monkeypatch.setattr("sartor.web.reading_process.api.check", lambda *given: pytest.fail("it was read"))
    for model in ("/etc", "../other", "~/model"):
        with pytest.raises(ConfigError, match="outside"):
            read.check("data", model, 10)
