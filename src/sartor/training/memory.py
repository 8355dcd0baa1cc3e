"""Memory: what a device has, what is used now, the peak while a block runs, and whether an error means it ran out."""

from __future__ import annotations

import threading
from types import TracebackType

import psutil
import torch

from sartor.base.errors import RunError


class OutOfMemory(RunError):
    """Not even one row at a time fits into memory."""


class PeakMemory:
    """Peak bytes while the block runs: of the GPU's allocator, else of this process (sampled every 20 ms)."""

    def __init__(self, device: torch.device) -> None:
        self.bytes, self._device, self._stop = 0, device, threading.Event()
        self._thread = threading.Thread(target=self._watch, daemon=True)

    def _watch(self) -> None:
        process = psutil.Process()
        while not self._stop.wait(0.02):
            self.bytes = max(self.bytes, process.memory_info().rss)

    def __enter__(self) -> PeakMemory:
        if self._device.type == "cuda":
            torch.cuda.reset_peak_memory_stats(self._device)
        else:
            self._thread.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, value: BaseException | None, at: TracebackType | None) -> None:
        self._stop.set()
        if self._device.type == "cuda":
            self.bytes = int(torch.cuda.max_memory_allocated(self._device))
        else:
            self._thread.join()
            self.bytes = max(self.bytes, psutil.Process().memory_info().rss)


def is_out_of_memory(error: BaseException) -> bool:
    """Whether an error means that memory ran out: CUDA's own, or the CPU allocator's, which has no class of its own."""
    message = str(error)
    return (
        isinstance(error, MemoryError | torch.OutOfMemoryError)
        or "not enough memory" in message
        or ("DefaultCPUAllocator" in message)
    )


def memory_bytes(device: torch.device) -> int:
    """The most that the GPU's allocator has held so far, or this process's resident memory now on a CPU."""
    if device.type == "cuda":
        return int(torch.cuda.max_memory_allocated(device))
    return int(psutil.Process().memory_info().rss)


def device_memory_bytes(device: torch.device) -> int:
    """The total memory of the device, or of the machine."""
    if device.type == "cuda":
        return int(torch.cuda.get_device_properties(device).total_memory)
    return int(psutil.virtual_memory().total)
