# SPDX-License-Identifier: Apache-2.0
"""What all tasks share: limits, results, checks."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, get_type_hints

import numpy as np

from fedmote.errors import TaskError

Result = dict[str, Any]
"""What a task releases: numbers and lists of them, as JSON takes them."""

LARGEST = 1e38  # of a range's ends, so that float32 also holds the bins that a query adds on either side
NOT_NEGATIVE = ("version", "cohort", "order", "against")


@dataclass(frozen=True, slots=True)
class TaskLimits:
    """Bounds on tasks: [tasks] of federation.toml.

    min_cohort: devices that an aggregate needs; with fewer, nothing is released. max_per_device: how many examples or
    values one device adds at most; a larger answer is scaled down. answer_s: seconds to answer a plan. wait_s: seconds
    within which a task begins, between rounds.
    """

    min_cohort: int = 10
    max_per_device: int = 1000
    answer_s: float = 60.0
    wait_s: float = 3600.0


def check_types(request: object) -> None:
    """Refuse fields of a wrong type, and numbers that neither the wire nor the database takes. TaskError: what is
    wrong.

    A request may be made from untrusted JSON.
    """
    for name, kind in get_type_hints(type(request)).items():
        value = getattr(request, name)
        if not _fits(value, kind):
            raise TaskError(f"{name} {value!r}: it must be {_EXPECTED[kind]}")
        if name in NOT_NEGATIVE and value < 0:
            raise TaskError(f"{name} {value}: it must be 0 or more")


_EXPECTED = {int: f"a whole number below {1 << 31}", float: "a number", str: "printable text"}


def _fits(value: object, kind: object) -> bool:
    if kind is int:
        return isinstance(value, int) and not isinstance(value, bool) and abs(value) < 1 << 31
    if kind is float:
        return isinstance(value, int | float) and not isinstance(value, bool)
    if kind is str:
        return isinstance(value, str) and value.isprintable()
    return True


def check_range(low: float, high: float) -> None:
    """Refuse a range that is empty, reversed or beyond what float32 holds."""
    if not (-LARGEST <= low < high <= LARGEST and np.float32(low) < np.float32(high)):
        raise TaskError(f"range {low} to {high}: it must be two numbers of at most {LARGEST:g}, the lower first")
