# SPDX-License-Identifier: Apache-2.0
"""Strategies: how updates become the next model. A strategy is a fold, and updates are forgotten once folded."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from fedmote_device import kernels

Model = NDArray[np.float32]


@dataclass(frozen=True, slots=True)
class Update:
    """One device's update, complete or in part.

    data: the chunks' data end to end (gaps included). received: one byte a chunk, None when all came.
    ranges: (first, count) pairs, None for the whole model. delta: the data are differences to the base model.
    """

    device: str
    examples: int
    steps: int
    planned_steps: int
    loss: float
    encoding: int
    delta: bool
    chunk_elements: int
    data: bytearray
    scales: NDArray[np.float32] | None
    received: bytearray | None
    ranges: NDArray[np.uint32] | None

    @property
    def partial(self) -> bool:
        """Whether it stands for less than the plan asked for."""
        return self.steps < self.planned_steps or self.received is not None


class Accumulator:
    """Weighted sum and weight of each element, in float64: whoever covers an element has a say in it."""

    __slots__ = ("base", "sum", "weight", "whole")

    def __init__(self, model: Model) -> None:
        """Start empty; `model` is the base of deltas, and what an element keeps that nobody spoke for."""
        self.base = model
        self.sum = np.zeros(model.size, np.float64)
        self.weight = np.zeros(model.size, np.float64)
        self.whole = 0.0

    def add(self, update: Update, weight: float) -> bool:
        """Add `weight` times the update where it covers the model. False: not finite; nothing was added."""
        whole = update.ranges is None and update.received is None
        result = kernels.fold(
            self.sum,
            None if whole else self.weight,
            self.base if update.delta else None,
            update.data,
            update.encoding,
            update.scales,
            update.chunk_elements,
            update.received,
            update.ranges,
            weight,
        )
        if result == kernels.BAD_SIZES:
            raise ValueError(f"update of {update.device} has sizes that do not fit together")
        if result == kernels.FOLDED and whole:
            self.whole += weight
        return result == kernels.FOLDED

    def mean(self) -> Model:
        """Return each element's weighted mean, the base's where nobody spoke."""
        return kernels.finish(self.sum, self.weight, self.base, self.whole)


class Strategy(Protocol):
    """begin(model) -> fold(accumulator, update) ... -> finish(accumulator) -> model."""

    def begin(self, model: Model) -> Accumulator:
        """Start a round from `model`."""
        ...

    def fold(self, accumulator: Accumulator, update: Update) -> bool:
        """Add one update; False refuses it as not finite, with the accumulator unchanged."""
        ...

    def finish(self, accumulator: Accumulator) -> Model:
        """Return the next model."""
        ...


class FedAvg:
    """Mean of the updates, weighted by examples (McMahan et al. 2017, algorithm 1), element by element."""

    def begin(self, model: Model) -> Accumulator:
        """Start a round from `model`."""
        return Accumulator(model)

    def fold(self, accumulator: Accumulator, update: Update) -> bool:
        """Weigh the update by the examples it stands for."""
        return accumulator.add(update, float(update.examples))

    def finish(self, accumulator: Accumulator) -> Model:
        """Return the weighted mean."""
        return accumulator.mean()
