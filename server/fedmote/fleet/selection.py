# SPDX-License-Identifier: Apache-2.0
"""Eligibility: which devices may be selected, and by which rule a round selects among them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final, Literal

CHARGING: Final = 1  # bits of DeviceState.flags
METERED: Final = 2
BUSY: Final = 4
UNKNOWN_BATTERY: Final = 255


@dataclass(frozen=True, slots=True)
class Selection:
    """Client selection: [selection] of federation.toml.

    by: "fair" prefers devices that were not selected for long, "random" does not look at history, "utility" prefers
    devices whose updates teach most for their time (Oort). tiers: number of groups by speed; each round selects devices
    of one group (TiFL); 1: no groups. require_*, min_*: the state that a device must report. A device that does not
    report its battery or free memory meets the minimum.
    """

    by: Literal["fair", "random", "utility"] = "fair"
    tiers: int = 1
    require_charging: bool = False
    require_unmetered: bool = False
    require_idle: bool = True
    min_battery: int = 0
    min_free_memory_kib: int = 0

    def permits(self, flags: int, battery: int, free_memory_kib: int) -> bool:
        """Tell whether a device in this state may be selected. battery 255, free_memory_kib 0: it is not known."""
        return (
            (not self.require_charging or bool(flags & CHARGING))
            and (not self.require_unmetered or not flags & METERED)
            and (not self.require_idle or not flags & BUSY)
            and battery >= self.min_battery  # 255, not known, is above any minimum
            and (free_memory_kib == 0 or free_memory_kib >= self.min_free_memory_kib)
        )
