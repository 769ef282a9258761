# SPDX-License-Identifier: Apache-2.0
"""A strategy that records what another one folds, so that a test can look at each update."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from fedmote.learning.accumulator import Accumulator
from fedmote.learning.strategy import Strategy
from fedmote.learning.update import Update
from fedmote.model.layout import Model


@dataclass(frozen=True)
class Folds:
    """The updates that one round folded, each once, in order of arrival."""

    base: Model
    updates: list[Update] = field(default_factory=list)

    @property
    def devices(self) -> list[str]:
        """The devices of the updates."""
        return [update.device for update in self.updates]


class Recorder:
    """A strategy that records what another one folds. A server never keeps single updates.

    changed: called when an update was folded.
    """

    def __init__(self, strategy: Strategy, changed: Callable[[], None]) -> None:
        self.strategy, self.changed = strategy, changed
        self.finished: list[Folds] = []

    def begin(self, model: Model) -> Accumulator:
        """Start a round."""
        self.current = Folds(model)
        return self.strategy.begin(model)

    def fold(self, accumulator: Accumulator, update: Update) -> bool:
        """Fold, and remember if it counted."""
        counted = self.strategy.fold(accumulator, update)
        if counted:
            self.current.updates.append(update)
            self.changed()
        return counted

    def finish(self, accumulator: Accumulator) -> Model:
        """End the round."""
        self.finished.append(self.current)
        return self.strategy.finish(accumulator)

    def without(self, folds: Folds, devices: Sequence[str]) -> Model:
        """Return the round's model as it would be without these devices."""
        accumulator = self.strategy.begin(folds.base)
        for update in folds.updates:
            if update.device not in devices:
                self.strategy.fold(accumulator, update)
        return self.strategy.finish(accumulator)
