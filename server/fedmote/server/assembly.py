# SPDX-License-Identifier: Apache-2.0
"""Puts rounds and tasks together on one fleet. They do not know each other."""

from __future__ import annotations

from fedmote.fleet.fleet import Fleet
from fedmote.rounds.buffered import BufferedRounds
from fedmote.rounds.factory import machine_for
from fedmote.rounds.setup import Outlets, RoundSetup
from fedmote.rounds.synchronous import SynchronousRounds
from fedmote.store.store import Store
from fedmote.tasks.base import TaskLimits
from fedmote.tasks.runner import TaskRunner


def start_rounds(
    fleet: Fleet, store: Store, setup: RoundSetup, outlets: Outlets, task_limits: TaskLimits | None = None
) -> tuple[SynchronousRounds | BufferedRounds, TaskRunner]:
    """Start a federation's rounds, and the tasks between them, where its database says that they stood."""
    tasks = TaskRunner(fleet, task_limits or TaskLimits())
    return machine_for(setup.policy)(fleet, store, tasks, setup, outlets), tasks
