# SPDX-License-Identifier: Apache-2.0
"""The running weighted sum of a round, with a weight for each element."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from fedmote.learning.update import Update
from fedmote.model.layout import Model
from fedmote_device import kernels


class Accumulator:
    """Weighted sum and weight of each element, in float64: whoever covers an element has a say in it."""

    __slots__ = ("_scratch", "_still", "_still_whole", "base", "sum", "weight", "whole")

    def __init__(self, model: Model) -> None:
        """Start empty; `model` is the base of deltas, and what an element keeps that nobody spoke for."""
        self.base = model
        self.sum = np.zeros(model.size, np.float64)
        self.weight = np.zeros(model.size, np.float64)
        self.whole = 0.0
        self._scratch: NDArray[np.float64] | None = None
        self._still: NDArray[np.float64] | None = None  # weight of updates in part that says: stay where the base is
        self._still_whole = 0.0

    def add(self, update: Update, weight: float) -> bool:
        """Add `weight` times the update where it covers the model. False: not finite; nothing was added.

        With a discount, so much of the weight follows the update, and in mean() the rest stays with the base.
        """
        whole = update.whole
        result = self._fold(self.sum, None if whole else self.weight, update, weight * update.discount)
        if result and whole:
            self.whole += weight * update.discount
            self._still_whole += weight * (1 - update.discount)
        elif result and update.discount < 1:
            if self._still is None:
                self._still = np.zeros(self.sum.size, np.float64)
            self.cover(self._still, update, weight * (1 - update.discount))
        return result

    def cover(self, covered: NDArray[np.float64], update: Update, weight: float) -> None:
        """Add `weight` to `covered` where the update, which was added before, covers the model."""
        if self._scratch is None:
            self._scratch = np.zeros(self.sum.size, np.float64)
        self._fold(self._scratch, covered, update, weight)

    def _fold(
        self, sum: NDArray[np.float64], weights: NDArray[np.float64] | None, update: Update, weight: float
    ) -> bool:
        base = self.base if update.delta else None
        if update.base is not None and not update.delta:
            base = self.base - update.base  # its weights, as they would be had it started from this base
        result = kernels.fold(
            sum,
            weights,
            base,
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
        return result == kernels.FOLDED

    def mean(self) -> Model:
        """Return each element's weighted mean, the base's where nobody spoke."""
        sum, weight = self.sum, self.weight
        if self._still_whole:
            sum = sum + self._still_whole * self.base.astype(np.float64)
        if self._still is not None:
            sum, weight = sum + self._still * self.base, weight + self._still
        return kernels.finish(sum, weight, self.base, self.whole + self._still_whole)
