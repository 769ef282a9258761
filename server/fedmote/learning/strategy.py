# SPDX-License-Identifier: Apache-2.0
"""The protocol of a strategy: begin, fold, finish."""

from __future__ import annotations

from typing import Protocol

from fedmote.learning.accumulator import Accumulator
from fedmote.learning.update import Update
from fedmote.model.layout import Model


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
