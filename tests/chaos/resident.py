# SPDX-License-Identifier: Apache-2.0
"""Detects growing memory of processes. Pure: no I/O, no clock."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

FLAT = 0.05  # largest accepted relative change of the mean from the first third to the last


@dataclass(frozen=True)
class Sample:
    """Resident bytes of one process at `at` seconds. pid: changes when the process is restarted."""

    at: float
    name: str
    pid: int
    size: int


def growth(series: list[tuple[float, float]]) -> float:
    """Return by what share the mean of the last third of (time, value) is above that of the first third."""
    start, end = series[0][0], series[-1][0]
    third = (end - start) / 3
    first = [value for at, value in series if at <= start + third]
    final = [value for at, value in series if at >= end - third]
    return float(np.mean(final) / np.mean(first)) - 1


def growths(samples: list[Sample]) -> dict[str, float]:
    """Return the growth of all processes together and of each, and of the last server in its own life.

    A restart gives back what leaked: that one shows it, and so do the devices, which share a process that is never
    restarted. Together: only at times when all were up.
    """
    names = sorted({sample.name for sample in samples})
    by_time: dict[float, dict[str, int]] = {}
    for sample in samples:
        by_time.setdefault(sample.at, {})[sample.name] = sample.size
    together = [(at, float(sum(sizes.values()))) for at, sizes in sorted(by_time.items()) if len(sizes) == len(names)]
    out = {"all": growth(together)}
    for name in names:
        out[name] = growth([(s.at, float(s.size)) for s in samples if s.name == name])
    last = [s for s in samples if s.name == "server"][-1].pid
    out["last server"] = growth([(s.at, float(s.size)) for s in samples if s.pid == last])
    return out


def leaks(samples: list[Sample]) -> list[str]:
    """Name the processes that grow, among those that can show a leak."""
    found = growths(samples)
    return [
        f"{name}: the last third's mean is {found[name]:+.1%} off the first third's"
        for name in ("all", "devices", "last server")
        if abs(found[name]) > FLAT
    ]
