# SPDX-License-Identifier: Apache-2.0
"""Evaluate a committed model on the devices' own data."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from fedmote.errors import TaskError
from fedmote.tasks.base import Result, check_types
from fedmote.wire.Evaluation import Evaluation


@dataclass(frozen=True, slots=True)
class Evaluate:
    """Evaluate a committed model on the devices' data.

    version: of the model; 0: the latest. cohort: how many devices are asked at least; 0: the share `share` of the free
    ones, at least the minimum cohort. order: 0 draws the devices; with any other number the same devices come first
    each time, so that a larger share contains a smaller one. Cohorts are made larger so that two never differ by a few
    devices. against: the other model of a roll-out; 0: none. Both models are kept until one of them is released or
    others are rolled out.
    """

    version: int = 0
    cohort: int = 0
    share: float = 1.0
    order: int = 0
    against: int = 0

    def __post_init__(self) -> None:
        """Refuse a share out of range."""
        check_types(self)
        if not 0 < self.share <= 1:
            raise TaskError(f"share {self.share}: it must be above 0 and at most 1")


@dataclass(frozen=True, slots=True)
class Evaluated:
    """One device's evaluation. weight: its number of examples, bounded."""

    weight: int
    loss: float
    accuracy: float


def read_evaluation(evaluation: Evaluation, version: int, bound: int) -> Evaluated | str:
    """Return what an Evaluation says, or why it is refused. bound: examples that one device counts for at most."""
    examples, correct, loss = evaluation.Examples(), evaluation.Correct(), evaluation.Loss()
    if evaluation.ModelVersion() != version:
        return "of another model"
    if examples == 0:
        return "no examples"
    if correct > examples:
        return "more correct than examples"
    if not math.isfinite(loss):
        return "loss not finite"
    return Evaluated(min(examples, bound), loss, correct / examples)


def spread(values: NDArray[np.float64], weights: NDArray[np.float64], least: int) -> Result:
    """Return weighted mean and deviation over the devices, and the mean of each quarter of them, the lowest first.

    quarters: None when a quarter has fewer devices than `least`. Extremes and quartiles would tell of single devices.
    """
    mean = float(np.average(values, weights=weights))
    deviation = math.sqrt(float(np.average((values - mean) ** 2, weights=weights)))
    parts = np.array_split(np.sort(values), 4)
    quarters = [float(part.mean()) for part in parts] if min(map(len, parts)) >= max(1, least) else None
    return {"mean": mean, "deviation": deviation, "quarters": quarters}


def evaluated(results: list[Evaluated], least: int) -> Result:
    """Return the aggregate of evaluations. No figure in it is of fewer devices than `least`."""
    weights = np.array([r.weight for r in results], np.float64)
    return {
        "devices": len(results), "examples": int(weights.sum()),
        "loss": spread(np.array([r.loss for r in results]), weights, least),
        "accuracy": spread(np.array([r.accuracy for r in results]), weights, least),
    }  # fmt: skip
