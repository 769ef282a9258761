# SPDX-License-Identifier: Apache-2.0
"""A task's plan that is out with its cohort, and what the devices have answered so far."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from fedmote.errors import TaskError
from fedmote.tasks.base import Result
from fedmote.tasks.evaluate import Evaluated, read_evaluation
from fedmote.tasks.query import Query, Steps, read_answer
from fedmote.tasks.requests import Request
from fedmote.wire.Answer import Answer
from fedmote.wire.Evaluation import Evaluation


@dataclass(slots=True)
class QueuedTask:
    """A task that waits for its turn.

    done: called once, with the result or with why there is none. expires_at: the task begins before, in seconds, or not
    at all; None: its time has not begun, which it does at the first tick.
    """

    request: Request
    done: Callable[[Result | TaskError], None]
    expires_at: float | None = None


@dataclass(slots=True)
class RunningPlan:
    """One plan of a task, sent to its cohort.

    steps, query: of a query; None: it is an evaluation. round, version, seed: as the plan names them. plans: the
    message for each class of devices. awaited: devices that have not answered. expires_at: when the plan is over, in
    seconds. answered: devices that make up the cohort of the next plan. asked, withdrew: numbers of devices. refused:
    numbers of results, by reason.
    """

    task: QueuedTask
    steps: Steps | None
    query: Query | None
    round: int
    version: int
    seed: int
    plans: tuple[bytes, ...]
    awaited: set[str]
    expires_at: float
    answered: set[str] = field(default_factory=set)
    evaluations: list[Evaluated] = field(default_factory=list)
    answers: list[tuple[NDArray[np.float64], float]] = field(default_factory=list)
    asked: int = field(init=False)
    withdrew: int = 0
    refused: Counter[str] = field(default_factory=Counter)

    def __post_init__(self) -> None:
        """Count the cohort."""
        self.asked = len(self.awaited)

    @property
    def participation(self) -> Result:
        """How many devices were asked, answered, withdrew, stayed silent, and why results were refused."""
        refused = dict(sorted(self.refused.items()))
        return {
            "asked": self.asked, "answered": self.results, "withdrew": self.withdrew, "silent": len(self.awaited),
            "refused": refused,
        }  # fmt: skip

    def withdraw(self, device: str) -> None:
        """Note that the device will not answer."""
        if device in self.awaited:
            self.awaited.discard(device)
            self.withdrew += 1

    @property
    def results(self) -> int:
        """How many devices gave a valid result."""
        return len(self.evaluations) + len(self.answers)

    def is_over(self, now: float) -> bool:
        """Tell whether every device has answered, or the plan's time has passed."""
        return not self.awaited or now >= self.expires_at

    def is_result_of(self, result: Evaluation | Answer) -> bool:
        """Tell whether a result belongs to this plan.

        Devices of 0.1.0 do not send the seed; their evaluation is recognised by its round and model.
        """
        if isinstance(result, Answer) != (self.query is not None) or result.Round() != self.round:
            return False
        if isinstance(result, Evaluation) and result.Seed() == 0 and result.ModelVersion() == self.version:
            return True
        return bool(result.Seed() == self.seed)

    def take(self, device: str, result: Evaluation | Answer, bound: int) -> str | None:
        """Take a device's result. None: done; else why it was refused.

        bound: examples or values that one device adds at most.
        """
        if isinstance(result, Evaluation):
            evaluation = read_evaluation(result, self.version, bound)
            if isinstance(evaluation, str):
                return self._refuse(evaluation)
            self.evaluations.append(evaluation)
            return None
        assert self.query is not None
        answer = read_answer(result, self.query, bound)
        if isinstance(answer, str):
            return self._refuse(answer)
        self.answers.append(answer)
        self.answered.add(device)
        return None

    def _refuse(self, why: str) -> str:
        self.refused[why] += 1
        return why
