# SPDX-License-Identifier: Apache-2.0
"""What a round machine is made of: its settings, its ways out, and the tasks that share the fleet with it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Protocol

from fedmote.fleet.pace import Pace
from fedmote.learning.guard import Bounds
from fedmote.learning.strategy import Strategy
from fedmote.model.layout import Model
from fedmote.rounds.policy import Policy, Training
from fedmote.rounds.record import Record


@dataclass(frozen=True)
class RoundSetup:
    """The settings of a federation's rounds. last_round: the rounds end when it is committed; None: never."""

    strategy: Strategy
    training: Training
    policy: Policy
    pace: Pace = field(default_factory=Pace)
    last_round: int | None = None
    bounds: Bounds = field(default_factory=Bounds)


@dataclass(frozen=True)
class Outlets:
    """Where a round machine puts what it makes.

    broadcast: sends a message to all devices. publish: makes a model's chunks available, (wire version, messages), or
    takes them back, (version, []). evaluate: called with each new model; its figures go into the record. on_commit:
    called with the record of each committed round.
    """

    broadcast: Callable[[bytes], None]
    publish: Callable[[int, list[bytes]], None]
    evaluate: Callable[[Model], dict[str, float]] | None = None
    on_commit: Callable[[Record], None] | None = None


class TaskQueue(Protocol):
    """What the rounds ask of the tasks, which use the same devices between rounds (fedmote.tasks.runner)."""

    @property
    def model_in_use(self) -> int | None:
        """Version of the model that the running task needs; None: it needs none."""
        ...

    def plan_for(self, device: str) -> bytes | None:
        """Return the plan of a task that the device should have now; None: none."""
        ...

    def is_waiting(self, now: float) -> bool:
        """Tell whether a task runs whose devices still have time, so that tick() would do nothing."""
        ...

    def tick(self, now: float, host: Any, free: list[str]) -> bool:
        """Do what is due. True: a task runs, and no training should begin. free: devices without any work."""
        ...

    def blocks_training(self, online: list[str]) -> bool:
        """Tell whether no training should begin: a task runs, or could run on these devices once they are free."""
        ...

    def expire(self, now: float, free: Callable[[], list[str]]) -> None:
        """Give up tasks that waited for too long. free: returns what tick() is given."""
        ...
