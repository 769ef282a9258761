# SPDX-License-Identifier: Apache-2.0
"""Which machine runs a policy's rounds."""

from __future__ import annotations

from fedmote.rounds.buffered import Buffered
from fedmote.rounds.machine import Machine
from fedmote.rounds.policy import Policy
from fedmote.rounds.synchronous import Rounds


def machine(policy: Policy) -> type[Machine]:
    """Return what runs the policy's rounds."""
    return Buffered if policy.buffer else Rounds
