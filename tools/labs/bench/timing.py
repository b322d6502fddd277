"""How long the parts of a step take; by hand, as torch.utils.benchmark times whole statements and not their parts."""
from __future__ import annotations

import time
from collections.abc import Callable

import torch

PARTS = ("image", "text", "backward", "update")


class Watch:
    """Milliseconds of the parts of one step, each marked at its end; on a GPU by events, so that nothing waits.

    Args:
        device: "cpu" or "cuda"; whether work is queued on it.
    """

    def __init__(self, device: str = "cpu"):
        self.on_gpu = device == "cuda"
        if self.on_gpu:
            torch.cuda.synchronize()
        self.marks = [("", self._now())]

    def mark(self, part: str) -> None:
        """What happened since the last mark belongs to `part`."""
        self.marks.append((part, self._now()))

    def parts(self) -> dict[str, float]:
        """{part: ms}, parts that were marked several times summed."""
        if self.on_gpu:
            torch.cuda.synchronize()
        sums = dict.fromkeys(PARTS, 0.0)
        for (_, before), (part, after) in zip(self.marks, self.marks[1:]):
            sums[part] += before.elapsed_time(after) if self.on_gpu else (after - before) * 1e3
        return sums

    def _now(self):
        if not self.on_gpu:
            return time.perf_counter()
        event = torch.cuda.Event(enable_timing=True)
        event.record()
        return event


def milliseconds(step: Callable[[Watch], object], device: str) -> float:
    """Of one whole step."""
    watch = Watch(device)
    step(watch)
    watch.mark(PARTS[-1])
    return sum(watch.parts().values())
