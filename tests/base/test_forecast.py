"""The time of a generation, foretold from its first answers, against simulated servers and simulated decoding."""

from __future__ import annotations

import heapq
import math
import random
from collections.abc import Callable

import pytest

from sartor.base.forecast import AnswersPart, BatchForecast, Forecast
from sartor.qa_generation.concurrency_limiter import ConcurrencyLimiter


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
    """After four answers of each worker, in 99 of 100 cases: a few answers are a sample, and may be a poor one."""
    errors = [
        error for seed in range(trials) for error in simulate(seed, 200, workers, places, 3.0, spread)[4 * workers :]
    ]
    assert sum(0.7 <= error <= 1.3 for error in errors) >= 0.99 * len(errors)
    assert all(0.5 <= error <= 1.6 for error in errors), (min(errors), max(errors))


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


LENGTHS: dict[str, Callable[[random.Random], float]] = {
    "all alike": lambda rng: 40,
    "uniform": lambda rng: rng.uniform(20, 60),
    "never stop": lambda rng: 10**6,
    "half never stop": lambda rng: rng.choice([10**6, 20]),
    "exponential": lambda rng: rng.expovariate(1 / 40),
    "skewed": lambda rng: rng.lognormvariate(3.5, 0.6),
}
LIMIT, ROWS = 128, 64


def decode(seed: int, parts: list[int], lengths: Callable[[random.Random], float], fixed_s: float) -> list[float]:
    """Batches whose step takes `fixed_s`, and 0.05 s for each row: total foretold / total taken, from the first whole
    batch on; one batch counts as whole when its last answer is in."""
    rng, now = random.Random(seed), 0.0
    told: list[tuple[float, float]] = []
    forecast = BatchForecast([AnswersPart(count, LIMIT) for count in parts], ROWS, lambda: now)
    for count in parts:
        forecast.begin(count)
        for start in range(0, count, ROWS):
            batch = sorted(min(LIMIT, max(1, round(lengths(rng)))) for _ in range(min(ROWS, count - start)))
            for place, tokens in enumerate(batch):
                steps = tokens - (batch[place - 1] if place else 0)
                now += steps * (fixed_s + 0.05 * (len(batch) - place))
                forecast.answered(tokens)
                left = forecast.left_s()
                assert (left is None) == (2 * (len(told) + 1) < min(ROWS, parts[0]))
                told.append((now, math.nan if left is None else now + left))
    assert forecast.left_s() == pytest.approx(0)
    first = min(ROWS, parts[0])
    return [foretold / now for _, foretold in told[first - 1 :]]


@pytest.mark.parametrize("name", LENGTHS)
@pytest.mark.parametrize("parts", [[200], [500], [64, 64, 64, 64], [100, 100, 60, 60]], ids=str)
@pytest.mark.parametrize("fixed_s", [0.0, 0.2])
def test_the_time_of_batches_is_foretold_within_30_percent(
    trials: int, name: str, parts: list[int], fixed_s: float
) -> None:
    """In 97 of 100 cases: the first batch is a sample, and a poor one where half of the answers never stop."""
    errors = [error for seed in range(trials) for error in decode(seed, parts, LENGTHS[name], fixed_s)]
    assert sum(0.7 <= error <= 1.3 for error in errors) >= 0.97 * len(errors)
    assert all(0.6 <= error <= 1.5 for error in errors), (min(errors), max(errors))


def test_answers_that_were_there_before_take_no_time() -> None:
    now = 0.0
    forecast = BatchForecast([AnswersPart(128, 10), AnswersPart(64, 10)], 64, lambda: now)
    forecast.begin(64)
    for _ in range(64):
        now += 1.0
        forecast.answered(10)
    assert forecast.left_s() == pytest.approx(64.0)
    forecast.begin(0)
    assert forecast.left_s() == 0


def test_parts_with_a_lower_limit_take_less() -> None:
    now = 0.0
    forecast = BatchForecast([AnswersPart(4, 100), AnswersPart(4, 10)], 4, lambda: now)
    forecast.begin(4)
    now = 8.0
    for _ in range(4):
        forecast.answered(100)
    assert forecast.left_s() == pytest.approx(0.8)
