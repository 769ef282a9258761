# SPDX-License-Identifier: Apache-2.0
"""Bounds on what one device can cost."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Limits:
    """Bounds on what one device can cost."""

    slots: int = 64
    slot_silence_s: float = 30.0
    max_examples: int = 1_000_000
    retry_ms: int = 500
