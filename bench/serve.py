"""Many clients at one server: latency p50, p95, p99, time to first token, tokens a second, and fairness.

    python bench/serve.py [--clients 100] [--slow 10] [--tokens 64]                 # starts sartor serve by itself
    python bench/serve.py --beside [--clients 40] [--slow 4] [--tokens 32]       # LLaMA-Factory's API server after it
    python bench/serve.py --url http://127.0.0.1:8001/v1 --model any                # another server, started before

All clients ask at the same moment and stream their answers; the slow ones wait before each piece. Fairness is Jain's
index over the tokens a second of the clients that are not slow: 1 when all get the same, 1/n when one gets everything.
A server that sends no usage is counted by its pieces (LLaMA-Factory sends words).
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import os
import signal
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass

import httpx

import rivals

QUESTIONS = (
    "What is the capital of France?",
    "Write two sentences about rain.",
    "Name three primary colors.",
    "Why is the sky blue?",
    "Who wrote Pride and Prejudice?",
    "How do I boil an egg?",
)
PAUSE_S = 0.2


@dataclass(frozen=True)
class Served:
    """What one client saw; seconds from its request."""

    slow: bool
    first_s: float
    whole_s: float
    tokens: int


async def client(http: httpx.AsyncClient, url: str, model: str, number: int, slow: bool, tokens: int) -> Served:
    body = {
        "model": model,
        "messages": [{"role": "user", "content": QUESTIONS[number % len(QUESTIONS)]}],
        "stream": True,
        "max_tokens": tokens,
        "temperature": 0,
        "stream_options": {"include_usage": True},
    }
    began, first, written, pieces = time.perf_counter(), 0.0, 0, 0
    async with http.stream("POST", f"{url}/chat/completions", json=body) as response:
        response.raise_for_status()
        async for line in response.aiter_lines():
            if not line.startswith("data: {"):
                continue
            chunk = json.loads(line[6:])
            if chunk.get("usage"):
                written = chunk["usage"]["completion_tokens"]
            if chunk["choices"] and chunk["choices"][0]["delta"].get("content"):
                pieces += 1
                first = first or time.perf_counter() - began
            if slow:
                await asyncio.sleep(PAUSE_S)
    return Served(slow, first, time.perf_counter() - began, written or pieces)


async def crowd(
    url: str, model: str, clients: int, slow: int, tokens: int
) -> tuple[list[Served | BaseException], float]:
    limits = httpx.Limits(max_connections=None)
    async with httpx.AsyncClient(timeout=None, trust_env=False, limits=limits) as http:
        await client(http, url, model, 0, False, 4)
        began = time.perf_counter()
        work = [client(http, url, model, n, n % clients < slow, tokens) for n in range(clients)]
        found = await asyncio.gather(*work, return_exceptions=True)
    return list(found), time.perf_counter() - began


def percentiles(values: list[float]) -> str:
    ordered = sorted(values)
    at = {p: ordered[min(len(ordered) - 1, int(len(ordered) * p / 100))] for p in (50, 95, 99)}
    return "  ".join(f"p{p} {value:6.2f} s" for p, value in at.items())


def jain(values: list[float]) -> float:
    """Jain, Chiu, Hawe 1984: (Σx)² / (n Σx²)."""
    return sum(values) ** 2 / (len(values) * sum(value * value for value in values))


def show(found: list[Served | BaseException], seconds: float) -> None:
    served = [each for each in found if isinstance(each, Served)]
    quick = [each for each in served if not each.slow]
    print(f"served          {len(served)} of {len(found)} clients ({len(served) - len(quick)} slow readers)")
    print(f"whole answer    {percentiles([each.whole_s for each in quick])}")
    print(f"first token     {percentiles([each.first_s for each in quick])}")
    print(f"throughput      {sum(each.tokens for each in served) / seconds:.1f} tokens/s over {seconds:.1f} s")
    rates = [each.tokens / each.whole_s for each in quick]
    print(
        f"fairness        {jain(rates):.3f} (Jain), slowest/median answer "
        f"{max(e.whole_s for e in quick) / statistics.median(e.whole_s for e in quick):.2f}"
    )
    for error in {str(each) for each in found if isinstance(each, BaseException)}:
        print(f"failed          {error}")


@contextlib.contextmanager
def own_server(target: str) -> Iterator[tuple[str, str]]:
    """`sartor serve` on a free port: (address, model name)."""
    command = [sys.executable, "-m", "sartor", "serve", target, "--port", "0", "--name", "bench", "--waiting", "1024"]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    try:
        assert process.stdout is not None
        line = process.stdout.readline()
        yield line.split(" at ")[1].split()[0], "bench"
    finally:
        process.terminate()
        process.wait()


@contextlib.contextmanager
def llama_factory_server() -> Iterator[tuple[str, str]]:
    """`llamafactory-cli api` on a free port, with the same model and type: (address, model name)."""
    from sartor.model.locate import resolve_model

    folder = rivals.llama_factory()
    if folder is None:
        raise SystemExit("LLaMA-Factory is not here.")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    words = ["--model_name_or_path", resolve_model("smollm2-135m"), "--template", "chatml", "--infer_dtype", "bfloat16"]
    environment = {
        **os.environ,
        **rivals.llama_factory_environment(folder),
        "API_HOST": "127.0.0.1",
        "API_PORT": str(port),
    }
    with tempfile.TemporaryFile() as log:
        command = [str(folder / "bin" / "llamafactory-cli"), "api", *words]
        process = subprocess.Popen(command, stdout=log, stderr=log, env=environment, start_new_session=True)
        try:
            url = f"http://127.0.0.1:{port}/v1"
            for _ in range(240):
                with contextlib.suppress(httpx.HTTPError):
                    if httpx.get(f"{url}/models", trust_env=False).is_success:
                        break
                if process.poll() is not None:
                    log.seek(0)
                    raise SystemExit(log.read()[-2000:].decode(errors="replace"))
                time.sleep(0.5)
            yield url, "any"
        finally:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--target", default="smollm2-135m", help="what sartor serves: a run or a model")
    parser.add_argument("--url", help="another server's address, ending in /v1")
    parser.add_argument("--model", default="bench")
    parser.add_argument("--clients", type=int, default=100)
    parser.add_argument("--slow", type=int, default=10)
    parser.add_argument("--tokens", type=int, default=64)
    parser.add_argument("--beside", action="store_true", help="then the same crowd at LLaMA-Factory's API server")
    options = parser.parse_args()
    servers = {
        options.url or "sartor": contextlib.nullcontext((options.url, options.model))
        if options.url
        else (own_server(options.target))
    }
    if options.beside:
        servers["LLaMA-Factory"] = llama_factory_server()
    for title, server in servers.items():
        with server as (url, name):
            found, seconds = asyncio.run(crowd(url, name, options.clients, options.slow, options.tokens))
        print(f"\n{title}")
        show(found, seconds)


if __name__ == "__main__":
    main()
