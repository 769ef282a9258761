# SPDX-License-Identifier: Apache-2.0
"""Batteries: drained by time, training and radio, charged at night. One number per device."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

DAY_H = 24.0


@dataclass(frozen=True, slots=True)
class BatteryModel:
    """How long a full charge lasts, and when the device charges.

    idle_h: hours that a charge lasts an idle device; 0: mains powered. train_h: hours of training,
    radio_mb: megabytes sent and received that a charge lasts, each by itself. charge_h: from empty to full. plugged_h,
    unplugged_h: hours of the day between which it charges, plus or minus an hour. reserve: share of the charge below
    which the device reports that it is busy. An empty device is off until it has this share again.
    """

    idle_h: float = 0.0
    train_h: float = 10.0
    radio_mb: float = 1000.0
    charge_h: float = 2.0
    plugged_h: float = 22.0
    unplugged_h: float = 7.0
    reserve: float = 0.3


class Batteries:
    """The batteries of a fleet. Call `advance` regularly."""

    def __init__(self, models: Sequence[BatteryModel], start_h: float, random: np.random.Generator) -> None:
        """`start_h`: time of the day at which the clock starts. Charges are drawn from the reserve to full."""

        def numbers(name: str) -> NDArray[np.float64]:
            return np.array([getattr(model, name) for model in models], np.float64)

        count = len(models)
        self.mains = numbers("idle_h") == 0
        self._is_mains = self.mains.tolist()
        self.reserve = np.where(self.mains, 0.0, numbers("reserve"))
        self._start_h = start_h
        self._at_s = 0.0
        self._idle = 1 / np.where(self.mains, np.inf, 3600 * numbers("idle_h"))  # of a charge, in a second
        self._charge = 1 / (3600 * numbers("charge_h"))
        self._step_s = 1 / (3600 * numbers("train_h"))
        self._byte = 1 / (1e6 * numbers("radio_mb"))
        self._plugged = (numbers("plugged_h") + random.uniform(-1, 1, count)) % DAY_H
        self._unplugged = (numbers("unplugged_h") + random.uniform(-1, 1, count)) % DAY_H
        self.level = np.where(self.mains, 1.0, random.uniform(self.reserve, 1.0))
        self.charging = self._is_plugged(0.0)
        self.on = np.ones(count, bool)

    def _is_plugged(self, now_s: float) -> NDArray[np.bool_]:
        hour = (self._start_h + now_s / 3600) % DAY_H
        since = (hour - self._plugged) % DAY_H
        return np.asarray(self.mains | (since < (self._unplugged - self._plugged) % DAY_H))

    def advance(self, now_s: float) -> None:
        """Advance to `now_s`: drain and charge, then update which devices charge and which are on."""
        rate = np.where(self.charging, self._charge, -self._idle)
        self.level = np.clip(self.level + (now_s - self._at_s) * rate, 0.0, 1.0)
        self._at_s = now_s
        self.charging = self._is_plugged(now_s)
        self.on = np.where(self.on, self.level > 0, self.level >= np.maximum(self.reserve, 1e-9))

    def spend(self, device: int, training_s: float, radio_bytes: int) -> None:
        """Subtract the cost of these seconds of training and bytes of radio."""
        if self._is_mains[device]:
            return
        cost = training_s * self._step_s[device] + radio_bytes * self._byte[device]
        self.level[device] = max(0.0, self.level[device] - cost)

    def percent(self, device: int) -> int:
        """Return the charge as in DeviceState: percent; 255: mains powered."""
        return 255 if self.mains[device] else round(100 * float(self.level[device]))

    def busy(self) -> NDArray[np.bool_]:
        """Return which devices are below their reserve and so report that they are busy."""
        return ~self.charging & (self.level < self.reserve)
