# SPDX-License-Identifier: Apache-2.0
"""Bounds on what one device can cost."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Limits:
    """Bounds on what one device can cost: [limits] of federation.toml.

    slots: uploads in flight at a time. slot_silence_s: after so many seconds without a chunk an upload may lose its
    slot to another one. max_examples: number of examples that are believed. retry_ms: after how many milliseconds a
    device that has to wait asks again. pause_s: for how many seconds a device is not selected after its work was
    refused, twice as long each time in a row (fedmote.fleet.penalties); 0: not at all.
    """

    slots: int = 64
    slot_silence_s: float = 30.0
    max_examples: int = 1_000_000
    retry_ms: int = 500
    pause_s: float = 10.0
