# SPDX-License-Identifier: Apache-2.0
"""When a round starts, closes and ends, and what its plan asks of each device."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Training:
    """What the plan asks of each device: [training] of federation.toml.

    max_steps: training steps at most; 0: no bound. prox_mu: weight of FedProx's term; 0: none.
    """

    epochs: int = 1
    batch_size: int = 32
    learning_rate: float = 0.1
    prox_mu: float = 0.0
    max_steps: int = 0


@dataclass(frozen=True, slots=True)
class Policy:
    """When a round starts, closes and ends: [round] of federation.toml.

    select: how many devices are selected, as a share of those online (at most 1) or a number (above 1). devices: how
    many must be online before a round starts. soft_deadline_s, hard_deadline_s: seconds from the plan to the closing
    notice and to the end. adaptive: these are the longest; they become shorter as the fleet shows how long it takes
    (fedmote.rounds.deadlines), the soft one not below min_deadline_s. partial: whether partial updates count.
    chunk_elements: number of elements in a chunk. encodings: names that devices may choose from. seed: of every draw.
    Synchronous rounds (buffer = 0): goal: the share of the selected whose reports bring the closing notice.
    min_reports: with fewer the round is opened again. resume_s: after a restart, how long the server waits for devices
    that hold work before it plans the round anew. min_interval_s: seconds from the plan of a round to that of the next
    one, at least. one_at_a_time: devices work one after the other in a fixed order, so
    that the same seed gives the same bits. Asynchronous rounds: buffer: the number of updates that make a round.
    max_staleness: how many rounds may be committed between a plan and its update. staleness_exponent: an update that is
    s rounds old counts for a share of (1 + s) ** -staleness_exponent.
    """

    select: float = 1.0
    devices: int = 1
    goal: float = 0.8
    soft_deadline_s: float = 60.0
    hard_deadline_s: float = 120.0
    min_reports: int = 1
    resume_s: float = 3.0
    min_interval_s: float = 0.0
    partial: bool = True
    chunk_elements: int = 1024
    one_at_a_time: bool = False
    encodings: tuple[str, ...] = ("float32", "int8")
    seed: int = 1
    buffer: int = 0
    max_staleness: int = 5
    staleness_exponent: float = 0.5
    adaptive: bool = False
    min_deadline_s: float = 10.0
