# SPDX-License-Identifier: Apache-2.0
"""Which updates may count, whether a round's result may become the model, and what follows if a round fails."""

from __future__ import annotations

import logging
import math
from typing import Final

from fedmote.errors import StrategyError
from fedmote.fleet.coordinators import Refusal
from fedmote.fleet.sessions import Sessions
from fedmote.learning.accumulator import Accumulator
from fedmote.learning.guard import UpdateGuard, bounded_examples, model_error, most_examples
from fedmote.learning.update import Update
from fedmote.model.layout import Model
from fedmote.rounds.setup import RoundSetup
from fedmote.wire.RefusalReason import RefusalReason

log = logging.getLogger(__name__)

MOST_FAILURES: Final = 3  # failed rounds in a row, after which the server stops
NOT_FINITE: Final = Refusal(RefusalReason.NonFinite, "it holds NaN, infinity or numbers beyond float32")
FAILED: Final = Refusal(RefusalReason.Closed, "the round has failed")


class Judge:
    """Judges the updates and results of one federation. A failed round ends with the model that it started from.

    failure: why the present round has failed; "": it has not.
    """

    def __init__(self, setup: RoundSetup, sessions: Sessions) -> None:
        self.strategy, self.partial, self.sessions = setup.strategy, setup.policy.partial, sessions
        self.guard = UpdateGuard(setup.bounds)
        self.name = f"{type(setup.strategy).__module__}.{type(setup.strategy).__qualname__}"
        self.failure = ""
        self._in_a_row = 0  # rounds that failed
        self._most_examples: int | None = None  # that an update weighs as; None: not computed in this round yet

    def begin_round(self) -> None:
        """End the former round, and begin one. StrategyError: too many failed in a row."""
        failure, self.failure = self.failure, ""
        self._in_a_row = self._in_a_row + 1 if failure else 0
        if self._in_a_row >= MOST_FAILURES:
            raise StrategyError(
                f"{MOST_FAILURES} rounds in a row failed; the last: {failure}. Mend the strategy and start again; "
                "the last sound model is kept"
            )
        self.begin_attempt()

    def begin_attempt(self) -> None:
        """Begin a round, or begin it again after too few devices reported: the bounds follow what was offered."""
        self._most_examples = None
        self.guard.begin_round()

    def bounded(self, update: Update, model: Model) -> Update | Refusal:
        """Return an update within its bounds, or why it must not count. model: the base of the round."""
        if self.failure:
            return FAILED
        if update.partial and not self.partial:
            return Refusal(RefusalReason.Closed, "partial updates do not count")
        change = self.guard.measure(update, model)
        if not math.isfinite(change.rms):
            return NOT_FINITE
        within = self.guard.clipped(update, change)
        if within is None:
            detail = f"it changes the model by {change.rms:.3g} (root mean square); the bound is {change.bound:.3g}"
            return Refusal(RefusalReason.TooLarge, detail)
        if self._most_examples is None:
            self._most_examples = most_examples(self.guard.bounds, self.sessions.examples())
        return bounded_examples(within, self._most_examples)

    def result(self, accumulator: Accumulator, model: Model, number: int) -> Model | None:
        """Return the strategy's result for round `number`. None: the round has failed. model: the base of the round."""
        if self.failure:
            return None
        try:
            new = self.strategy.finish(accumulator)
        except Exception:
            self.strategy_raised("finish", number)
            return None
        why = model_error(new, model.size) or self.guard.step_error(model, new)
        if why is None:
            return new
        self.failure = f"finish() of strategy {self.name} returned a wrong model: {why}"
        log.error("round %d fails: %s", number, self.failure)
        return None

    def strategy_raised(self, method: str, number: int) -> None:
        """Note, within an except clause, that the strategy raised an exception. Log its traceback."""
        self.failure = f"{method}() of strategy {self.name} raised an exception"
        log.exception("round %d fails: %s", number, self.failure)
