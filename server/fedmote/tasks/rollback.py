# SPDX-License-Identifier: Apache-2.0
"""Go back to an earlier model."""

from __future__ import annotations

from dataclasses import dataclass

from fedmote.tasks.base import check_types


@dataclass(frozen=True, slots=True)
class RollBack:
    """Commit an earlier model as the next version. No device is asked; updates under way no longer count."""

    version: int
    cohort: int = 0

    def __post_init__(self) -> None:
        """Refuse a wrong version."""
        check_types(self)
