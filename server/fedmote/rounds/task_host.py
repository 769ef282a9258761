# SPDX-License-Identifier: Apache-2.0
"""What the rounds do for tasks."""

from __future__ import annotations

from dataclasses import asdict
from typing import TYPE_CHECKING

from fedmote.fleet.served_models import ServedModel
from fedmote.model.layout import Model
from fedmote.rounds.record import Record

if TYPE_CHECKING:
    from fedmote.rounds.machine import RoundMachine


class TaskHost:
    """What the rounds do for tasks: serve a model, roll back, keep and release models (fedmote.tasks.runner, Host)."""

    def __init__(self, rounds: RoundMachine) -> None:
        self._rounds = rounds

    @property
    def number(self) -> int:
        """Number of the next round, which a task's plans bear."""
        return self._rounds.number

    @property
    def chunk_elements(self) -> int:
        """Number of elements in a chunk."""
        return self._rounds.chunk_elements

    def serve_model(self, version: int) -> ServedModel:
        """Serve a committed model to a task's devices; 0: the latest. StoreError: it is not kept."""
        rounds = self._rounds
        version = version or rounds.version
        if version not in rounds.models:
            rounds.serve(version, rounds.store.models.get(version))
        return rounds.models[version]

    def roll_back(self, version: int) -> int:
        """Commit an earlier model as the next version, and return that. StoreError: it is not kept.

        Called between rounds. Updates under way no longer count, since they start from an unwanted model.
        """
        rounds = self._rounds

        def write(model: Model, record: Record) -> int:
            asked = rounds.selector.unsaved
            return rounds.store.commit(record.round, model, asdict(record), selected=asked, void=True)

        record = Record(rounds.number, rolled_back_to=version)
        rounds.commit_model(rounds.store.models.get(version), record, write)
        rounds.outlets.broadcast(rounds.commit_message(record.round))
        rounds.cancel_assignments()
        rounds.begin_next_round(record)
        return rounds.version

    def release(self, version: int) -> None:
        """Note that a model was rolled out to all devices. StoreError: it is not kept."""
        self._rounds.store.models.set_released(version)

    def keep_models(self, versions: set[int]) -> None:
        """Keep the models of a roll-out for as long as it takes. StoreError: one of them is not kept any longer."""
        self._rounds.store.models.keep_for_rollout(versions)
