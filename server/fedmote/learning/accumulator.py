# SPDX-License-Identifier: Apache-2.0
"""The running weighted sum of a round, and the mean that most strategies make of it."""

from __future__ import annotations

from abc import ABC, abstractmethod

import numpy as np
from numpy.typing import NDArray

from fedmote.learning.update import Update
from fedmote.model.layout import Model
from fedmote_device import kernels


class Accumulator:
    """The weighted sum and the weight of each element, in float64: an element is averaged over those who covered it.

    base: the model that the round started from. sum, weight: one number for each element. whole: the weight of updates
    that cover the whole model, which is not in `weight`.
    """

    __slots__ = ("_discounted", "_discounted_whole", "_scratch", "base", "sum", "weight", "whole")

    def __init__(self, model: Model) -> None:
        """Start empty. `model` is the base of deltas; an element that no update covers keeps its value there."""
        self.base = model
        self.sum = np.zeros(model.size, np.float64)
        self.weight = np.zeros(model.size, np.float64)
        self.whole = 0.0
        self._scratch: NDArray[np.float64] | None = None
        # The weight that discounts took from stale updates: in mean() it counts for the base. Per element for updates
        # that cover a part of the model, one number for the others.
        self._discounted: NDArray[np.float64] | None = None
        self._discounted_whole = 0.0

    def add(self, update: Update, weight: float) -> bool:
        """Add the update, times `weight`, where it covers the model. False: it is not finite, and nothing was added.

        Of a discounted update only the share `discount` of the weight counts for it; the rest counts for the base.
        """
        whole = update.whole
        result = self._fold(self.sum, None if whole else self.weight, update, weight * update.discount)
        if result and whole:
            self.whole += weight * update.discount
            self._discounted_whole += weight * (1 - update.discount)
        elif result and update.discount < 1:
            if self._discounted is None:
                self._discounted = np.zeros(self.sum.size, np.float64)
            self.cover(self._discounted, update, weight * (1 - update.discount))
        return result

    def cover(self, covered: NDArray[np.float64], update: Update, weight: float) -> None:
        """Add `weight` to the elements of `covered` that the update covers; add() has taken the update before."""
        if self._scratch is None:
            self._scratch = np.zeros(self.sum.size, np.float64)
        self._fold(self._scratch, covered, update, weight)

    def _fold(
        self, sum: NDArray[np.float64], weights: NDArray[np.float64] | None, update: Update, weight: float
    ) -> bool:
        base = self.base if update.delta else None
        if update.base is not None and not update.delta:
            base = self.base - update.base  # moves its weights to where they would be with this round's base
        result = kernels.fold(sum, weights, base, update, weight)
        if result == kernels.BAD_SIZES:
            raise ValueError(f"update of {update.device} has sizes that do not match each other")
        return result == kernels.FOLDED

    def mean(self) -> Model:
        """Return each element's weighted mean; elements that no update covers keep the base's value."""
        sum, weight = self.sum, self.weight
        if self._discounted_whole:
            sum = sum + self._discounted_whole * self.base.astype(np.float64)
        if self._discounted is not None:
            sum, weight = sum + self._discounted * self.base, weight + self._discounted
        return kernels.finish(sum, weight, self.base, self.whole + self._discounted_whole)


class WeightedMean(ABC):
    """A strategy whose next model is the weighted mean of the updates: a subclass says what an update weighs."""

    @abstractmethod
    def weight(self, update: Update) -> float:
        """Return the update's weight, above 0."""

    def begin(self, model: Model) -> Accumulator:
        """Start a round from `model`."""
        return Accumulator(model)

    def fold(self, accumulator: Accumulator, update: Update) -> bool:
        """Add one update; False refuses it as not finite and leaves the accumulator unchanged."""
        return accumulator.add(update, self.weight(update))

    def finish(self, accumulator: Accumulator) -> Model:
        """Return the weighted mean."""
        return accumulator.mean()
