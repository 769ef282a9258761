# SPDX-License-Identifier: Apache-2.0
"""Counters of the C code."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from fedmote_device._fedmote import CData


def read_counters(counters: CData) -> dict[str, int]:
    """Return each counter of a C struct by its name."""
    return {name: int(getattr(counters, name)) for name in dir(counters)}
