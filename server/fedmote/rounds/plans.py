# SPDX-License-Identifier: Apache-2.0
"""The plan of a round: what each class of devices is asked to do."""

from __future__ import annotations

import logging
from dataclasses import asdict

import numpy as np

from fedmote.fleet.coordinators import Assignment
from fedmote.fleet.served_models import ClassModel, ServedModel
from fedmote.model.encodings import ENCODINGS
from fedmote.rounds.deadlines import Deadline
from fedmote.rounds.policy import Policy, Training
from fedmote.wire.codec import encode
from fedmote.wire.UpdateKind import UpdateKind

log = logging.getLogger(__name__)


class Plans:
    """Writes the plans of a federation's rounds.

    unanswered: how many times nobody answered the plan of the present round. A device that takes a plan for one that it
    has done, as after the database was restored or made anew, takes the next one for new, since its seed differs.
    """

    def __init__(self, training: Training, policy: Policy) -> None:
        self.training, self.policy = training, policy
        self.encodings = sum(ENCODINGS[name].bit for name in policy.encodings)  # as the plan's mask has them
        self.unanswered = 0

    def note_unanswered(self, number: int) -> None:
        """Note that nobody answered the plan of the present round."""
        self.unanswered += 1
        log.warning("round %d: no device answered the plan; the next plan is a new one", number)

    def assignments_for(
        self, round: int, model: ServedModel, deadline: Deadline, slot_granted: bool
    ) -> tuple[Assignment, ...]:
        """Return each class's work in a round that starts from `model`, by class index.

        slot_granted: whether there is a slot for each device that gets the plan. The seed of the devices' own draws
        depends on the policy's seed, the round and `unanswered` alone.
        """
        key = [self.policy.seed, round, 1, self.unanswered] if self.unanswered else [self.policy.seed, round, 1]
        seed = int(np.random.default_rng(key).integers(1 << 32))
        return tuple(
            Assignment(
                round, part.version, part.crc32, self._encode(round, part, deadline, slot_granted, seed), slot_granted
            )
            for part in model.by_class
        )

    def _encode(self, round: int, part: ClassModel, deadline: Deadline, slot_granted: bool, seed: int) -> bytes:
        return encode(
            "Plan",
            round=round,
            model_version=part.version,
            model_elements=part.elements,
            model_crc32=part.crc32,
            model_chunk_elements=self.policy.chunk_elements,
            update_chunk_elements=self.policy.chunk_elements,
            encodings=self.encodings,
            kinds=1 << UpdateKind.Weights | 1 << UpdateKind.Delta,
            partial_allowed=self.policy.partial,
            slot_granted=slot_granted,
            seed=seed,
            soft_deadline_ms=int(1000 * deadline.soft_s),
            hard_deadline_ms=int(1000 * deadline.hard_s),
            **asdict(self.training),
        )
