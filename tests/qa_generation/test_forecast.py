"""The time of a generation, foretold from its first answers, against simulated servers."""

from __future__ import annotations

import heapq
import random

import pytest

from sartor.qa_generation.concurrency_limiter import ConcurrencyLimiter
from sartor.qa_generation.forecast import Forecast


def simulate(seed: int, requests: int, workers: int, places: int, mean_s: float, spread: float) -> list[float]:
    """A run on a server that answers `places` requests at a time: total foretold / total taken, after each answer."""
    rng, now, waiting, free = random.Random(seed), 0.0, requests, [0.0] * places
    limiter = ConcurrencyLimiter(workers, lambda: now)
    forecast = Forecast(workers, lambda: now)
    flying: list[tuple[float, float, int]] = []
    told: list[float] = []
    while waiting or flying:
        while waiting and limiter.in_flight < max(int(limiter.limit), 1):
            waiting -= 1
            ticket, began = limiter.acquire(), max(now, heapq.heappop(free))
            done = began + mean_s * rng.uniform(1 - spread, 1 + spread)
            heapq.heappush(free, done)
            heapq.heappush(flying, (done, now, ticket))
        now, sent, ticket = heapq.heappop(flying)
        limiter.release(ticket, "good")
        forecast.answered(now - sent)
        told.append(forecast.total_s(waiting + len(flying)))
    return [total / now for total in told]


@pytest.mark.parametrize("workers", [1, 4, 8])
@pytest.mark.parametrize(("places", "spread"), [(100, 0.0), (100, 0.5), (2, 0.3)])
def test_the_total_is_foretold_within_30_percent(trials: int, workers: int, places: int, spread: float) -> None:
    for seed in range(trials):
        errors = simulate(seed, 200, workers, places, 3.0, spread)
        assert all(0.7 <= error <= 1.3 for error in errors[4 * workers :]), (seed, workers, places, spread)


@pytest.mark.parametrize("workers", [1, 8])
def test_the_first_answer_already_tells_where_a_server_has_room(workers: int) -> None:
    errors = simulate(1, 200, workers, 100, 3.0, 0.2)
    assert all(0.7 <= error <= 1.3 for error in errors)


def test_a_forecast_is_told_at_the_first_answer_and_then_ever_more_rarely() -> None:
    now = 0.0
    forecast = Forecast(1, lambda: now)
    due = []
    for _ in range(1000):
        now += 1.0
        forecast.answered(1.0)
        due.append(forecast.is_due())
    assert due[0]
    assert sum(due) < 70
    assert forecast.total_s(500) == pytest.approx(1500.0)
    assert forecast.total_s(0) == 1000.0
