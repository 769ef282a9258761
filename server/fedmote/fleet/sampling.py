# SPDX-License-Identifier: Apache-2.0
"""How devices are drawn: weighted sampling, weights by age, and weights by utility."""

from __future__ import annotations

import math
from typing import Final

import numpy as np
from numpy.typing import NDArray

AGE_POWER: Final = 2  # a device's weight is this power of the rounds since it was selected
MOST_TURNS: Final = 10.0  # ages are cut off at so many turns; a turn is the rounds in which all could be selected once
EPSILON: Final = (0.9, 0.98, 0.2)  # share of the draw for devices of unknown utility: first, factor each round, least
CLIP: Final = 95.0  # percentile at which utilities are cut; also the share, in percent, of the least one taken
ALPHA: Final = 2.0  # exponent of the penalty on devices that take longer than preferred

Indices = NDArray[np.intp]
Numbers = NDArray[np.float64]


def weighted(weights: Numbers, count: int, rng: np.random.Generator) -> Indices:
    """Draw `count` indices without replacement, each in proportion to its weight among those that are left.

    Efraimidis and Spirakis 2006, "Weighted random sampling with a reservoir", algorithm A, in its exponential form.
    """
    return np.argsort(rng.exponential(size=weights.size) / weights, kind="stable")[:count]


def fair_weights(ages: Numbers, count: int) -> Numbers:
    """Return weights for a draw of `count` devices that prefers those not selected for long.

    ages: rounds since each device was selected, at least 1. The idea is the age-based scheduling of Yang et al. 2020
    (arXiv:1910.14648). Devices are drawn, because taking the oldest ones would put the same devices together in each
    round. In a fleet that is always online, a device that was selected x turns ago is selected with probability
    1 - exp(-2.1 x^2 r), where r is the share of the fleet that a round selects, and a turn is 1 / r rounds. This is the
    hazard c age^2 with a mean of 1 / r rounds between two selections.
    """
    cap = max(1.0, MOST_TURNS * ages.size / max(count, 1))
    return np.asarray(np.minimum(ages, cap) ** AGE_POWER, np.float64)


def epsilon(number: int) -> float:
    """Return the share of round `number` that is drawn from devices of unknown utility."""
    first, factor, least = EPSILON
    return float(max(least, first * factor ** (number - 1)))


def utilities(
    learnt: Numbers, last_rounds: Numbers, seconds: Numbers, number: int, preferred_s: float
) -> Numbers:  # fmt: skip
    """Return the utility of selecting each device in round `number`: Oort (Lai et al., OSDI 2021), algorithm 1.

    learnt: statistical utility, |B| sqrt(mean of squared losses). last_rounds: the round of each device's last report.
    seconds: how long each device takes. preferred_s: a device that takes longer is penalised. As in the authors'
    program, the learnt utility is scaled to 0..1 before sqrt(0.1 log R / L) is added for devices not heard for long.
    """
    clipped = np.minimum(learnt, np.percentile(learnt, CLIP))
    low, high = clipped.min(), clipped.max()
    scaled = (clipped - low) / (high - low) if high > low else np.ones_like(clipped)
    promise = scaled + np.sqrt(0.1 * math.log(max(number, 1)) / np.maximum(last_rounds, 1))
    slow = np.minimum(1.0, preferred_s / np.maximum(seconds, 1e-9)) ** ALPHA
    return np.asarray(np.maximum(promise * slow, 1e-9), np.float64)
