# SPDX-License-Identifier: Apache-2.0
"""FedAvg: the mean of the updates, weighted by examples."""

from __future__ import annotations

from fedmote.learning.accumulator import Accumulator
from fedmote.learning.update import Update
from fedmote.model.layout import Model


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
