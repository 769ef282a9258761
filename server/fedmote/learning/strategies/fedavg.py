# SPDX-License-Identifier: Apache-2.0
"""FedAvg: the mean of the updates, weighted by examples."""

from __future__ import annotations

from fedmote.learning.accumulator import WeightedMean
from fedmote.learning.update import Update


class FedAvg(WeightedMean):
    """Average the updates element by element, weighted by examples (McMahan et al. 2017, algorithm 1)."""

    def weight(self, update: Update) -> float:
        """Return the number of examples that the update stands for."""
        return float(update.examples)
