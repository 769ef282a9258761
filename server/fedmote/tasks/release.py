# SPDX-License-Identifier: Apache-2.0
"""Note that a model was rolled out to all devices."""

from __future__ import annotations

from dataclasses import dataclass

from fedmote.tasks.base import check_types


@dataclass(frozen=True, slots=True)
class Release:
    """Note that a model was rolled out to all devices, so that it is kept."""

    version: int
    cohort: int = 0

    def __post_init__(self) -> None:
        """Refuse a wrong version."""
        check_types(self)
