# SPDX-License-Identifier: Apache-2.0
"""Which machine runs a policy's rounds."""

from __future__ import annotations

from fedmote.rounds.buffered import BufferedRounds
from fedmote.rounds.policy import Policy
from fedmote.rounds.synchronous import SynchronousRounds


def machine_for(policy: Policy) -> type[SynchronousRounds | BufferedRounds]:
    """Return the class that runs the policy's rounds."""
    return BufferedRounds if policy.buffer else SynchronousRounds
