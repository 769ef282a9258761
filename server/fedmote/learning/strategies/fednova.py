# SPDX-License-Identifier: Apache-2.0
"""FedNova: the mean of the updates' directions, so that a device with more steps does not pull harder."""

from __future__ import annotations

import numpy as np

from fedmote.learning.accumulator import Accumulator, WeightedMean
from fedmote.learning.update import Update
from fedmote.model.layout import Model


class NovaAccumulator(Accumulator):
    """An accumulator that also counts the examples behind each element, and the steps they took."""

    __slots__ = ("covered", "example_steps", "examples", "whole_examples")

    def __init__(self, model: Model) -> None:
        """Start empty."""
        super().__init__(model)
        self.covered = np.zeros(model.size, np.float64)  # examples of updates that cover a part of the model
        self.whole_examples = 0.0
        self.examples = 0.0
        self.example_steps = 0.0


class FedNova(WeightedMean):
    """Average the directions of the updates (Wang et al. 2020, arXiv:2007.07481, eq. 8).

    With n_i examples, t_i steps and d_i = w_i - x, an element becomes x + t * sum(n_i d_i / t_i) / sum(n_i). The sums
    run over the devices that covered it; t = sum(n_i t_i) / sum(n_i) runs over all. This holds for plain SGD with equal
    learning rates; the fixed point then does not depend on who is fast, as in the paper. n_i is the number of examples
    that the device holds, not that it has seen: a partial update differs in t_i alone. The shares t n_i / (t_i
    sum(n_i)) of an element add up to at most LONGEST. So no device can move the model further than twice what devices
    found, whatever number of steps it claims, and the fixed point stays.
    """

    LONGEST = 2.0

    def weight(self, update: Update) -> float:
        """Return examples over steps: the weight of one step."""
        return self._examples(update) / update.steps

    def begin(self, model: Model) -> NovaAccumulator:
        """Start a round from `model`."""
        return NovaAccumulator(model)

    def fold(self, accumulator: Accumulator, update: Update) -> bool:
        """Add one update, and count its examples and steps; False refuses it as not finite."""
        assert isinstance(accumulator, NovaAccumulator)
        if not super().fold(accumulator, update):
            return False
        examples = self._examples(update)
        if update.whole:
            accumulator.whole_examples += examples
        else:
            accumulator.cover(accumulator.covered, update, examples)
        accumulator.examples += examples
        accumulator.example_steps += examples * update.steps
        return True

    def _examples(self, update: Update) -> float:
        return float(max(update.examples, update.local_examples))

    def finish(self, accumulator: Accumulator) -> Model:
        """Return the base moved along the mean direction."""
        assert isinstance(accumulator, NovaAccumulator)
        base = accumulator.base.astype(np.float64)
        weight = accumulator.weight + accumulator.whole
        covered = weight > 0
        steps = accumulator.example_steps / accumulator.examples if accumulator.examples else 0.0
        scale = steps / np.where(covered, accumulator.covered + accumulator.whole_examples, 1.0)
        scale = np.minimum(scale, self.LONGEST / np.where(covered, weight, 1.0))
        moved = base + scale * (accumulator.sum - weight * base)
        largest = float(np.finfo(np.float32).max)
        return np.where(covered, np.clip(moved, -largest, largest), base).astype(np.float32)
