# SPDX-License-Identifier: Apache-2.0
"""FedNova: the mean of the updates' directions, whatever number of steps each took."""

from __future__ import annotations

import numpy as np

from fedmote.learning.accumulator import Accumulator
from fedmote.learning.update import Update
from fedmote.model.layout import Model


class NovaAccumulator(Accumulator):
    """What FedNova needs besides: how many examples spoke for an element, and how many steps they took."""

    __slots__ = ("covered", "example_steps", "examples", "whole_examples")

    def __init__(self, model: Model) -> None:
        """Start empty."""
        super().__init__(model)
        self.covered = np.zeros(model.size, np.float64)  # examples of updates that do not speak for the whole model
        self.whole_examples = 0.0
        self.examples = 0.0
        self.example_steps = 0.0


class FedNova:
    """Mean of the directions, so that who took more steps pulls no harder (Wang et al. 2020, arXiv:2007.07481, eq. 8).

    With n_i examples, t_i steps and d_i = w_i - x, an element becomes x + t * sum(n_i d_i / t_i) / sum(n_i) over those
    who covered it, where t = sum(n_i t_i) / sum(n_i) over all. For plain SGD with equal learning rates; as there, the
    fixed point then does not depend on who is fast. n_i is what the device has, not what it came to see: a partial
    update differs in t_i alone. The shares t n_i / (t_i sum(n_i)) of an element add up to at most LONGEST: nothing is
    carried further than twice what devices found, whatever steps one of them claims, and the fixed point stays.
    """

    LONGEST = 2.0

    def begin(self, model: Model) -> NovaAccumulator:
        """Start a round from `model`."""
        return NovaAccumulator(model)

    def fold(self, accumulator: Accumulator, update: Update) -> bool:
        """Weigh the update by examples over steps."""
        assert isinstance(accumulator, NovaAccumulator)
        examples = float(max(update.examples, update.local_examples))
        if not accumulator.add(update, examples / update.steps):
            return False
        if update.whole:
            accumulator.whole_examples += examples
        else:
            accumulator.cover(accumulator.covered, update, examples)
        accumulator.examples += examples
        accumulator.example_steps += examples * update.steps
        return True

    def finish(self, accumulator: Accumulator) -> Model:
        """Return the base moved along the mean direction."""
        assert isinstance(accumulator, NovaAccumulator)
        base = accumulator.base.astype(np.float64)
        weight = accumulator.weight + accumulator.whole
        spoken = weight > 0
        steps = accumulator.example_steps / accumulator.examples if accumulator.examples else 0.0
        scale = steps / np.where(spoken, accumulator.covered + accumulator.whole_examples, 1.0)
        scale = np.minimum(scale, self.LONGEST / np.where(spoken, weight, 1.0))
        moved = base + scale * (accumulator.sum - weight * base)
        largest = float(np.finfo(np.float32).max)
        return np.where(spoken, np.clip(moved, -largest, largest), base).astype(np.float32)
