"""Prometheus metrics of a server: requests, tokens, queue, rows, times."""

from __future__ import annotations

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest

from sartor.inference.batcher import Batcher

_SECONDS = (0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 120.0, 300.0)


class Metrics:
    """Counters that the app increments; gauges that read the batcher when scraped."""

    def __init__(self, batcher: Batcher) -> None:
        self.registry = CollectorRegistry()
        self.requests = Counter("sartor_requests", "Requests answered.", ["status"], registry=self.registry)
        self.tokens = Counter("sartor_tokens", "Tokens read and written.", ["kind"], registry=self.registry)
        self.cancelled = Counter("sartor_cancelled", "Requests whose client went away.", registry=self.registry)
        self.first = Histogram(
            "sartor_first_token_seconds", "From request to first token.", buckets=_SECONDS, registry=self.registry
        )
        self.whole = Histogram(
            "sartor_request_seconds", "From request to last token.", buckets=_SECONDS, registry=self.registry
        )
        Gauge("sartor_waiting", "Answers in line.", registry=self.registry).set_function(lambda: batcher.waiting)
        Gauge("sartor_running", "Answers in the batch.", registry=self.registry).set_function(lambda: batcher.running)

    def text(self) -> bytes:
        return generate_latest(self.registry)
