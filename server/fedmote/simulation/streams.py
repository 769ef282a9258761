# SPDX-License-Identifier: Apache-2.0
"""Random numbers for many devices: each has its own stream (SplitMix64), of eight bytes.

So one device's numbers do not depend on the others, and two policies can be compared under the same conditions.
"""

from __future__ import annotations

import math

_MASK = (1 << 64) - 1
_STEP = 0x9E3779B97F4A7C15  # 2^64 divided by the golden ratio


def _scramble(z: int) -> int:
    z = ((z ^ (z >> 30)) * 0xBF58476D1CE4E5B9) & _MASK
    z = ((z ^ (z >> 27)) * 0x94D049BB133111EB) & _MASK
    return z ^ (z >> 31)


def mixed(*numbers: int) -> int:
    """Return 64 bits that depend on all the numbers and their order."""
    state = 0
    for number in numbers:
        state = _scramble((state + _STEP + (number & _MASK)) & _MASK)
    return state


class RandomStreams:
    """One stream per device. purpose: distinguishes streams with the same seed."""

    def __init__(self, seed: int, purpose: int, devices: int) -> None:
        self._states = [mixed(seed, purpose, device) for device in range(devices)]

    def uniform(self, device: int) -> float:
        """Return the device's next number in [0, 1)."""
        state = self._states[device] = (self._states[device] + _STEP) & _MASK
        return (_scramble(state) >> 11) * 2.0**-53

    def exponential(self, device: int, mean: float) -> float:
        """Return the device's next exponential number with this mean."""
        return -mean * math.log(1.0 - self.uniform(device))
