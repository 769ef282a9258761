# SPDX-License-Identifier: Apache-2.0
"""The protocol of a strategy: begin a round, fold updates one at a time, finish with the next model."""

from __future__ import annotations

from typing import Protocol

from fedmote.learning.accumulator import Accumulator
from fedmote.learning.update import Update
from fedmote.model.layout import Model


class Strategy(Protocol):
    """How updates become the next model: begin(model) -> fold(accumulator, update) ... -> finish(accumulator).

    The server forgets an update once it is folded. A strategy that keeps it says how much memory that takes. One that
    averages extends WeightedMean (fedmote.learning.accumulator) and only says what an update weighs.
    """

    def begin(self, model: Model) -> Accumulator:
        """Start a round from `model`."""
        ...

    def fold(self, accumulator: Accumulator, update: Update) -> bool:
        """Add one update; False refuses it as not finite and leaves the accumulator unchanged."""
        ...

    def finish(self, accumulator: Accumulator) -> Model:
        """Return the next model."""
        ...
