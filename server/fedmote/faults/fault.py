# SPDX-License-Identifier: Apache-2.0
"""Faults of a line, drawn from a seed: noise, cuts, delay, bandwidth. Does no I/O; the caller passes the time."""

from __future__ import annotations

import math
import random
from collections import deque
from collections.abc import Callable

_PIECE_S = 0.005  # bytes that a narrow line sends at once


class Noise:
    """Loses and corrupts bytes, and cuts the line. The same seed treats the n-th byte of a direction the same.

    loss, corrupt: shares of the bytes. cut_at: cuts after so many bytes of both directions together; None: never.
    """

    def __init__(self, loss: float = 0.0, corrupt: float = 0.0, cut_at: int | None = None, seed: int = 1) -> None:
        if not (0 <= loss <= 1 and 0 <= corrupt <= 1 and loss + corrupt <= 1):
            raise ValueError(f"loss {loss} and corrupt {corrupt}: expected shares of 1, together at most 1")
        if cut_at is not None and cut_at < 0:
            raise ValueError(f"cut_at {cut_at}: expected a number of bytes")
        self.loss, self.corrupt, self.cut_at = loss, corrupt, cut_at
        self.passed = 0  # bytes received, including those lost or corrupted
        self.hits = 0  # bytes lost or corrupted
        self.is_cut = False
        self._random = (random.Random(f"{seed}/0"), random.Random(f"{seed}/1"))

    def __call__(self, data: bytes, end: int) -> bytes:
        """Return the bytes that leave when `data` enters at `end`, 0 or 1."""
        if self.is_cut:
            return b""
        if self.cut_at is not None and self.passed + len(data) >= self.cut_at:
            data = data[: self.cut_at - self.passed]
            self.cut_at, self.is_cut = None, True
        self.passed += len(data)
        if self.loss + self.corrupt == 0:
            return data
        rng = self._random[end]
        out = bytearray()
        for byte in data:
            value = rng.random()
            if value < self.loss + self.corrupt:
                self.hits += 1
                if value >= self.loss:
                    out.append(byte ^ 1 << rng.randrange(8))
            else:
                out.append(byte)
        return bytes(out)


class DelayLine:
    """Holds bytes until they are due. delay: seconds. bandwidth: bytes per second; infinity: no limit."""

    def __init__(self, delay: float = 0.0, bandwidth: float = math.inf) -> None:
        if not (0 <= delay < math.inf and bandwidth > 0):
            raise ValueError(f"delay {delay} must be at least 0 and finite, bandwidth {bandwidth} above 0")
        self.delay, self.bandwidth = delay, bandwidth
        self.held = 0  # bytes
        self._queue: deque[tuple[float, bytes]] = deque()
        self._free = 0.0  # time at which the line has sent all bytes so far

    def push(self, data: bytes, now: float) -> None:
        """Take bytes that arrived at `now`, in seconds."""
        piece = len(data) if math.isinf(self.bandwidth) else max(1, int(self.bandwidth * _PIECE_S))
        for at in range(0, len(data), max(1, piece)):
            part = data[at : at + piece]
            self._free = max(now, self._free) + len(part) / self.bandwidth
            self._queue.append((self._free + self.delay, part))
        self.held += len(data)

    def pop(self, now: float) -> bytes:
        """Return the bytes that are due."""
        out = b""
        while self._queue and self._queue[0][0] <= now:
            out += self._queue.popleft()[1]
        self.held -= len(out)
        return out

    @property
    def due(self) -> float:
        """Return the time of the next bytes, in seconds; infinity: none are held."""
        return self._queue[0][0] if self._queue else math.inf

    def clear(self) -> None:
        """Drop the held bytes."""
        self._queue.clear()
        self.held = 0


Fault = Callable[[bytes, int], bytes]
"""Given what goes into a line and at which end (0 or 1), returns what comes out."""


def wait_s(lines: list[DelayLine], now: float) -> float | None:
    """Return how long select may sleep, in seconds; None: until bytes arrive."""
    due = min((line.due for line in lines), default=math.inf)
    return None if math.isinf(due) else max(0.0, due - now)
