"""How much memory is held at most, and whether an error says that it ran out; knows no model."""

from __future__ import annotations

import threading
from types import TracebackType

import psutil
import torch

from sartor.base.errors import RunError


class OutOfMemory(RunError):
    """Not even one row at a time fits into memory."""


class PeakMemory:
    """Most memory held while the block runs: of the GPU's allocator, else of this process (looked at every 20 ms)."""

    def __init__(self, device: torch.device) -> None:
        self.bytes, self._device, self._ended = 0, device, threading.Event()
        self._thread = threading.Thread(target=self._watch, daemon=True)

    def _watch(self) -> None:
        process = psutil.Process()
        while not self._ended.wait(0.02):
            self.bytes = max(self.bytes, process.memory_info().rss)

    def __enter__(self) -> PeakMemory:
        if self._device.type == "cuda":
            torch.cuda.reset_peak_memory_stats(self._device)
        else:
            self._thread.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, value: BaseException | None, at: TracebackType | None) -> None:
        self._ended.set()
        if self._device.type == "cuda":
            self.bytes = int(torch.cuda.max_memory_allocated(self._device))
        else:
            self._thread.join()
            self.bytes = max(self.bytes, psutil.Process().memory_info().rss)


def is_out_of_memory(error: BaseException) -> bool:
    """Whether an error says that memory ran out: CUDA's own, or the CPU allocator's, which has no class."""
    said = str(error)
    return (
        isinstance(error, MemoryError | torch.OutOfMemoryError)
        or "not enough memory" in said
        or ("DefaultCPUAllocator" in said)
    )
