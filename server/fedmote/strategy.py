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
    base: the model that it started from; None: the one that the round's accumulator began with. discount: above 0 and
    at most 1, how far its difference to its base is followed, less than 1 for one that started from an older model.
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
    local_examples: int = 0  # that the device has in all, as its Hello says; 0: it did not
    base: Model | None = None
    discount: float = 1.0

    @property
    def whole(self) -> bool:
        """Whether it speaks for every element of the model."""
        return self.ranges is None and self.received is None

    @property
    def partial(self) -> bool:
        """Whether it stands for less than the plan asked for."""
        return self.steps < self.planned_steps or self.received is not None


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


STRATEGIES: dict[str, type[FedAvg] | type[FedNova]] = {"fedavg": FedAvg, "fednova": FedNova}
"""By the name that federation.toml gives."""
