# SPDX-License-Identifier: Apache-2.0
"""A task's plan that is out with its cohort, and what the devices have answered so far."""

from __future__ import annotations

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
    seconds. answered: devices that make up the cohort of the next plan.
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

    def take(self, device: str, result: Evaluation | Answer, max_examples: int, bound: int) -> bool:
        """Take a device's result. False: it makes no sense, and nothing was taken.

        max_examples: that are believed. bound: examples or values that one device adds at most.
        """
        if isinstance(result, Evaluation):
            evaluation = read_evaluation(result, self.version, max_examples, bound)
            if evaluation is None:
                return False
            self.evaluations.append(evaluation)
            return True
        assert self.query is not None
        answer = read_answer(result, self.query, max_examples, bound)
        if answer is None:
            return False
        self.answers.append(answer)
        self.answered.add(device)
        return True
