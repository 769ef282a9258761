# SPDX-License-Identifier: Apache-2.0
"""When a round starts, closes and ends, and what its plan asks of each device."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Training:
    """What the plan asks of each device."""

    epochs: int = 1
    batch_size: int = 32
    learning_rate: float = 0.1
    prox_mu: float = 0.0
    max_steps: int = 0


@dataclass(frozen=True, slots=True)
class Policy:
    """When a round starts, closes and ends.

    select: devices asked, as a share of those there (at most 1) or a number (above 1). devices: how many must be there
    before a round starts. soft_deadline_s, hard_deadline_s: since the plan. adaptive: these are the longest; as the
    fleet shows how long it takes they become shorter (fedmote.pace), the soft one not below min_deadline_s.
    Synchronous rounds (buffer = 0): goal: share of the selected whose reports bring the closing notice. min_reports:
    fewer, and the round is opened again. resume_s: after a restart, time for devices that hold work to come back before
    the round is planned anew.
    Asynchronous rounds: buffer: updates that make a round. max_staleness: rounds that may be committed between a plan
    and its update. staleness_exponent: an update s rounds old is followed to a share of (1 + s) to minus this.
    """

    select: float = 1.0
    devices: int = 1
    goal: float = 0.8
    soft_deadline_s: float = 60.0
    hard_deadline_s: float = 120.0
    min_reports: int = 1
    resume_s: float = 3.0
    partial: bool = True
    chunk_elements: int = 1024
    one_at_a_time: bool = False  # updates are folded in a fixed order: the same seed gives the same bits
    encodings: tuple[str, ...] = ("float32", "int8")
    seed: int = 1
    buffer: int = 0
    max_staleness: int = 5
    staleness_exponent: float = 0.5
    adaptive: bool = False
    min_deadline_s: float = 10.0
